//go:build !failpoint

package plugin

import "github.com/zfstpl/zfstpl/snapshotter/zfs"

// watch does nothing. The build for the crash tests has another one, see
// watch_failpoint.go.
func watch(*zfs.Client) {}
