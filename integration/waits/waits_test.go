package waits

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// nested is a trace of two threads. In one the first of the functions calls the second.
const nested = `# tracer: nop
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
 containerd-zfst-812     [000] ...1.    12.000001: begin_txg_wait_synced: (txg_wait_synced+0x4/0x60 [zfs]) txg=77
 containerd-zfst-812     [000] ...1.    12.000002: <stack trace>
 => kprobe_ftrace_handler
 => 0xffffffffc087c0de
 => txg_wait_synced
 => dsl_sync_task_common
 => zfs_ioc_set_prop
 containerd-zfst-812     [000] ...1.    12.000003: begin_txg_wait_synced_flags: (txg_wait_synced_flags+0x4/0x150 [zfs]) txg=77
 containerd-zfst-812     [000] ...1.    12.000004: <stack trace>
 => txg_wait_synced_flags
 => txg_wait_synced
 containerd-zfst-812     [000] ...1.    12.000005: block___cv_wait_io: (__cv_wait_io+0x4/0x30 [spl])
 a -1 [b] c: d-813     [001] d..2.    12.000006: begin_txg_wait_synced_flags: (txg_wait_synced_flags+0x4/0x150 [zfs]) txg=0
 a -1 [b] c: d-813     [001] d..2.    12.000007: block___cv_wait_io_sig: (__cv_wait_io_sig+0x4/0x60 [spl])
 a -1 [b] c: d-813     [001] d..2.    12.100006: block___cv_wait_io_sig: (__cv_wait_io_sig+0x4/0x60 [spl])
 containerd-zfst-812     [000] ...1.    12.100008: end_txg_wait_synced_flags: (txg_wait_synced+0x10/0x60 [zfs] <- txg_wait_synced_flags)
 containerd-zfst-812     [000] ...1.    12.100009: end_txg_wait_synced: (dsl_sync_task_common+0x1a0/0x2d0 [zfs] <- txg_wait_synced)
 containerd-zfst-812     [000] ...1.    12.100010: block___cv_wait_io: (__cv_wait_io+0x4/0x30 [spl])
`

func TestCallWithinACallCountsOnce(t *testing.T) {
	calls := parseTrace(nested)
	assert.Equal(t, []Call{
		{Thread: 812, Txg: 77, Waited: true, Stack: []string{"txg_wait_synced", "dsl_sync_task_common", "zfs_ioc_set_prop"}},
		{Thread: 813, Waited: true, Open: true},
	}, calls)
}

func TestCallForAllTxgsCountsThree(t *testing.T) {
	var c Counts
	c.addCalls(parseTrace(nested))
	assert.Equal(t, 1+3, c.Txgs)
	assert.True(t, c.isBusy(), "thread 813 still waits")
}

// The other waits are those of zio_wait, and a call whose begin was before the trace's.
func TestOnlyBlockedCallsCount(t *testing.T) {
	var c Counts
	c.addCalls(parseTrace(` d-9     [000] .....     1.000001: block___cv_wait_io: (__cv_wait_io+0x4/0x30 [spl])
 d-9     [000] .....     1.000002: end_txg_wait_synced: (zil_create+0x50/0x300 [zfs] <- txg_wait_synced)
 d-9     [000] .....     1.000003: begin_txg_wait_synced: (txg_wait_synced+0x4/0x60 [zfs]) txg=3
 d-9     [000] .....     1.000004: end_txg_wait_synced: (zil_create+0x50/0x300 [zfs] <- txg_wait_synced)
 d-9     [000] .....     1.000005: block___cv_wait_io: (__cv_wait_io+0x4/0x30 [spl])
`))
	assert.Equal(t, []Call{{Thread: 9, Txg: 3}}, c.Calls)
	assert.Zero(t, c.Txgs)
	assert.False(t, c.isBusy())
}

func TestZILCommitsAreCountedByDataset(t *testing.T) {
	dir := t.TempDir()
	set := func(objset, dataset, count string) {
		text := "39 1 0x01 19 5168 5107562 99\nname                            type data\n" +
			"dataset_name                    7    " + dataset + "\nwrites                          4    12\n" +
			"zil_commit_count                4    " + count + "\nzil_commit_writer_count         4    1\n"
		require.NoError(t, os.WriteFile(filepath.Join(dir, objset), []byte(text), 0o600))
	}
	set("objset-0x36", "tank/a", "3")
	set("objset-0x40", "tank/b c", "7")
	set("objset-0x41", "tank/gone", "2")
	set("io", "tank/other", "2")
	before, err := readCommits(dir)
	require.NoError(t, err)
	set("objset-0x40", "tank/b c", "9")
	set("objset-0x50", "tank/new", "1")
	require.NoError(t, os.Remove(filepath.Join(dir, "objset-0x41")))
	now, err := readCommits(dir)
	require.NoError(t, err)

	var c Counts
	now.since(before, &c)
	assert.Equal(t, Counts{ZIL: 3, Commits: map[string]int{"tank/b c": 2, "tank/new": 1}, Gone: []string{"tank/gone"}}, c)
	assert.Equal(t, "txgs: 0, ZIL commits: 3, without those of datasets that were unmounted: 1", c.String())
}

func TestLostEventsAreAnError(t *testing.T) {
	assert.False(t, lostEvents.MatchString("entries: 5\noverrun: 0\ncommit overrun: 0\nbytes: 99\ndropped events: 0\nread events: 7\n"))
	assert.True(t, lostEvents.MatchString("entries: 5\noverrun: 12\n"))
	assert.True(t, lostEvents.MatchString("entries: 5\noverrun: 0\ndropped events: 3\n"))
}
