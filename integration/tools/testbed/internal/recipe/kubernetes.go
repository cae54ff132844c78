package recipe

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// cniPlugins are the plugins that the tests' pods need.
var cniPlugins = []string{"main/bridge", "main/loopback", "ipam/host-local", "meta/portmap"}

// stagingModules are the modules that Kubernetes replaces by directories of its own
// repository, which its module lacks.
var stagingModules = []string{
	"api", "apiextensions-apiserver", "apimachinery", "apiserver", "cli-runtime", "client-go", "cloud-provider",
	"cluster-bootstrap", "code-generator", "component-base", "component-helpers", "controller-manager", "cri-api",
	"cri-client", "cri-streaming", "csi-translation-lib", "dynamic-resource-allocation", "endpointslice", "externaljwt",
	"kms", "kube-aggregator", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet", "metrics",
	"mount-utils", "pod-security-admission", "sample-apiserver", "sample-cli-plugin", "sample-controller", "streaming",
}

const (
	criTools   = "sigs.k8s.io/cri-tools"
	cniModule  = "github.com/containernetworking/plugins"
	kubernetes = "k8s.io/kubernetes"
)

// kubernetesModule returns the go.mod of a module that builds all of it: it replaces the
// staging modules by those that are published for the same release, whose versions
// begin with 0 and not with 1.
func kubernetesModule() string {
	var b strings.Builder
	b.WriteString("module kubernetes.build\n\ngo 1.26.6\n\nrequire (\n")
	fmt.Fprintf(&b, "\t%s v%s\n\t%s v%s\n\t%s v%s\n", kubernetes, KubernetesVersion, criTools, CRIToolsVersion, cniModule, CNIPluginsVersion)
	b.WriteString(")\n\nreplace (\n")
	staging := "v0." + strings.TrimPrefix(KubernetesVersion, "1.")
	for _, name := range stagingModules {
		fmt.Fprintf(&b, "\tk8s.io/%[1]s => k8s.io/%[1]s %[2]s\n", name, staging)
	}
	b.WriteString(")\n")
	return b.String()
}

// buildKubernetes builds the kubelet, the programs that talk to containerd as a kubelet
// does, of which critest is a test binary, and the plugins that connect pods.
func buildKubernetes(ctx context.Context, j *job) error {
	if err := os.MkdirAll(j.root, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(j.root, "go.mod"), []byte(kubernetesModule()), 0o644); err != nil {
		return err
	}
	packages := []string{kubernetes + "/cmd/kubelet", criTools + "/cmd/crictl"}
	for _, name := range cniPlugins {
		packages = append(packages, cniModule+"/plugins/"+name)
	}
	if err := j.goCommand(ctx, "0", append(j.inModule("install"), packages...)...); err != nil {
		return err
	}
	critest := append(j.inModule("test"), "-c", "-o", filepath.Join(j.out, "bin", "critest"), criTools+"/cmd/critest")
	if err := j.goCommand(ctx, "0", critest...); err != nil {
		return err
	}
	return j.separatePlugins()
}

// inModule returns the arguments of a go command in the module, with the versions that
// the programs print.
func (j *job) inModule(command string) []string {
	major, rest, _ := strings.Cut(KubernetesVersion, ".")
	minor, _, _ := strings.Cut(rest, ".")
	flags := fmt.Sprintf("-s -w -X %[1]s.gitVersion=v%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s -X %[5]s=%[6]s",
		"k8s.io/component-base/version", KubernetesVersion, major, minor, criTools+"/pkg/version.Version", CRIToolsVersion)
	return []string{"-C", j.root, command, "-mod=mod", "-trimpath", "-buildvcs=false", "-ldflags", flags}
}

// separatePlugins gives the plugins a directory of their own: one is called as a program
// of iproute2 is.
func (j *job) separatePlugins() error {
	dir := filepath.Join(j.out, "cni")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, name := range cniPlugins {
		name = filepath.Base(name)
		if err := os.Rename(filepath.Join(j.out, "bin", name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
