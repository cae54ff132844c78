package plugin

import (
	"cmp"
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

// remapIDs is containerd's capability of a snapshotter whose mounts can be idmapped.
// Without it containerd copies the image and changes the owner of each file. The
// configuration for containerd 1.7 omits it: 1.7.24 accepts it and ignores the options
// of the mount, and the container's root does not own its root file system.
const remapIDs = "remap-ids"

// containerdConfig has overlayfs in its unpack_config too, because a table there
// replaces the defaults of containerd's transfer service.
var containerdConfig = template.Must(template.New("").Parse(`{{if eq .Version 3 -}}
# For containerd 2.x: put this below a line "version = 3" into a file of its own,
# such as /etc/containerd/conf.d/zfstpl.toml, which /etc/containerd/config.toml imports:
# imports = ["/etc/containerd/conf.d/*.toml"]
{{- else -}}
# For containerd 1.7: append this to /etc/containerd/config.toml, which has version 2.
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
# The diff service. It leaves the snapshots of other snapshotters to "walking".
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

# Kubernetes: images and containers of the kubelet use zfstpl.
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "zfstpl"
{{else}}
# Kubernetes: images and containers of the kubelet use zfstpl.
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "zfstpl"
{{end}}`))

var oldContainerd = regexp.MustCompile(`\sv?1\.\d+\.`)

// ContainerdIsOld reports whether the output of 'containerd --version' is that of a 1.x.
func ContainerdIsOld(version string) bool { return oldContainerd.MatchString(version) }

// ContainerdConfig returns the configuration with which containerd uses a daemon that
// serves address and has its base mounted at root. differ is whether the daemon has a
// diff service.
func ContainerdConfig(version int, address, root string, differ bool) (string, error) {
	if version != ContainerdConfig2 && version != ContainerdConfig3 {
		return "", fmt.Errorf("containerd's configuration has no version %d: use version 2 for containerd 1.7, 3 for containerd 2.x", version)
	}
	if err := cmp.Or(checkQuotable("address", address), checkQuotable("root", root)); err != nil {
		return "", err
	}
	var b strings.Builder
	err := containerdConfig.Execute(&b, map[string]any{
		"Version": version, "Address": address, "Root": root, "Platform": "linux/" + runtime.GOARCH,
		"RemapIDs": remapIDs, "Differ": differ,
	})
	return b.String(), err
}

// checkQuotable returns an error for a path that TOML cannot quote without escapes.
func checkQuotable(what, path string) error {
	switch {
	case !filepath.IsAbs(path):
		return fmt.Errorf("%s: %q is not an absolute path", what, path)
	case !utf8.ValidString(path), strings.ContainsAny(path, `"\\`), strings.ContainsFunc(path, unicode.IsControl):
		return fmt.Errorf("%s: %q has a character that containerd's configuration cannot contain", what, path)
	}
	return nil
}
