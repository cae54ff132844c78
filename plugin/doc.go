// Package plugin opens a snapshotter from a configuration: it reads and checks the
// settings, finds and mounts the base and locks it against a second snapshotter. It also
// registers a built-in plugin for a containerd that is compiled with this package. The
// daemon and the administrator's command share their settings through it.
package plugin
