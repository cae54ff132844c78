package integration

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/differ"
	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/randtree"
)

// comingAndGoing have most of what packages do: shared libraries, after which
// the linker's cache is made again, alternatives and files of configuration.
var comingAndGoing = []string{"jq", "libjq1", "libonig5", "less", "vim-common", "vim-tiny"}

// staying is what dpkg needs.
var staying = []string{"base-files", "base-passwd", "coreutils", "dash", "diffutils", "dpkg", "libc-bin", "tar"}

// What most images are made by: Debian's own tools remove, install and upgrade
// packages. The layer of each makes the same of what was before, and has the
// names that the layer of containerd's own differ has, which walks through two
// directories, whatever file system is mounted there.
func TestLayersOfPackagesMatchContainerds(t *testing.T) {
	onlyOnce(t, olderReleases, onlyFiles)
	t.Parallel()
	installed := dpkgRecords(t)
	for _, name := range slices.Concat(staying, comingAndGoing) {
		if installed[name] == "" {
			t.Skipf("needs a Debian system with the package %s, as the testbed is", name)
		}
	}
	d := differ.New(t, pool.NewBase(t))
	image := debian(t, d, installed)

	image, names := packages(t, d, image, func(root string) {
		chrooted(t, root, append([]string{"dpkg", "--purge"}, comingAndGoing...)...)
	})
	assert.Subset(t, names, []string{"etc/.wh.vim", "etc/alternatives/.wh.vi", "etc/ld.so.cache",
		"usr/bin/.wh.jq", "usr/share/.wh.vim", "var/lib/dpkg/info/.wh.jq.list", "var/lib/dpkg/status"})

	image, names = packages(t, d, image, func(root string) {
		chrooted(t, root, "dpkg", "--install", "--recursive", "/srv/first")
		assert.Equal(t, "2\n", chrooted(t, root, "jq", "--null-input", "1 + 1"), "with its libraries")
	})
	assert.Subset(t, names, []string{"etc/alternatives/vi", "etc/ld.so.cache", "etc/vim/vimrc.tiny",
		"usr/bin/jq", "usr/share/vim/vim91/doc/help.txt", "var/lib/dpkg/info/jq.list", "var/lib/dpkg/status"})

	_, names = packages(t, d, image, func(root string) {
		chrooted(t, root, "dpkg", "--install", "/srv/first/jq.deb", "/srv/second/vim-tiny.deb")
		chrooted(t, root, "sh", "-c", "rm -r /srv/first/* /srv/second")
	})
	assert.Subset(t, names, []string{"etc/vim/vimrc.tiny", "srv/.wh.second", "srv/first/.wh..wh..opq", "usr/bin/vim.same",
		"usr/bin/vim.tiny", "usr/share/doc/.wh.vim-tiny", "usr/share/vim/vim91/doc/news.txt"})
	assert.NotContains(t, names, "usr/bin/jq", "installed again, but nothing else than it was")
	assert.NotContains(t, names, "usr/share/vim/vim91/doc/help.txt", "in the new version what it was in the old one")
	harness.RemoveAll(t, d.Snapshotter)
}

// known is a template and all that is known of it.
type known struct {
	name string
	tree map[string]string
}

// packages commits what a container does to a template, and returns that and the
// names in its layer, which is compared with containerd's.
func packages(t *testing.T, d *differ.Rig, parent known, do func(root string)) (after known, names []string) {
	t.Helper()
	var ours []byte
	var theirs bytes.Buffer
	key, mounts := d.Prepare(t, parent.name)
	harness.Mounted(t, mounts, func(root string) {
		do(root)
		view := d.View(t, parent.name)
		ours = d.Layers(t, view, mounts)
		harness.Mounted(t, view, func(lower string) { require.NoError(t, archive.WriteDiff(d.Context, &theirs, lower, root)) })
		after = known{"template-" + key, differ.ReadTree(t, root)}
	})
	require.NoError(t, d.Snapshotter.Commit(d.Context, after.name, key))
	d.Applied(t, parent.name, ours, func(root string) {
		assert.Empty(t, randtree.Differences(after.tree, differ.ReadTree(t, root)), "our layer")
	})
	names = differ.TarNames(t, ours)
	walked := differ.TarNames(t, theirs.Bytes())
	d.Applied(t, parent.name, theirs.Bytes(), func(root string) {
		assert.Empty(t, randtree.Differences(walkedTree(parent.tree, after.tree, walked), differ.ReadTree(t, root)), "containerd's layer")
	})
	assert.Equal(t, slices.Sorted(slices.Values(walked)), walkedNames(parent.tree, after.tree, names))
	assert.Contains(t, names, touched)
	assert.NotContains(t, walked, touched)
	t.Logf("%d names in %d bytes, containerd's %d in %d, of a tree of %d", len(names), len(ours), len(walked), theirs.Len(), len(after.tree))
	return after, names
}

var (
	anyTime  = regexp.MustCompile(` time \S+`)
	fraction = regexp.MustCompile(`( time \d+)\.\d+`)
)

// touched is a directory in which dpkg makes files that it takes away again.
const touched = "var/lib/dpkg/updates/"

// timeOnly reports whether a directory is what it was but for its time. To
// containerd's differ that is no change, unless something below it is one.
func timeOnly(was, is string) bool {
	return strings.HasPrefix(is, "mode 4") && anyTime.ReplaceAllString(was, "") == anyTime.ReplaceAllString(is, "")
}

// walkedTree is what containerd's layer of a change, by the names in it, makes of
// what was before. It loses two things: of times all but the whole seconds, and
// the times of directories that have nothing else new.
func walkedTree(before, after map[string]string, walked []string) map[string]string {
	tree := maps.Clone(after)
	for path, is := range after {
		if slices.Contains(walked, path[1:]) || slices.Contains(walked, path[1:]+"/") {
			tree[path] = fraction.ReplaceAllString(is, "$1.000000000")
		} else if was := before[path]; timeOnly(was, is) {
			tree[path] = was
		}
	}
	return tree
}

// walkedNames are the names in containerd's layer, sorted, by those in ours. Of a
// directory that lost all it had, ours says so in one name, and containerd's names
// each thing that is gone. And ours has the directories that have nothing new but
// their time, and those that lead to them.
func walkedNames(before, after map[string]string, ours []string) (names []string) {
	for _, name := range ours {
		if dir, ok := strings.CutSuffix(name, "/.wh..wh..opq"); ok {
			for was := range before {
				if path.Dir(was) == "/"+dir {
					names = append(names, dir+"/.wh."+path.Base(was))
				}
			}
		} else {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	for i := len(names) - 1; i >= 0; i-- { // what is below a directory comes after it
		name, isDir := strings.CutSuffix(names[i], "/")
		alone := i+1 == len(names) || !strings.HasPrefix(names[i+1], names[i])
		if isDir && alone && timeOnly(before["/"+name], after["/"+name]) {
			names = slices.Delete(names, i, i+1)
		}
	}
	return names
}

// debian is a template of a small Debian system, of this one's files: dpkg with
// what it needs, packages that come and go, and, in /srv, what they are installed
// and upgraded from.
func debian(t *testing.T, d *differ.Rig, installed map[string]string) (image known) {
	t.Helper()
	image.name = d.Template(t, "", func(root string) {
		names := needed(installed, slices.Concat(staying, comingAndGoing)...)
		var files []string
		status := ""
		for _, name := range names {
			files = slices.Concat(files, filesOf(t, name), infoOf(t, name))
			status += installed[name] + "\n\n"
		}
		slices.Sort(files)
		copyOf(t, root, append(slices.Compact(files),
			"--recursion", // tar takes options among names; what follows is no package's
			"etc/alternatives", "etc/group", "etc/ld.so.cache", "etc/passwd",
			"var/lib/dpkg/alternatives", "var/lib/dpkg/arch", "var/lib/dpkg/diversions", "var/lib/dpkg/triggers")...)
		writeText(t, filepath.Join(root, "var/lib/dpkg/status"), status)
		writeText(t, filepath.Join(root, "etc/dpkg/dpkg.cfg.d/no-fsync"), "force-unsafe-io\n") // as in Debian's own images
		runScript(t, `mknod -m 666 "$0/dev/null" c 1 3`, root)
		first, second := filepath.Join(root, "srv/first"), filepath.Join(root, "srv/second")
		harness.Mkdirs(t, first, second)
		for _, name := range comingAndGoing {
			pack(t, name, installed[name], filepath.Join(first, name+".deb"), func(string) {})
		}
		newer := versionLine.ReplaceAllString(installed["vim-tiny"], "$0+1")
		pack(t, "vim-tiny", newer, filepath.Join(second, "vim-tiny.deb"), func(tree string) { changeEditor(t, tree) })
		image.tree = differ.ReadTree(t, root)
	})
	return image
}

// changeEditor makes the files of the editor's next version.
func changeEditor(t *testing.T, tree string) {
	t.Helper()
	runScript(t, `cd "$0"
		echo '" changed' >>etc/vim/vimrc.tiny
		echo new >usr/share/vim/vim91/doc/news.txt
		rm -r usr/share/doc
		ln usr/bin/vim.tiny usr/bin/vim.same`, tree)
}

var (
	nameLine    = regexp.MustCompile(`(?m)^Package: (.*)$`)
	versionLine = regexp.MustCompile(`(?m)^Version: .*$`)
	dependsLine = regexp.MustCompile(`(?m)^(?:Pre-)?Depends: (.*)$`)
	// What dpkg adds to what a package says of itself.
	stateLines = regexp.MustCompile(`(?m)^(Status: .*|Conffiles:(\n .*)*)\n`)
)

// dpkgRecords returns what dpkg says of each package that is installed.
func dpkgRecords(t *testing.T) map[string]string {
	t.Helper()
	content, err := os.ReadFile("/var/lib/dpkg/status")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	require.NoError(t, err)
	records := make(map[string]string)
	for record := range strings.SplitSeq(string(content), "\n\n") {
		name := nameLine.FindStringSubmatch(record)
		if name != nil && strings.Contains(record, "\nStatus: install ok installed\n") {
			records[name[1]] = record
		}
	}
	return records
}

// needed returns packages and all that they cannot do without.
func needed(installed map[string]string, names ...string) []string {
	for i := 0; i < len(names); i++ {
		for _, depends := range dependsLine.FindAllStringSubmatch(installed[names[i]], -1) {
			for word := range strings.FieldsFuncSeq(depends[1], func(r rune) bool { return r == ',' || r == '|' }) {
				name, _, _ := strings.Cut(strings.TrimSpace(word), " ")
				if installed[name] != "" && !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

// infoOf returns the files that dpkg keeps of an installed package: its list of
// files and all that was beside them in the package. Paths are relative to the
// root, here and below.
func infoOf(t *testing.T, name string) (files []string) {
	t.Helper()
	for _, pattern := range []string{".*", ":*.*"} { // the latter where there may be one of each architecture
		found, err := filepath.Glob("/var/lib/dpkg/info/" + name + pattern)
		require.NoError(t, err)
		for _, file := range found {
			files = append(files, file[1:])
		}
	}
	return files
}

// leftOut is large, and nothing here uses it.
var leftOut = regexp.MustCompile(`/gconv|/lib(crypto|ssl|mvec)\.|/usr/share/(info|locale)/.`)

// filesOf returns what is there of an installed package: some may have been left
// out when it was installed, as documentation is.
func filesOf(t *testing.T, name string) (files []string) {
	t.Helper()
	for _, list := range infoOf(t, name) {
		if path.Ext(list) != ".list" {
			continue
		}
		for line := range strings.Lines(textOf(t, "/"+list)) {
			line = strings.TrimSpace(line)
			dir, err := filepath.EvalSymlinks(path.Dir(line)) // /lib is /usr/lib
			if line == "/." || leftOut.MatchString(line) || err != nil {
				continue
			}
			file := path.Join(dir, path.Base(line))
			if _, err := os.Lstat(file); err == nil {
				files = append(files, file[1:])
			}
		}
	}
	return files
}

// copyOf copies files of this system.
func copyOf(t *testing.T, to string, files ...string) {
	t.Helper()
	list := filepath.Join(t.TempDir(), "list")
	writeText(t, list, strings.Join(files, "\n"))
	runScript(t, `tar --create --directory / --no-recursion --files-from "$1" | tar --extract --directory "$0"`, to, list)
}

// pack makes a package of what is installed of one, with its scripts, and of
// what change does to it.
func pack(t *testing.T, name, record, deb string, change func(tree string)) {
	t.Helper()
	tree := t.TempDir()
	copyOf(t, tree, filesOf(t, name)...)
	change(tree)
	dir := filepath.Join(tree, "DEBIAN")
	harness.Mkdirs(t, dir)
	writeText(t, filepath.Join(dir, "control"), stateLines.ReplaceAllString(record+"\n", ""))
	for _, file := range infoOf(t, name) {
		kind := path.Ext(file)[1:]
		if kind != "list" && kind != "md5sums" { // which dpkg makes
			writeText(t, filepath.Join(dir, kind), textOf(t, "/"+file))
			require.NoError(t, os.Chmod(filepath.Join(dir, kind), 0o755))
		}
	}
	outputOf(t, "dpkg-deb", "--build", "-Zgzip", "-z1", tree, deb)
}

// chrooted runs a program of a container.
func chrooted(t *testing.T, root string, args ...string) string {
	t.Helper()
	return outputOf(t, "chroot", append([]string{root, "env", "-i", "PATH=/usr/sbin:/usr/bin", "DEBIAN_FRONTEND=noninteractive"}, args...)...)
}

// runScript runs a script, with its arguments from $0 on.
func runScript(t *testing.T, script string, args ...string) {
	t.Helper()
	outputOf(t, "bash", append([]string{"-o", "errexit", "-o", "pipefail", "-c", script}, args...)...)
}

func textOf(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(content)
}

func writeText(t *testing.T, file, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
}

func outputOf(t *testing.T, program string, args ...string) string {
	t.Helper()
	var errs strings.Builder
	cmd := exec.Command(program, args...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	require.NoError(t, err, "%s %q:\n%s%s", program, args, out, errs.String())
	return string(out)
}
