package integration

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/harness"
)

// nodeName is what every kubelet of the tests calls its node.
const nodeName = "testbed"

// node is a real kubelet that has its pods from a directory, or from an API server, and
// the containerd that runs them.
type node struct {
	containerd *containerd
	api        *api // or nil
	manifests  string
	address    string
	client     *http.Client
	log        *harness.ProgramLog
}

// settings are a kubelet's, by their names in its configuration.
type settings map[string]any

// startNode starts a kubelet on a containerd and waits until it is healthy. It has its
// pods from a directory: it takes them for critical, and evicts none.
func startNode(t testing.TB, c *containerd, more settings) *node {
	t.Helper()
	return startNodeOf(t, c, nil, more)
}

// startNodeOf is startNode for a kubelet that has its pods from an API server.
func startNodeOf(t testing.TB, c *containerd, a *api, more settings) *node {
	t.Helper()
	program, err := exec.LookPath("kubelet")
	require.NoError(t, err, "the kubelet is wanted in PATH; the testbed has it")
	dir, err := os.MkdirTemp("", "zfstpl-node-")
	require.NoError(t, err)
	t.Cleanup(func() {
		// Where mounts of the host are private the kubelet makes this one, to share it.
		_ = unix.Unmount(filepath.Join(dir, "root"), unix.MNT_DETACH)
		require.NoError(t, os.RemoveAll(dir))
	})
	require.NoError(t, os.Chmod(dir, 0o711)) // for the roots of pods, which have no user here
	n := &node{containerd: c, api: a, manifests: filepath.Join(dir, "manifests"), address: freeAddress(t), log: &harness.ProgramLog{}}
	require.NoError(t, os.Mkdir(n.manifests, 0o700))
	n.client = &http.Client{Timeout: harness.Patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // it signs its own certificate
	}}
	t.Cleanup(n.client.CloseIdleConnections)
	config := filepath.Join(dir, "kubelet.json")
	require.NoError(t, os.WriteFile(config, n.configuration(t, dir, more), 0o600))
	args := []string{
		"--config", config, "--root-dir", filepath.Join(dir, "root"), "--cert-dir", filepath.Join(dir, "certificates"),
		"--hostname-override", nodeName, "--v", "3",
	}
	if a != nil {
		args = append(args, "--kubeconfig", a.kubeconfig(t, dir))
	}
	serve(t, exec.Command(program, args...), n.log)
	eventually(t, "the kubelet is healthy", func() bool {
		_, err := n.get("/healthz")
		return err == nil
	})
	return n
}

// configuration is that of a kubelet without an API server: it checks no client's
// permissions and manages no cgroups of its own.
func (n *node) configuration(t testing.TB, dir string, more settings) []byte {
	t.Helper()
	host, port, err := net.SplitHostPort(n.address)
	require.NoError(t, err)
	config := settings{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address": host, "port": json.Number(port), "healthzPort": 0, "readOnlyPort": 0,
		"authentication":           settings{"anonymous": settings{"enabled": true}, "webhook": settings{"enabled": false}},
		"authorization":            settings{"mode": "AlwaysAllow"},
		"containerRuntimeEndpoint": "unix://" + n.containerd.address,
		"staticPodPath":            n.manifests, "podLogsDir": filepath.Join(dir, "logs"),
		"cgroupsPerQOS": false, "enforceNodeAllocatable": []string{}, "cgroupDriver": "cgroupfs",
		"failSwapOn": false, "makeIPTablesUtilChains": false, "fileCheckFrequency": "1s", "contentType": "application/json",
		"evictionHard":     map[string]string{"memory.available": "1Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%"},
		"crashLoopBackOff": settings{"maxContainerRestartPeriod": "1s"},
	}
	for name, value := range more {
		config[name] = value
	}
	text, err := json.Marshal(config)
	require.NoError(t, err)
	return text
}

// freeAddress returns an address that no program listens at.
func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return listener.Addr().String()
}

func (n *node) get(path string) ([]byte, error) {
	return n.do(http.MethodGet, path)
}

func (n *node) do(method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, "https://"+n.address+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := n.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, resp.Status, bytes.TrimSpace(body))
	}
	return body, err
}

// getJSON decodes what the kubelet serves at path.
func (n *node) getJSON(t testing.TB, path string, into any) {
	t.Helper()
	body, err := n.get(path)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(body, into), "%s", body)
}

// pod is a pod's manifest.
type pod struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   map[string]string `json:"metadata"`
	Spec       settings          `json:"spec"`
}

// newPod returns the manifest of a pod on the host's network.
func newPod(name string, containers ...settings) pod {
	return pod{"v1", "Pod", map[string]string{"name": name, "namespace": "default"}, settings{
		"hostNetwork": true, "terminationGracePeriodSeconds": 1, "containers": containers,
		"automountServiceAccountToken": false, "enableServiceLinks": false,
		"restartPolicy": "Always", "dnsPolicy": "Default", "securityContext": settings{},
	}}
}

// newContainer returns a container that runs a shell script.
func newContainer(name, image, script string) settings {
	return settings{
		"name": name, "image": image, "command": []string{"sh", "-c", script}, "imagePullPolicy": "IfNotPresent",
		"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
	}
}

// execProbe returns a probe that runs a command, not so often that an emulated processor
// does nothing else.
func execProbe(command ...string) settings {
	return settings{"exec": settings{"command": command}, "periodSeconds": 5, "timeoutSeconds": 60, "successThreshold": 1, "failureThreshold": 1}
}

// put gives the kubelet a pod. It sees no partial manifest.
func (n *node) put(t testing.TB, p pod) {
	t.Helper()
	p.Spec["nodeName"] = nodeName
	text, err := json.Marshal(p)
	require.NoError(t, err)
	if n.api != nil {
		n.api.put(t, p.Metadata["name"], text)
		return
	}
	temporary := filepath.Join(filepath.Dir(n.manifests), p.Metadata["name"])
	require.NoError(t, os.WriteFile(temporary, text, 0o600))
	require.NoError(t, os.Rename(temporary, n.manifest(p.Metadata["name"])))
}

// take takes a pod away and waits until the kubelet has ended it and removed its containers.
func (n *node) take(t testing.TB, name string) {
	t.Helper()
	if n.api != nil {
		n.api.remove(name)
	} else {
		require.NoError(t, os.Remove(n.manifest(name)))
	}
	eventually(t, "the kubelet has ended pod "+name, func() bool {
		running := n.containerd.crictl(t, "ps", "--quiet", "--label", "io.kubernetes.pod.name="+n.nameOf(name))
		return n.find(t, name) == nil && strings.TrimSpace(running) == "" && (n.api == nil || !n.api.has(name))
	})
}

func (n *node) manifest(name string) string { return filepath.Join(n.manifests, name+".json") }

// nameOf returns what the kubelet calls a pod: it appends its node's name to the name of
// one that it has from a file.
func (n *node) nameOf(pod string) string {
	if n.api == nil {
		return pod + "-" + nodeName
	}
	return pod
}

// podStatus is what the kubelet says of a pod.
type podStatus struct {
	Metadata struct{ Name string }
	Status   struct {
		Phase, Reason, Message string
		ContainerStatuses      []containerStatus
	}
}

type containerStatus struct {
	Name         string
	Ready        bool
	RestartCount int
}

// find returns a pod that the kubelet knows, or nil.
func (n *node) find(t testing.TB, name string) *podStatus {
	t.Helper()
	var list struct{ Items []podStatus }
	n.getJSON(t, "/pods", &list)
	for _, p := range list.Items {
		if p.Metadata.Name == n.nameOf(name) {
			return &p
		}
	}
	return nil
}

// container waits until a container of a pod is as it is wanted.
func (n *node) container(t testing.TB, pod, name, what string, wanted func(containerStatus) bool) {
	t.Helper()
	eventually(t, pod+"/"+name+" "+what, func() bool {
		p := n.find(t, pod)
		if p == nil {
			return false
		}
		for _, c := range p.Status.ContainerStatuses {
			if c.Name == name {
				return wanted(c)
			}
		}
		return false
	})
}

func (n *node) ready(t testing.TB, pod, name string) {
	t.Helper()
	n.container(t, pod, name, "is ready", func(c containerStatus) bool { return c.Ready })
}

// run runs a command in a container through the kubelet and returns what it printed.
func (n *node) run(t testing.TB, pod, container, command string) string {
	t.Helper()
	out, err := n.tryRun(pod, container, command)
	require.NoError(t, err)
	return out
}

// runFails runs a command that fails and returns what it printed.
func (n *node) runFails(t testing.TB, pod, container, command string) string {
	t.Helper()
	out, err := n.tryRun(pod, container, command)
	require.Error(t, err, "%s: %s", command, out)
	require.Contains(t, out, "exited with")
	return out
}

// tryRun runs a command, whose words the kubelet splits at spaces.
func (n *node) tryRun(pod, container, command string) (string, error) {
	out, err := n.do(http.MethodPost, fmt.Sprintf("/run/default/%s/%s?cmd=%s", n.nameOf(pod), container, url.QueryEscape(command)))
	return string(out), err
}

// summary is what the kubelet says of the use of the node.
type summary struct {
	Node struct {
		Runtime struct{ ImageFs, ContainerFs fsStats }
	}
	Pods []struct {
		PodRef     struct{ Name string }
		Containers []struct {
			Name   string
			Rootfs fsStats
		}
	}
}

type fsStats struct{ AvailableBytes, CapacityBytes, UsedBytes uint64 }

func (n *node) summary(t testing.TB) (s summary) {
	t.Helper()
	n.getJSON(t, "/stats/summary", &s)
	return s
}

// written returns what a container is said to have written.
func (n *node) written(t testing.TB, pod, container string) fsStats {
	t.Helper()
	for _, p := range n.summary(t).Pods {
		for _, c := range p.Containers {
			if p.PodRef.Name == n.nameOf(pod) && c.Name == container {
				return c.Rootfs
			}
		}
	}
	return fsStats{}
}
