package plugin

import (
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"text/template"
	"unicode"
	"unicode/utf8"
)

// Versions of containerd's configuration file.
const (
	ContainerdConfig2 = 2 // containerd 1.7
	ContainerdConfig3 = 3 // containerd 2.x
)

// remapIDs is containerd's word for a snapshotter whose mounts are mapped into a
// user namespace by the kernel. Without it containerd copies the image and
// changes the owner of each file. containerd 1.7 must not hear the word: 1.7.24
// believes it, passes over the options of the mount, and the container's root is
// nobody in his own root file system.
const remapIDs = "remap-ids"

// The transfer service of containerd 2 has one table that says with what it
// unpacks; a table of ours replaces its defaults, so overlayfs is listed too.
var containerdConfig = template.Must(template.New("").Parse(`{{if eq .Version 3 -}}
# For containerd 2.x: below a line "version = 3" in a file of its own, as
# /etc/containerd/conf.d/zfstpl.toml, which /etc/containerd/config.toml imports:
# imports = ["/etc/containerd/conf.d/*.toml"]
{{- else -}}
# For containerd 1.7: goes to the end of /etc/containerd/config.toml, whose version
# is 2.
{{- end}}
[proxy_plugins.zfstpl]
  type = "snapshot"
  address = "{{.Address}}"
{{- if eq .Version 3}}
  capabilities = ["{{.RemapIDs}}"]
{{- end}}
  [proxy_plugins.zfstpl.exports]
    root = "{{.Root}}"
{{if .Differ}}
# Layers of what containers changed. What is not zfstpl's goes to "walking".
[proxy_plugins.zfstpl-diff]
  type = "diff"
  address = "{{.Address}}"
[plugins."io.containerd.service.v1.diff-service"]
  default = ["zfstpl-diff", "walking"]
{{end}}{{if eq .Version 3}}
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "{{.Platform}}"
  snapshotter = "zfstpl"
{{- if .Differ}}
  differ = "zfstpl-diff"
{{- end}}
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "{{.Platform}}"
  snapshotter = "overlayfs"

# Kubernetes: what the kubelet pulls and runs goes to zfstpl.
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "zfstpl"
{{else}}
# Kubernetes: what the kubelet pulls and runs goes to zfstpl.
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "zfstpl"
{{end}}`))

var oldContainerd = regexp.MustCompile(`\sv?1\.\d+\.`)

// ContainerdIsOld tells of what 'containerd --version' printed whether it is of a 1.x.
func ContainerdIsOld(version string) bool { return oldContainerd.MatchString(version) }

// ContainerdConfig is what a containerd's configuration needs to use a daemon
// that serves address, with its base mounted at root, and a differ where it has one.
func ContainerdConfig(version int, address, root string, differ bool) (string, error) {
	if version != ContainerdConfig2 && version != ContainerdConfig3 {
		return "", fmt.Errorf("containerd's configuration has version 2 (containerd 1.7) or 3 (containerd 2.x), not %d", version)
	}
	for _, p := range [][2]string{{"address", address}, {"root", root}} {
		if err := checkQuotable(p[0], p[1]); err != nil {
			return "", err
		}
	}
	var b strings.Builder
	err := containerdConfig.Execute(&b, map[string]any{
		"Version": version, "Address": address, "Root": root, "Platform": "linux/" + runtime.GOARCH,
		"RemapIDs": remapIDs, "Differ": differ,
	})
	return b.String(), err
}

// checkQuotable refuses a path that could not stand between quotes as it is.
func checkQuotable(what, path string) error {
	switch {
	case !filepath.IsAbs(path):
		return fmt.Errorf("%s %q is not an absolute path", what, path)
	case !utf8.ValidString(path), strings.ContainsAny(path, `"\\`), strings.ContainsFunc(path, unicode.IsControl):
		return fmt.Errorf("%s %q has a character that cannot stand in containerd's configuration", what, path)
	}
	return nil
}
