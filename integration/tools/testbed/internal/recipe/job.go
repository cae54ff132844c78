package recipe

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/proc"
)

// job is one stage being built.
type job struct {
	cache *Cache
	// out becomes the artefact; root is scratch space that is thrown away.
	out, root string
	log       io.Writer
	proxy     []string
}

// command returns a command that logs, with an environment that does not
// depend on the user's.
func (j *job) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = j.log, j.log
	cmd.Env = append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "TMPDIR=/tmp",
	}, j.proxy...)
	return cmd
}

// script runs one of the scripts on the host, in a sandbox.
func (j *job) script(ctx context.Context, name string, args ...string) error {
	cmd := j.command("sh", append([]string{"-euc", script(name), name}, args...)...)
	proc.Sandbox(cmd)
	return j.run(ctx, name, cmd)
}

// enter runs one of the scripts in the root directory.
func (j *job) enter(ctx context.Context, name string, args ...string) error {
	return j.script(ctx, "enter.sh", append([]string{j.root, j.cache.debs(), j.out, script(name)}, args...)...)
}

func (j *job) run(ctx context.Context, what string, cmd *exec.Cmd) error {
	fmt.Fprintf(j.log, "+ %s %s\n", filepath.Base(cmd.Path), what)
	if err := proc.Run(ctx, cmd); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// buildRoot returns a build that runs a script in the root of another stage,
// and keeps that root as its own if it is to be used further.
func buildRoot(from *stage, name string, keep bool, args ...string) func(context.Context, *job) error {
	return func(ctx context.Context, j *job) error {
		if err := j.script(ctx, "unpack.sh", rootArchive(j.cache, from), j.root); err != nil {
			return err
		}
		if err := j.enter(ctx, name, args...); err != nil || !keep {
			return err
		}
		return j.pack(ctx)
	}
}

const archiveName = "root.tar"

func rootArchive(cache *Cache, s *stage) string {
	return filepath.Join(cache.artefact(s), archiveName)
}

func (j *job) pack(ctx context.Context) error {
	return j.run(ctx, "pack the root", j.command("tar", "-C", j.root, "--numeric-owner", "-cf", filepath.Join(j.out, archiveName), "."))
}

// buildBase has mmdebstrap make the root, from the mirror that the host uses.
func buildBase(ctx context.Context, j *job) error {
	debian := hostDebian(ctx)
	args := []string{
		"--mode=root", "--variant=minbase", "--format=tar", "--components=main,contrib",
		"--include=" + strings.Join(basePackages, ","), "--skip=cleanup/apt/lists",
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
		"--customize-hook=" + hook(script("base.sh"), suite),
		suite, filepath.Join(j.out, archiveName),
	}
	args = append(args, debian.sources(suite, "main contrib", "")...)
	cmd := j.command("mmdebstrap", args...)
	// It is interrupted by being killed, so it must not leave anything in a
	// directory that is never cleaned.
	if err := os.MkdirAll(j.root, 0o755); err != nil {
		return err
	}
	cmd.Env = append(cmd.Env, "TMPDIR="+j.root)
	proc.Sandbox(cmd)
	return j.run(ctx, "mmdebstrap", cmd)
}

// hook returns a shell command for mmdebstrap, which appends the root to it.
func hook(text string, args ...string) string {
	quoted := make([]string, 0, len(args))
	for _, arg := range args {
		quoted = append(quoted, quote(arg))
	}
	return "sh -euc " + quote(text) + ` sh "$1" ` + strings.Join(quoted, " ")
}

func quote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// buildImage composes the root and writes it as a file system.
func buildImage(system, toolchain, zfs, containerd, buildkit, docker, kubernetes *stage) func(context.Context, *job) error {
	return func(ctx context.Context, j *job) error {
		if err := j.script(ctx, "unpack.sh", rootArchive(j.cache, system), j.root); err != nil {
			return err
		}
		err := j.script(ctx, "compose.sh", j.root, j.cache.artefact(toolchain), j.cache.artefact(zfs),
			j.cache.artefact(containerd), j.cache.artefact(buildkit), j.cache.artefact(docker), j.cache.artefact(kubernetes))
		if err != nil {
			return err
		}
		if err := j.enter(ctx, "image.sh", zfsSuites[strings.TrimPrefix(zfs.name, "zfs-")]); err != nil {
			return err
		}
		// No journal: an image is written by one boot, and forgotten.
		return j.run(ctx, "write the image", j.command("mke2fs", "-q", "-t", "ext4", "-d", j.root, "-m", "0",
			"-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard", filepath.Join(j.out, imageName), imageSize))
	}
}

const imageName = "root.img"

// containerd needs cgo for its btrfs snapshotter and runc to enter namespaces, the
// other programs do not. These make them static binaries all the same.
const (
	staticTags  = "netgo,osusergo,static_build"
	staticFlags = "-extldflags -static"
)

// dockerTags leaves out what needs cgo.
const dockerTags = "exclude_graphdriver_btrfs"

// buildContainerd builds static binaries, which run on the host as well.
func buildContainerd(ctx context.Context, j *job) error {
	err := j.installModule(ctx, "1", staticTags, staticFlags, "containerd")
	if err != nil {
		return err
	}
	return j.installModule(ctx, "0", "", "", "ctr", "containerd-shim-runc-v2")
}

// installModule builds commands of containerd's module.
func (j *job) installModule(ctx context.Context, cgo, tags, flags string, names ...string) error {
	const module = "github.com/containerd/containerd/v2"
	args := []string{
		"install", "-trimpath", "-tags", tags,
		"-ldflags", "-s -w -X " + module + "/version.Version=" + ContainerdVersion + " " + flags,
	}
	for _, name := range names {
		args = append(args, module+"/cmd/"+name+"@v"+ContainerdVersion)
	}
	return j.goCommand(ctx, cgo, args...)
}

// buildBuildKit builds the daemon and its command.
func buildBuildKit(ctx context.Context, j *job) error {
	return j.installInside(ctx, "github.com/moby/buildkit", BuildKitVersion, "", "version.Version", "./cmd/buildkitd", "./cmd/buildctl")
}

// buildDocker builds the daemon and its command, and a runc that knows what the daemon
// asks for, which Debian's does not; it is called docker-runc.
func buildDocker(ctx context.Context, j *job) error {
	err := j.goCommand(ctx, "1", "install", "-trimpath", "-tags", staticTags, "-ldflags", "-s -w "+staticFlags,
		"github.com/opencontainers/runc@v"+RuncVersion)
	if err != nil {
		return err
	}
	bin := filepath.Join(j.out, "bin")
	if err := os.Rename(filepath.Join(bin, "runc"), filepath.Join(bin, "docker-runc")); err != nil {
		return err
	}
	if err := j.installInside(ctx, "github.com/moby/moby/v2", DockerVersion, dockerTags, "dockerversion.Version", "./cmd/dockerd"); err != nil {
		return err
	}
	return j.installVendored(ctx, "github.com/docker/cli", DockerCLIVersion, "cli/version.Version", "./cmd/docker")
}

// installVendored builds commands of a repository that is no module and keeps what
// would be its go.mod in vendor.mod. Go finds no go.mod in the module cache, and
// nothing may be added there: the source is copied.
func (j *job) installVendored(ctx context.Context, module, version, variable string, commands ...string) error {
	source, err := j.moduleSource(ctx, module, version+"+incompatible")
	if err != nil {
		return err
	}
	dir := filepath.Join(j.root, "source")
	if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
		return err
	}
	for _, kind := range []string{"mod", "sum"} {
		if err := os.Rename(filepath.Join(dir, "vendor."+kind), filepath.Join(dir, "go."+kind)); err != nil {
			return fmt.Errorf("%s: %w", module, err)
		}
	}
	// The list of what is vendored, without what is.
	if err := os.RemoveAll(filepath.Join(dir, "vendor")); err != nil {
		return err
	}
	return j.installIn(ctx, dir, "", module+"/"+variable+"="+version, commands...)
}

// installInside builds commands in their module's own directory: 'go install' of a
// version refuses a module that excludes or replaces versions of others.
func (j *job) installInside(ctx context.Context, module, version, tags, variable string, commands ...string) error {
	source, err := j.moduleSource(ctx, module, version)
	if err != nil {
		return err
	}
	return j.installIn(ctx, source, tags, module+"/"+variable+"="+version, commands...)
}

// moduleSource returns the directory of a module's source, which it downloads.
func (j *job) moduleSource(ctx context.Context, module, version string) (string, error) {
	if err := j.goCommand(ctx, "0", "mod", "download", module+"@v"+version); err != nil {
		return "", err
	}
	cache, err := exec.CommandContext(ctx, "go", "env", "GOMODCACHE").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(cache)), module+"@v"+version), nil
}

// installIn builds commands of the module in a directory, with a string variable set.
func (j *job) installIn(ctx context.Context, dir, tags, variable string, commands ...string) error {
	args := []string{
		"-C", dir, "install", "-trimpath", "-buildvcs=false", "-tags", tags, "-ldflags", "-s -w -X " + variable,
	}
	return j.goCommand(ctx, "0", append(args, commands...)...)
}

// goCommand runs the host's go, which installs into the stage's result.
func (j *job) goCommand(ctx context.Context, cgo string, args ...string) error {
	cmd := j.command("go", args...)
	path, err := exec.LookPath("go")
	if err != nil {
		return err
	}
	cmd.Path, cmd.Err = path, nil
	// The user's environment says where modules come from and are cached.
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo, "GOFLAGS=", "GOWORK=off", "GOBIN="+filepath.Join(j.out, "bin"))
	cmd.Dir = j.out
	return j.run(ctx, "go "+args[0], cmd)
}
