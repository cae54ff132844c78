package testpool

import (
	"os"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// ClientVariable names the environment variable that says which of the ZFS
// clients the tests use: native or command. Without it, they use what a daemon
// would.
const ClientVariable = "ZFSTPL_TEST_CLIENT"

// ReadyVariable names the environment variable with the number of ready runtimes of all daemons.
const ReadyVariable = "ZFSTPL_TEST_READY"

// ClientChoice is the client that the tests are to use.
func ClientChoice() zfs.Choice {
	if word := os.Getenv(ClientVariable); word != "" {
		return zfs.Choice(word)
	}
	return zfs.Auto
}

// Clients are all the ways to speak to ZFS that are to be tested.
func Clients() []zfs.Choice { return []zfs.Choice{zfs.Native, zfs.Command} }
