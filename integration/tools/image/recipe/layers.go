//go:build linux

package recipe

import (
	"context"
	"path/filepath"
)

// Reference is the name the image carries. It exists in no registry.
const Reference = "docker.io/zfstpl/demo:1"

// Command is what a container of the image runs by default.
const Command = "/srv/app/main.py"

const (
	suite        = "trixie"
	architecture = "amd64"
	// epoch goes into SOURCE_DATE_EPOCH: what packages write of today's date,
	// such as the age of a password, is written of this day instead.
	epoch = "1754697600"
)

// A step makes one layer's tree out of a copy of the one below.
type step struct {
	name  string
	about string
	make  func(ctx context.Context, k *kitchen, tree string) error
}

// steps are the layers, lowest first.
var steps = []step{
	{"base", "mmdebstrap --variant=minbase " + suite, makeBase},
	{"python", "apt-get install --no-install-recommends python3", makePython},
	{"application", "a program, its words, odd names, setuid, capability, links", makeApplication},
	{"changes", "whiteouts, renames, replaced types, hard links", makeChanges},
}

// makeBase lets mmdebstrap write a minimal Debian into tree, which is empty.
func makeBase(ctx context.Context, k *kitchen, tree string) error {
	args := []string{
		"--variant=minbase", "--mode=root", "--format=directory", "--architectures=" + architecture,
		`--aptopt=Acquire::Retries "3"`,
		// What only a reader at a terminal would want costs every import a
		// third of its files. The documentation stays: the last layer deletes it.
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/man/*",
	}
	if k.host.keyring != "" {
		args = append(args, "--keyring="+k.host.keyring)
	}
	args = append(args, suite, tree)
	if k.host.mirror != "" {
		args = append(args, k.host.mirror)
	}
	if err := k.isolated(ctx, `mount -t proc proc /proc; exec mmdebstrap "$@"`, args...); err != nil {
		return err
	}
	return scrub(tree)
}

// makePython installs the interpreter with the tree's own apt.
func makePython(ctx context.Context, k *kitchen, tree string) error {
	resolver := filepath.Join(tree, "etc/resolv.conf")
	if err := copyFile("/etc/resolv.conf", resolver, 0o644); err != nil {
		return err
	}
	const script = `
tree=$1
mount -t proc proc "$tree/proc"
exec chroot "$tree" sh -ec '
	apt-get -o Acquire::Retries=3 update
	apt-get -o Acquire::Retries=3 install --yes --no-install-recommends python3
	apt-get clean
	# The package lists are larger than all else together. The release file
	# stays, for the last layer to delete.
	find /var/lib/apt/lists -type f ! -name "*Release" -delete
'`
	if err := k.isolated(ctx, script, tree); err != nil {
		return err
	}
	return scrub(tree)
}

// scrub removes what differs from one build to the next, and what of the
// building machine would travel along.
func scrub(tree string) error {
	return apply(tree,
		removeAll("etc/resolv.conf"),
		removeAll("etc/hostname"),
		removeMatching("var/log/*.log"),
		removeMatching("var/log/apt/*"),
		removeMatching("var/cache/apt/*.bin"),
		removeAll("var/cache/ldconfig/aux-cache"),
		removeMatching("var/lib/dpkg/*-old"),
		removeMatching("var/cache/debconf/*-old"),
	)
}
