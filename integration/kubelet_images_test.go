package integration

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/registry"
	"github.com/zfstpl/zfstpl/integration/testimage"
)

// busyboxLayer has a shell and the usual programs, as hard links: a test that hides one
// of them must not hide all.
func busyboxLayer(t testing.TB) []testimage.File {
	t.Helper()
	program, err := exec.LookPath("busybox")
	require.NoError(t, err, "a static busybox is wanted in PATH; the testbed has it")
	content, err := os.ReadFile(program)
	require.NoError(t, err)
	applets, err := exec.Command(program, "--list").Output()
	require.NoError(t, err)
	files := []testimage.File{
		{Name: "bin/"}, {Name: "etc/"}, {Name: "root/"}, {Name: "var/"}, {Name: "var/run/"},
		{Name: "tmp/", Mode: 0o1777}, {Name: "home/"}, {Name: "home/user/", Mode: 0o777},
		{Name: "bin/busybox", Mode: 0o755, Content: content},
		{Name: "etc/passwd", Content: []byte("root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var:/bin/false\n" +
			"default-user:x:1000:1000::/home/user:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")},
		{Name: "etc/group", Content: []byte("root:x:0:\nwww-data:x:33:\ndefault-user:x:1000:\n" +
			"group-defined-in-image:x:50000:default-user\nnogroup:x:65534:\n")},
	}
	for name, script := range missingApplets {
		files = append(files, testimage.File{Name: "bin/" + name, Mode: 0o755, Content: []byte("#!/bin/sh\n" + script)})
	}
	for name := range strings.FieldsSeq(string(applets)) {
		if name != "busybox" && missingApplets[name] == "" {
			files = append(files, testimage.File{Name: "bin/" + name, Mode: 0o755, Link: "bin/busybox"})
		}
	}
	return files
}

// missingApplets are what Debian's busybox lacks and clients use.
var missingApplets = map[string]string{
	"ipcs":  "exec cat /proc/sysvipc/shm\n",
	"pgrep": "exec pidof \"$1\"\n",
}

// ownProgram is a layer with one of our programs.
func ownProgram(t testing.TB, name, as string, mode int64) []testimage.File {
	t.Helper()
	content, err := os.ReadFile(harness.Binary(t, name))
	require.NoError(t, err)
	return []testimage.File{{Name: as, Mode: mode, Content: content}}
}

// images serves images to a containerd that asks one registry for every name.
type images struct {
	served  registry.Named
	address string
	busybox []testimage.File
}

func serveImages(t testing.TB) *images {
	t.Helper()
	i := &images{served: registry.Named{}, busybox: busyboxLayer(t)}
	server := httptest.NewServer(i.served)
	t.Cleanup(server.Close)
	i.address = server.URL
	return i
}

// add serves busybox with more layers under names. All names are those of one image.
func (i *images) add(t testing.TB, config v1.Config, layers [][]testimage.File, names ...string) {
	t.Helper()
	if config.Env == nil {
		config.Env = []string{"PATH=/bin:/usr/sbin"}
	}
	image, err := testimage.Build(config, append([][]testimage.File{i.busybox}, layers...)...)
	require.NoError(t, err)
	serves, err := registry.OfImage(image)
	require.NoError(t, err)
	for _, name := range names {
		i.served[name] = serves
	}
}

// hosts makes the directory that has containerd ask the registry for every name.
func (i *images) hosts(t testing.TB, dir string) string {
	t.Helper()
	dir = filepath.Join(dir, "hosts")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "_default"), 0o700))
	text := fmt.Sprintf("server = %[1]q\n[host.%[1]q]\ncapabilities = [\"pull\", \"resolve\"]\n", i.address)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "_default", "hosts.toml"), []byte(text), 0o600))
	return dir
}

const sandboxName = "zfstpl/sandbox:1"

// serveSandbox serves the image of the pods' sandboxes. It is no other test's image.
func (i *images) serveSandbox(t testing.TB) {
	i.add(t, v1.Config{Entrypoint: []string{"/app", "wait"}, Labels: map[string]string{"for": "sandboxes"}},
		[][]testimage.File{ownProgram(t, "app", "app", 0o755)}, sandboxName)
}
