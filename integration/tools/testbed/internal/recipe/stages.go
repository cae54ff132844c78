package recipe

import (
	"embed"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

const (
	// suite is the Debian release that the guest runs.
	suite = "trixie"
	// ContainerdVersion is the release that is built from its module.
	ContainerdVersion = "2.4.2"
	containerdStage   = "containerd"
	// BuildKitVersion is the release that is built from its module.
	BuildKitVersion = "0.34.2"
	buildKitStage   = "buildkit"
	// DockerVersion is the release of Docker 29's module that is built.
	DockerVersion = "2.0.0-beta.24"
	// DockerCLIVersion is the release of Docker's command that is built.
	DockerCLIVersion = "29.9.2"
	// RuncVersion is the release of runc that is built for it.
	RuncVersion = "1.5.2"
	dockerStage = "docker"
	// KubernetesVersion is the release whose kubelet is built from its module.
	KubernetesVersion = "1.37.2"
	// CRIToolsVersion is the release of crictl and critest.
	CRIToolsVersion = "1.37.0"
	// CNIPluginsVersion is the release of the plugins that connect pods.
	CNIPluginsVersion = "1.10.0"
	kubernetesStage   = "kubernetes"
	imageSize         = "8G"
)

// zfsSuites says where Debian has the releases: a suite to prefer, or none
// for the one that apt would install.
var zfsSuites = map[string]string{
	"2.4": suite + "-backports",
	"2.3": "",
}

// DefaultZFS and DefaultContainerd are what a guest gets without a choice.
const (
	DefaultZFS        = "2.4"
	DefaultContainerd = "2.4"
)

// ZFSReleases returns the releases that a guest can have, the newest first.
func ZFSReleases() []string {
	return []string{"2.4", "2.3"}
}

// ContainerdReleases returns the releases that every guest has.
func ContainerdReleases() []string {
	return []string{"2.4", "1.7"}
}

// CheckRelease refuses a release that there is none of.
func CheckRelease(what, release string, known []string) error {
	if slices.Contains(known, release) {
		return nil
	}
	return fmt.Errorf("no %s %q: want one of %s", what, release, strings.Join(known, ", "))
}

var (
	basePackages = []string{"ca-certificates", "debian-archive-keyring"}

	toolchainPackages = []string{
		"file", "gcc", "kmod", "libc6-dev", "libelf-dev", "linux-headers-cloud-amd64", "make", "xz-utils",
		"zstd",
	}

	runtimePackages = []string{
		"acl", "attr", "bash", "btrfs-progs", "busybox-static", "docker-buildx", "e2fsprogs", "fdisk", "file",
		"iproute2", "jq", "kmod", "less", "lsof", "mount", "ncurses-base", "nftables", "procps", "psmisc", "runc", "strace", "systemd",
		"util-linux", "vim-tiny", "xz-utils", "zstd",
	}
)

//go:embed scripts/*.sh
var scriptFiles embed.FS

// script returns a script; that it is there is known at compile time.
func script(name string) string {
	content, err := scriptFiles.ReadFile("scripts/" + name)
	if err != nil {
		panic(err)
	}
	return string(content)
}

// stages returns what makes an image with the ZFS release, in an order in
// which they can be built.
func stages(release string) []*stage {
	enter, host := script("enter.sh"), script("unpack.sh")
	base := &stage{
		name: "base", title: "making a Debian root", expected: 15 * time.Second,
		inputs: append([]string{suite, script("base.sh")}, basePackages...),
		build:  buildBase,
	}
	toolchain := &stage{
		name: "toolchain", title: "adding a kernel, its headers and a compiler", expected: 30 * time.Second,
		inputs: append([]string{enter, host, script("toolchain.sh")}, toolchainPackages...),
		uses:   []*stage{base},
	}
	toolchain.build = buildRoot(base, "toolchain.sh", true, toolchainPackages...)
	zfs := &stage{
		name: "zfs-" + release, title: "building ZFS " + release + " for that kernel", expected: 5 * time.Minute,
		inputs: []string{enter, host, script("zfs.sh"), release, zfsSuites[release]},
		uses:   []*stage{toolchain},
	}
	zfs.build = buildRoot(toolchain, "zfs.sh", false, release, zfsSuites[release])
	containerd := &stage{
		name: containerdStage, title: "building containerd " + ContainerdVersion, expected: 2 * time.Minute,
		inputs: []string{ContainerdVersion, runtime.Version(), staticTags, staticFlags},
		build:  buildContainerd,
	}
	buildkit := &stage{
		name: buildKitStage, title: "building BuildKit " + BuildKitVersion, expected: 4 * time.Minute,
		inputs: []string{BuildKitVersion, runtime.Version()},
		build:  buildBuildKit,
	}
	docker := &stage{
		name: dockerStage, title: "building Docker's daemon " + DockerVersion + " and command " + DockerCLIVersion, expected: 2 * time.Minute,
		inputs: []string{DockerVersion, DockerCLIVersion, runtime.Version(), dockerTags, RuncVersion, staticTags, staticFlags},
		build:  buildDocker,
	}
	kubernetes := &stage{
		name: kubernetesStage, title: "building Kubernetes's kubelet " + KubernetesVersion, expected: 8 * time.Minute,
		inputs: append([]string{KubernetesVersion, CRIToolsVersion, CNIPluginsVersion, runtime.Version(), kubernetesModule()}, cniPlugins...),
		build:  buildKubernetes,
	}
	system := &stage{
		name: "system", title: "making the guest's system", expected: 30 * time.Second,
		inputs: append([]string{enter, host, script("system.sh")}, runtimePackages...),
		uses:   []*stage{base},
	}
	system.build = buildRoot(base, "system.sh", true, runtimePackages...)
	image := &stage{
		name: "image-" + release, title: "making the image with ZFS " + release, expected: 30 * time.Second,
		inputs: []string{enter, host, script("image.sh"), script("compose.sh"), imageSize},
		uses:   []*stage{system, toolchain, zfs, containerd, buildkit, docker, kubernetes},
	}
	image.build = buildImage(system, toolchain, zfs, containerd, buildkit, docker, kubernetes)
	return []*stage{base, toolchain, zfs, containerd, buildkit, docker, kubernetes, system, image}
}
