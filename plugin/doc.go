// Package plugin turns a configuration into a running snapshotter: it reads and
// checks settings, finds the base, takes the lock that keeps a second
// snapshotter away from it, and registers the whole as a built-in plugin for a
// containerd compiled with it. The daemon and the administrator's command use
// the same settings through it.
package plugin
