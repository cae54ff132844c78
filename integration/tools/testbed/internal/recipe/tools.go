package recipe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// minQEMU is the first one that emulates the guest without crashing in it:
// of boots with 7.2 every third one failed.
const minQEMU = 8

// tools are the programs that the host needs, and their packages.
var tools = []struct{ program, pkg string }{
	{"qemu-system-x86_64", "qemu-system-x86"},
	{"mmdebstrap", "mmdebstrap"},
	{"mke2fs", "e2fsprogs"},
	{"mount", "mount"},
	{"tar", "tar"},
	{"xz", "xz-utils"},
}

// keyring has the keys of the guest's Debian.
const (
	keyring     = "/usr/share/keyrings/debian-archive-keyring.gpg"
	suiteKeys   = "/usr/share/keyrings/debian-archive-" + suite + "-automatic.gpg"
	keyringName = "debian-archive-keyring"
)

// missing returns the packages that the host lacks.
func missing(ctx context.Context) []string {
	var packages []string
	for _, tool := range tools {
		if _, err := exec.LookPath(tool.program); err != nil {
			packages = append(packages, tool.pkg)
		} else if tool.program == tools[0].program && qemuVersion(ctx) < minQEMU {
			packages = append(packages, tool.pkg)
		}
	}
	if _, err := os.Stat(suiteKeys); errors.Is(err, fs.ErrNotExist) {
		packages = append(packages, keyringName)
	}
	return packages
}

var versionPattern = regexp.MustCompile(`version (\d+)\.`)

// qemuVersion returns the major version, zero if it is not known.
func qemuVersion(ctx context.Context) int {
	out, err := exec.CommandContext(ctx, tools[0].program, "--version").Output()
	match := versionPattern.FindSubmatch(out)
	if err != nil || match == nil {
		return 0
	}
	version, err := strconv.Atoi(string(match[1]))
	if err != nil {
		return 0
	}
	return version
}

// installTools installs what the host lacks, once. The sources and the
// lists of other releases are in the cache: apt's own configuration stays.
func (b *builder) installTools(ctx context.Context) error {
	packages := missing(ctx)
	if len(packages) == 0 {
		return nil
	}
	names := strings.Join(packages, ", ")
	if _, err := exec.LookPath("apt-get"); err != nil || os.Getuid() != 0 {
		return fmt.Errorf("the host lacks %s: install them, or run this once as root on Debian", names)
	}
	return b.step(ctx, "tools", 0, "installing "+names+" (once)", func(ctx context.Context, j *job) error {
		// To kill dpkg would leave the host with half a package.
		return errors.Join(j.installPackages(context.WithoutCancel(ctx), packages), context.Cause(ctx))
	})
}

func (j *job) installPackages(ctx context.Context, packages []string) error {
	options := []string{"-q", "-y"}
	install := []string{"install", "--no-install-recommends"}
	host := hostDebian(ctx)
	if host.archive == "" {
		// Before its first update apt does not know which release its sites
		// have; a new machine would get the QEMU that is too old.
		if err := j.apt(ctx, append(slices.Clone(options), "update")...); err != nil {
			return err
		}
		host = hostDebian(ctx)
	}
	if osRelease("VERSION_ID") == oldDebian && host.archive != "" {
		private, err := j.privateSources(host)
		if err != nil {
			return err
		}
		options = append(options, private...)
		install = append(install, "--target-release", host.codename+"-backports")
	}
	if err := j.apt(ctx, append(slices.Clone(options), "update")...); err != nil {
		return err
	}
	return j.apt(ctx, slices.Concat(options, install, packages)...)
}

// oldDebian is the release whose own QEMU is too old; its backports have one.
const oldDebian = "12"

// privateSources returns the options by which apt uses the host's Debian and
// its backports, and keeps what it fetches out of its own state.
func (j *job) privateSources(host debian) ([]string, error) {
	list := filepath.Join(j.cache.apt(), "sources.list")
	lines := host.sources(host.codename, "main", "signed-by="+keyring)
	if err := os.WriteFile(list, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return nil, err
	}
	lists, cache := filepath.Join(j.cache.apt(), "lists"), filepath.Join(j.cache.apt(), "cache")
	for _, dir := range []string{lists, filepath.Join(cache, "archives")} {
		if err := os.MkdirAll(filepath.Join(dir, "partial"), 0o755); err != nil {
			return nil, err
		}
	}
	return []string{
		"-o", "Dir::Etc::sourcelist=" + list, "-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Dir::State::lists=" + lists, "-o", "Dir::Cache=" + cache,
	}, nil
}

func (j *job) apt(ctx context.Context, args ...string) error {
	return j.run(ctx, "apt-get "+strings.Join(args, " "), j.command("apt-get", args...))
}
