package recipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/ui"
)

// logTail is how much of a log a person gets to see when a stage failed.
const logTail = 25

// Artefacts are what a guest is made of.
type Artefacts struct {
	Kernel  string
	Modules []string
	Image   string
	// ZFSVersion, KernelVersion and DebianContainerd say what Debian served.
	ZFSVersion, KernelVersion, DebianContainerd string
}

// Build builds what is missing for guests with the ZFS release.
func Build(ctx context.Context, cache *Cache, u *ui.UI, release string) (Artefacts, error) {
	all := stages(release)
	// The cache may come from another host, so it is not enough.
	if _, err := exec.LookPath(tools[0].program); err == nil && complete(cache, all) {
		return artefacts(cache, all)
	}
	b := &builder{cache: cache, ui: u}
	if err := b.build(ctx, all); err != nil {
		return Artefacts{}, err
	}
	return artefacts(cache, all)
}

// BuildPrograms builds one of programStages alone, for which neither root nor Debian is
// needed, and returns the directory of the programs, which run on the host as well.
func BuildPrograms(ctx context.Context, cache *Cache, u *ui.UI, name string) (string, error) {
	for _, s := range stages(DefaultZFS) {
		if s.name != name {
			continue
		}
		dir := filepath.Join(cache.artefact(s), "bin")
		if cache.has(s) {
			return dir, nil
		}
		b := &builder{cache: cache, ui: u}
		return dir, b.build(ctx, []*stage{s})
	}
	return "", fmt.Errorf("the recipe has no %s", name)
}

// Refresh forgets what was built, so that all is built anew, of what Debian
// serves now.
func Refresh(ctx context.Context, cache *Cache, u *ui.UI, release string) (err error) {
	lock, err := cache.lock(ctx, u.Say)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	for _, s := range stages(release) {
		if err := os.RemoveAll(cache.artefact(s)); err != nil {
			return err
		}
	}
	return nil
}

func complete(cache *Cache, all []*stage) bool {
	for _, s := range all {
		if !cache.has(s) {
			return false
		}
	}
	return true
}

type builder struct {
	cache *Cache
	ui    *ui.UI
}

func (b *builder) build(ctx context.Context, all []*stage) (err error) {
	lock, err := b.cache.lock(ctx, b.ui.Say)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := b.cache.clean(); err != nil {
		return err
	}
	if err := b.prepareHost(ctx, all); err != nil {
		return err
	}
	for i, s := range all {
		if b.cache.has(s) {
			continue
		}
		title := fmt.Sprintf("[%d/%d] %s", i+1, len(all), s.title)
		if err := b.step(ctx, s.name, s.expected, title, s.build); err != nil {
			return err
		}
		if err := os.Rename(b.out(s.name), b.cache.artefact(s)); err != nil {
			return err
		}
	}
	return nil
}

// programStages are the stages that build programs from their modules.
var programStages = []string{containerdStage, buildKitStage, dockerStage, kubernetesStage}

// prepareHost sees to what the host needs for the stages that are to be built,
// and for running guests. Programs alone need nothing.
func (b *builder) prepareHost(ctx context.Context, all []*stage) error {
	if len(all) == 1 && slices.Contains(programStages, all[0].name) {
		return nil
	}
	if err := b.installTools(ctx); err != nil {
		return err
	}
	if os.Getuid() != 0 && !complete(b.cache, all) {
		return errors.New("the build needs root, as it makes file systems with their owners; guests run without")
	}
	return nil
}

func (b *builder) out(name string) string {
	return filepath.Join(b.cache.temporary(), name, "out")
}

// step runs a build with a log and shows its progress. Its scratch space is
// removed in any case, what it made only if it failed.
func (b *builder) step(ctx context.Context, name string, expected time.Duration, title string, build func(context.Context, *job) error) (err error) {
	j := &job{cache: b.cache, out: b.out(name), root: filepath.Join(b.cache.temporary(), name, "root"), proxy: proxyEnvironment(ctx)}
	if err := os.MkdirAll(j.out, 0o755); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(b.cache.logs(), name+".log"))
	if err != nil {
		return err
	}
	j.log = log
	shown := b.ui.Begin(expected, "%s", title)
	err = build(ctx, j)
	shown.End(err)
	err = errors.Join(err, os.RemoveAll(j.root), log.Close())
	if err == nil {
		return nil
	}
	err = errors.Join(err, os.RemoveAll(filepath.Dir(j.out)))
	if ctx.Err() != nil {
		return err // an interrupt explains itself
	}
	if tail, readErr := lastLines(log.Name(), logTail); readErr == nil {
		b.ui.Show("--- the last lines of " + log.Name() + "\n" + tail)
	}
	return fmt.Errorf("%s: %w", title, err)
}

// lastLines returns the last n lines of a file.
func lastLines(path string, n int) (string, error) {
	const window = 16 << 10
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close() // only read
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	content := make([]byte, min(window, info.Size()))
	if _, err := file.ReadAt(content, info.Size()-int64(len(content))); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	lines := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n"), nil
}

// artefacts returns where everything is.
func artefacts(cache *Cache, all []*stage) (Artefacts, error) {
	dirs := map[string]string{}
	for _, s := range all {
		kind, _, _ := strings.Cut(s.name, "-")
		dirs[kind] = cache.artefact(s)
	}
	a := Artefacts{
		Kernel:  filepath.Join(dirs["toolchain"], "vmlinux"),
		Modules: []string{filepath.Join(dirs["toolchain"], "virtio_blk.ko")},
		Image:   filepath.Join(dirs["image"], imageName),
	}
	for path, into := range map[string]*string{
		filepath.Join(dirs["toolchain"], "version"):         &a.KernelVersion,
		filepath.Join(dirs["zfs"], "version"):               &a.ZFSVersion,
		filepath.Join(dirs["system"], "containerd-version"): &a.DebianContainerd,
	} {
		content, err := os.ReadFile(path)
		if err != nil {
			return Artefacts{}, err
		}
		*into = strings.TrimSpace(string(content))
	}
	return a, nil
}
