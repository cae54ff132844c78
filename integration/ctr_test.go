package integration

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testimage"
)

// ctrRow is something that is done with ctr: a script for sh. What it writes and how
// it ends is to be the same with every snapshotter.
type ctrRow struct {
	name, script string
	// newer: ctr of containerd 1.7 has not what the script uses.
	newer bool
	// long: the snapshotter sees nothing there that it does not see in another row, and
	// 'make test' has no time for both.
	long bool
}

// ctrPrologue is what every script begins with. The variables are $IMAGE, the
// $TOP of its snapshots, $ARCHIVE it came from, and $D, an empty directory.
const ctrPrologue = `set -e
# Layers have long names: the newer call for mounts takes no more than 256 bytes.
export LIBMOUNT_FORCE_MOUNT2=always
# code prints how a command ended, and not what it wrote.
code() { if "$@" >&2; then echo ended with 0; else echo "ended with $?"; fi; }
# start starts a container whose output does not come in between, and end removes it.
start() { ctr run --detach --null-io $IMAGE "$1" /app wait; }
end() {
	ctr tasks delete --force "$1" >/dev/null
	ctr containers delete "$1"
}
# settle has garbage collected. At no other time is it, but for what is deleted with --sync.
settle() { ctr leases delete --sync $(ctr leases create) >/dev/null; }
# refused prints whether a directory is read-only.
refused() { if touch "$1/refused" 2>/dev/null; then echo "$1 is writable"; else echo "$1 is read-only"; fi; }
# files prints what is in a directory, and keys the first column of a table.
files() { (cd "$1" && find . -type f | sort); }
keys() { awk '{print $1}' | sort; }
# layer prints the names in a layer that are no directories: these are given for their
# time alone by one differ and not by the other.
layer() { tar -t"$1" | grep -v '/$' | sort; }
`

// ctrClear removes what a script left.
const ctrClear = `set +e
for c in $(ctr containers ls --quiet); do end $c; done
for key in $(ctr snapshots ls | keys | grep -v -e KEY -e sha256:); do ctr snapshots rm $key; done
`

var ctrRows = []ctrRow{
	{name: "images check", script: `ctr images check`},
	{name: "images usage", script: `ctr images usage $IMAGE | keys; code ctr images usage none`},
	{name: "images mount", script: `
		ctr images mount $IMAGE $D; files $D; refused $D
		ctr images unmount --rm $D; code ctr snapshots info $D`},
	{name: "images mount --rw", script: `
		ctr images mount --rw $IMAGE $D; touch $D/written
		ctr images unmount $D; ls $D
		code ctr images mount --rw $IMAGE $D # it is still active
		ctr images unmount --rm $D; code ctr snapshots info $D`},
	{name: "images mount at two places", script: `
		mkdir $D/1 $D/2 $D/3; for n in 1 2; do ctr images mount $IMAGE $D/$n; done
		ctr images mount --rw --platform linux/amd64 $IMAGE $D/3
		files $D; for n in 1 3 2; do ctr images unmount --rm $D/$n; done`},
	{name: "images mount of what is not there", script: `
		code ctr images mount none $D; code ctr images mount --platform linux/arm64 $IMAGE $D
		code ctr images unmount --rm $D; code ctr images unmount --rm $D; code ctr images unmount --rm $D/none`},
	{name: "images mount --sync-fs --expiration", newer: true, long: true, script: `
		ctr images mount --sync-fs --expiration 1h $IMAGE $D; files $D; ctr images unmount --rm $D`},
	{name: "images convert", long: true, script: `
		ctr images convert --uncompress $IMAGE converted:1 >/dev/null
		ctr images convert --oci --platform linux/amd64 $IMAGE converted:2 >/dev/null
		for n in 1 2; do ctr run --rm converted:$n c /app self; done
		ctr images delete --sync converted:1 converted:2`},
	{name: "images export and import", script: `
		ctr images export $D/image.tar $IMAGE; ctr images tag $IMAGE other:1 >/dev/null
		ctr images delete --sync $IMAGE other:1; code ctr snapshots info $TOP
		ctr images import $D/image.tar >/dev/null; ctr images check --quiet
		ctr run --rm $IMAGE c /app self`},
	{name: "images import --no-unpack", script: `
		ctr images delete --sync $IMAGE
		ctr images import --no-unpack $ARCHIVE >/dev/null; code ctr images usage $IMAGE
		ctr run --rm $IMAGE c /app self # unpacks it
		ctr images usage $IMAGE | keys`},
	{name: "images import with its other options", long: true, script: `
		ctr images delete --sync $IMAGE
		ctr images import --local --digests --skip-digest-for-named --base-name docker.io/zfstpl/test --platform linux/amd64 $ARCHIVE >/dev/null
		ctr images usage $IMAGE | keys
		ctr images delete --sync $IMAGE
		ctr images import --local --compress-blobs --discard-unpacked-layers --all-platforms $ARCHIVE >/dev/null
		ctr images usage $IMAGE | keys`},
	{name: "images pull and push", long: true, script: `
		ctr images pull --plain-http $REGISTRY/zfstpl/test:1 >/dev/null; ctr run --rm $REGISTRY/zfstpl/test:1 c /app self
		ctr images delete --sync $REGISTRY/zfstpl/test:1
		ctr images pull --local --plain-http $REGISTRY/zfstpl/test:1 >/dev/null
		ctr images check --quiet | wc -l; ctr images delete --sync $REGISTRY/zfstpl/test:1`},

	{name: "snapshots ls", script: `ctr snapshots ls | sort | tr -s ' '; ctr snapshots tree`},
	{name: "snapshots info", script: `
		ctr snapshots info $TOP | jq -c '[.Kind, .Name, .Parent]'; code ctr snapshots info none`},
	{name: "snapshots usage", script: `
		ctr snapshots usage | keys; ctr snapshots usage -b $TOP | keys; code ctr snapshots usage none`},
	{name: "snapshots prepare", script: `
		ctr snapshots prepare --mounts --target $D one | wc -l >/dev/null
		ctr snapshots prepare two $TOP
		code ctr snapshots prepare two $TOP; code ctr snapshots prepare three none
		ctr snapshots prepare three two 2>/dev/null || echo its parent is not committed
		ctr snapshots ls | sort | tr -s ' '; ctr snapshots rm one two`},
	{name: "snapshots view", script: `
		ctr snapshots view --target $D --mounts one >/dev/null; ctr snapshots view two $TOP
		code ctr snapshots view two $TOP; code ctr snapshots view three none
		ctr snapshots ls | sort | tr -s ' '; ctr snapshots rm one two; code ctr snapshots rm one`},
	{name: "snapshots mounts", script: `
		mkdir $D/view $D/active; ctr snapshots view view $TOP; ctr snapshots prepare active $TOP
		for key in view active; do ctr snapshots mounts $D/$key $key >$D/mount; sh -e $D/mount; done
		files $D/view; refused $D/view; touch $D/active/written; files $D/active
		umount $D/view $D/active; ctr snapshots rm view active
		code ctr snapshots mounts $D none; code ctr snapshots mounts $D $TOP`},
	{name: "snapshots mounts --temp", newer: true, long: true, script: `
		ctr snapshots prepare active $TOP; ctr snapshots mounts --temp $D active >/dev/null; ctr snapshots rm active`},
	{name: "snapshots commit", script: `
		ctr snapshots prepare key $TOP >/dev/null; ctr snapshots mounts $D key | sh -e; touch $D/written; umount $D
		ctr snapshots commit name key; code ctr snapshots commit name key; code ctr snapshots info key
		ctr snapshots prepare key name >/dev/null; code ctr snapshots commit name key; code ctr snapshots rm name
		ctr snapshots mounts $D key | sh -e; files $D; umount $D
		ctr snapshots ls | sort | tr -s ' '; ctr snapshots rm key name`},
	{name: "snapshots commit of a running container", script: `
		start c; ctr tasks exec --exec-id e c /app write /written yes
		ctr snapshots commit name c; ctr tasks ls | awk 'NR > 1 {print $3}'
		ctr tasks exec --exec-id e c /app write /later yes
		ctr snapshots view look name >/dev/null; ctr snapshots mounts $D look | sh -e; ls $D/written; umount $D
		ctr snapshots rm look; end c; ctr snapshots rm name`},
	{name: "snapshots label", script: `
		ctr snapshots prepare key $TOP >/dev/null
		ctr snapshots label key some.one/label=value >/dev/null; ctr snapshots info key | jq '.Labels["some.one/label"]'
		ctr snapshots label key some.one/label= >/dev/null; ctr snapshots info key | jq '.Labels["some.one/label"]'
		code ctr snapshots label none some.one/label=value; ctr snapshots rm key`},
	{name: "snapshots diff", script: `
		ctr snapshots prepare key $TOP >/dev/null; ctr snapshots mounts $D key | sh -e
		touch $D/written; rm $D/data/kept; umount $D
		ctr snapshots diff key | layer z
		ctr snapshots diff --media-type application/vnd.oci.image.layer.v1.tar --ref a-diff --label a=b --keep key | layer ''
		ctr snapshots diff key $TOP | layer z # what leads back
		ctr snapshots diff $TOP | layer z; code ctr snapshots diff none; ctr snapshots rm key`},
	{name: "snapshots unpack", script: `
		digest=$(ctr images ls | awk -v image=$IMAGE '$1 == image {print $3}')
		ctr images delete --sync $IMAGE; ctr images import --no-unpack $ARCHIVE >/dev/null
		ctr snapshots unpack $digest; ctr snapshots ls | sort | tr -s ' '
		ctr snapshots unpack $digest; code ctr snapshots unpack sha256:` + strings.Repeat("0", 64)},
	{name: "snapshots unpack --sync-fs", newer: true, long: true, script: `
		digest=$(ctr images ls | awk -v image=$IMAGE '$1 == image {print $3}')
		ctr images delete --sync $IMAGE; ctr images import --no-unpack $ARCHIVE >/dev/null
		ctr snapshots unpack --sync-fs $digest; ctr snapshots ls | sort | tr -s ' '`},
	{name: "snapshots rm", script: `code ctr snapshots rm $TOP none; code ctr snapshots rm none`},

	{name: "run", script: `
		ctr run --rm $IMAGE c; code ctr run --rm $IMAGE c /app none; code ctr run --rm none c
		ctr run $IMAGE c /app write /written yes; code ctr run $IMAGE c; ctr snapshots info c | jq .Kind
		ctr containers delete c; code ctr snapshots info c`},
	{name: "run --detach", script: `
		ctr run --detach --pid-file $D/pid --log-uri file://$D/log $IMAGE c /app wait
		test -d /proc/$(cat $D/pid)/root/data; code ctr snapshots rm c >/dev/null; end c`},
	{name: "run --user", script: `
		ctr run --rm --user web $IMAGE c /app self; ctr run --rm --user 33 $IMAGE c /app self
		ctr run --rm --user web:web $IMAGE c /app self; code ctr run --rm --user none $IMAGE c /app self
		settle; code ctr snapshots info c`},
	{name: "run --read-only", long: true, script: `code ctr run --rm --read-only $IMAGE c /app write /written yes`},
	{name: "run in a user namespace", script: `
		ctr run --rm --uidmap 0:100000:65536 --gidmap 0:100000:65536 $IMAGE c /app write /written yes`},
	{name: "run --remap-labels", newer: true, long: true, script: `
		ctr run --rm --remap-labels --uidmap 0:100000:65536 --gidmap 0:100000:65536 $IMAGE c /app write /written yes`},
	{name: "run --rootfs", long: true, script: `
		ctr images mount --rw $IMAGE $D; ctr run --rm --rootfs $D c /app write /written yes
		files $D; ctr images unmount --rm $D`},
	{name: "run --config", long: true, script: `
		mkdir $D/root; ctr images mount --rw $IMAGE $D/root
		ctr oci spec | jq '.root.path = "'$D/root'" | .process.args = ["/app", "write", "/written", "yes"] | .process.terminal = false | .linux.cgroupsPath = "/zfstpl-ctr"' >$D/config.json
		ctr run --rm --config $D/config.json c; files $D/root; ctr images unmount --rm $D/root`},
	{name: "run with options of the snapshot and the runtime", long: true, script: `
		ctr run --rm --snapshotter-label some.one/label=value --platform linux/amd64 --no-pivot=false --rootfs-propagation private \
			--runtime io.containerd.runc.v2 --runc-binary runc --runc-root $D/runc $IMAGE c /app self`},
	{name: "run --sync-fs and --dump-config", newer: true, long: true, script: `
		ctr run --rm --sync-fs $IMAGE c /app self; ctr run --rm --dump-config $D/config $IMAGE c /app self >/dev/null
		jq .process.args $D/config; code ctr snapshots info c`},
	{name: "run with options of the process", long: true, script: `
		echo C=d >$D/env
		ctr run --rm --cwd /data --env A=b --env-file $D/env --hostname web --label a=b --annotation a=b --allow-new-privs \
			--cap-add CAP_SYS_ADMIN --cap-drop CAP_CHOWN --mount type=bind,src=$D,dst=/mnt,options=rbind:ro --seccomp $IMAGE c /app self`},
	{name: "run with options of resources", long: true, script: `
		code ctr run --rm --cpus 1 --cpu-shares 512 --memory-limit 67108864 --cgroup /zfstpl-ctr $IMAGE c /app self
		code ctr run --rm --cpu-quota 50000 --cpu-period 100000 $IMAGE c /app self`},
	{name: "run --cpuset-cpus, --cpuset-mems and --rlimit-nofile", newer: true, long: true, script: `
		code ctr run --rm --cpuset-cpus 0 --cpuset-mems 0 --rlimit-nofile 64:128 $IMAGE c /app self`},
	{name: "run with options of devices and namespaces", long: true, script: `
		ctr run --rm --privileged --net-host --with-ns ipc:/proc/1/ns/ipc $IMAGE c /app self | sed 's/ on .*//'
		ctr run --rm --privileged --privileged-without-host-devices --device /dev/null $IMAGE c /app self`},
	{name: "run with options of input and output", long: true, script: `
		ctr run --rm --null-io $IMAGE c /app self; ctr run --rm --fifo-dir $D $IMAGE c /app self
		script --quiet --return --command "ctr run --rm --tty $IMAGE c /app self" /dev/null </dev/null | tr -d '\r'`},
	{name: "run with what a machine may not have", script: `
		for option in "--apparmor-profile none" "--gpus 0" "--rdt-class none" "--blockio-config-file none" "--sandbox none" "--cni" "--no-pivot"; do
			echo run $option; code ctr run --rm $option $IMAGE c /app self; settle
		done; ctr snapshots ls | sort | tr -s ' '; ctr containers ls --quiet`},

	{name: "tasks exec", long: true, script: `
		start c
		ctr tasks exec --exec-id e --cwd /data c /app self; ctr tasks exec --exec-id e --user 33:33 c /app self
		ctr tasks exec --exec-id e --detach --log-uri file://$D/log c /app write /written yes
		code ctr tasks exec --exec-id f c /app none; end c`},
	{name: "tasks exec --user", script: `
		start c
		for user in web 33 web:web 0; do ctr tasks exec --exec-id e --user $user c /app self; done
		code ctr tasks exec --exec-id e --user none c /app self; ctr tasks exec --exec-id e c /app write /written yes; end c`},
	{name: "tasks pause", script: `
		start c; ctr tasks exec --exec-id e c /app write /written yes
		ctr tasks pause c; ctr tasks ls | awk 'NR > 1 {print $3}'; ctr snapshots usage c | keys; ctr snapshots diff c | layer z
		ctr tasks resume c; ctr tasks exec --exec-id e c /app write /written again; end c`},
	{name: "tasks checkpoint", long: true, script: `
		start c; code ctr tasks checkpoint --image-path $D/image --work-path $D/work c
		ctr tasks ls | awk 'NR > 1 {print $3}'; end c`},
	{name: "containers create", script: `
		ctr containers create $IMAGE c /app self; code ctr containers create $IMAGE c /app self
		ctr snapshots info c | jq .Kind; ctr tasks start c; ctr tasks start c; ctr containers delete c; code ctr snapshots info c`},
	{name: "containers delete --keep-snapshot", script: `
		ctr containers create $IMAGE c /app self; ctr snapshots label c containerd.io/gc.root=kept >/dev/null
		ctr containers delete --keep-snapshot c
		ctr snapshots info c | jq .Kind; code ctr containers create $IMAGE c /app self; ctr snapshots rm c`},
	{name: "containers checkpoint and restore", script: `
		start c; ctr tasks exec --exec-id e c /app write /data/written yes
		ctr containers checkpoint --rw --image c checkpoint:1; ctr tasks ls | awk 'NR > 1 {print $3}'
		code ctr containers checkpoint --rw --image --task c checkpoint:2; end c # that takes criu
		code ctr containers restore --rw c checkpoint:1; code ctr containers restore --rw --live c checkpoint:1
		settle; ctr snapshots ls | sort | tr -s ' '; ctr containers delete c || ctr snapshots rm c || :
		ctr images delete --sync checkpoint:1`},
	{name: "leases", script: `
		ours() { ctr leases ls --quiet | grep -c -x held; } # zfstpl's differ has its own, which end by themselves
		ctr leases create --id held --expires 1h; ours
		ctr snapshots prepare loose $TOP >/dev/null; ctr snapshots label loose containerd.io/gc.root= >/dev/null
		ctr leases delete --sync held; ours || :; code ctr snapshots info loose; ctr snapshots info $TOP | jq .Name`},
	{name: "images delete", script: `
		start c; ctr images delete --sync $IMAGE; ctr snapshots ls | sort | tr -s ' '
		end c; settle; ctr snapshots ls | sort | tr -s ' '`},
}

// collectsOnRequest is the configuration of a containerd that collects garbage only for a
// caller that waits for it. By default it also collects some time after a deletion, and
// no lease keeps a view that ctr made. The pause between collections is their average
// duration divided by pause_threshold.
const collectsOnRequest = "[plugins.\"io.containerd.gc.v1.scheduler\"]\npause_threshold = 0.000001\ndeletion_threshold = 1000000\nmutation_threshold = 0\n"

// Everything that ctr does with a snapshotter it does with ours as with overlayfs: it
// writes the same and ends with the same code. At the end nothing is left of it.
func TestCtr(t *testing.T) {
	onlyOnce(t, olderReleases, aClient)
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	c := startContainerdWith(t, d, func(int, string) string { return withoutCRI + collectsOnRequest })
	reachable(t, c.dir)
	rig := newCtrRig(t, c)
	old := containerd17(t)
	for _, row := range ctrRows {
		t.Run(row.name, func(t *testing.T) {
			if row.newer && old {
				t.Skip("ctr of containerd 1.7 does not have it")
			}
			if row.long && testing.Short() {
				t.Skip("takes long, and asks the snapshotter nothing new: 'make test-long' runs it")
			}
			theirs := rig.run(t, "overlayfs", row.script)
			ours := rig.run(t, "zfstpl", row.script)
			assert.Equal(t, theirs, ours)
			assert.Zero(t, theirs.code, "the script itself ends well:\n%s", theirs.out)
			if t.Failed() { // what it left is not the next one's
				rig.run(t, "overlayfs", ctrClear)
				rig.run(t, "zfstpl", ctrClear)
			}
		})
	}
	rig.run(t, "zfstpl", "ctr images delete --sync $IMAGE")
	d.Clean(t)
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
}

// ctrRig runs scripts with a snapshotter, each in the namespace of that name.
type ctrRig struct {
	env     []string
	archive string
}

func newCtrRig(t *testing.T, c *containerd) *ctrRig {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "image.tar")
	require.NoError(t, testimage.Write(archive, testImage, harness.Binary(t, "app"),
		[]testimage.File{{Name: "etc/passwd", Content: []byte(passwd)}, {Name: "etc/group", Content: []byte(group)}},
		[]testimage.File{{Name: "data/kept", Content: []byte("kept")}},
	))
	_, ref := serveImage(t, archive)
	registry, _, _ := strings.Cut(ref, "/")
	return &ctrRig{archive: archive, env: append(os.Environ(), "CONTAINERD_ADDRESS="+c.address,
		"IMAGE="+testImage, "ARCHIVE="+archive, "TOP="+topOf(t, archive), "REGISTRY="+registry)}
}

// topOf is the chain ID of an archive's image.
func topOf(t testing.TB, archive string) string {
	t.Helper()
	image, err := tarball.ImageFromPath(archive, nil)
	require.NoError(t, err)
	config, err := image.ConfigFile()
	require.NoError(t, err)
	var layers []digest.Digest
	for _, layer := range config.RootFS.DiffIDs {
		layers = append(layers, digest.Digest(layer.String()))
	}
	return identity.ChainID(layers).String()
}

// outcome is what a script wrote to its output, and its exit code.
type outcome struct {
	out  string
	code int
}

// run runs a script where the image is imported.
func (r *ctrRig) run(t *testing.T, snapshotter, script string) outcome {
	t.Helper()
	// The same for both: what is mounted there has it as its key.
	dir := filepath.Join(os.TempDir(), "zfstpl-ctr-"+strings.ReplaceAll(filepath.Base(t.Name()), " ", "-"))
	require.NoError(t, os.Mkdir(dir, 0o755))
	defer func() {
		assert.NoError(t, mount.UnmountRecursive(dir, 0))
		assert.NoError(t, os.RemoveAll(dir))
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 2*harness.Patience)
	defer cancel()
	const imported = "ctr images ls --quiet name==$IMAGE | grep -q . || ctr images import $ARCHIVE >/dev/null\n"
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(ctx, "sh", "-c", ctrPrologue+imported+script)
	cmd.Env = append(r.env, "CONTAINERD_NAMESPACE="+snapshotter, "CONTAINERD_SNAPSHOTTER="+snapshotter, "D="+dir)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	t.Logf("%s:\n%s%s", snapshotter, &stdout, &stderr)
	return outcome{stdout.String(), cmd.ProcessState.ExitCode()}
}
