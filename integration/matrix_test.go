package integration

import (
	"flag"
	"testing"
)

var matrix = flag.Bool("matrix", false, "another machine runs these tests with the other releases: leave out what is wanted of one of them")

// The releases of a machine: OpenZFS 2.3 and containerd 1.7, or the newer ones.
const (
	olderReleases = true
	newerReleases = false
)

// Why a test need not be run with both releases.
const (
	aClient   = "takes minutes, and of the two releases of containerd wants the same"
	aQuota    = "takes minutes, and both releases count the space of a quota alike"
	aCase     = "takes a part of a minute, and the releases differ little in it"
	onlyFiles = "takes minutes, and uses of ZFS only what the random trees use, which run with both releases"
)

// onlyOnce leaves a test that need not be run with both releases to one of the two
// machines of 'make test'. Tests that take long are divided between the machines.
func onlyOnce(t testing.TB, older bool, why string) {
	t.Helper()
	if *matrix && containerd17(t) != older {
		t.Skip(why + ": 'make test' runs it with the other ones, 'make test-long' with both")
	}
}
