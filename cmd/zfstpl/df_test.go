package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/space"
)

func TestAccountsArePrinted(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, printAccounts(&out, inspect.Accounts{
		Images: []inspect.ImageAccount{
			{Dataset: "tank/z/storage/" + chain("a"), Namespaces: []string{"default", "k8s.io"}, Unique: 1 << 20, Shared: 3 << 20, Containers: 2},
			{Dataset: "tank/z/storage/opaque-1", Namespaces: []string{"a\x1b[2J"}, Unique: 100},
		}, Templates: 4 << 20, Containers: 5, Cached: 6, Garbage: 7, Other: 8, Reclaimable: 13,
	}, []space.Limit{{Of: "pool tank", Used: 50, Total: 100, Blocked: "a checkpoint"}}, tree{}.name))
	assert.Equal(t, `IMAGE                 NAMESPACES       UNIQUE  SHARED  CONTAINERS
sha256:aaaaaaaaaaaa…  default, k8s.io  1MiB    3MiB    2
opaque-1              a?[2J            100B    0B      0

images 4MiB, containers 5B, cached 6B, garbage 7B, other 8B; 13B can be reclaimed
pool tank is 50% full (50B of 100B)
  a checkpoint
`, out.String())
}

func TestPlanIsPrinted(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	t1 := tree{now: func() time.Time { return noon }}
	require.NoError(t, printPlan(&out, space.Plan{
		Evict: []space.Eviction{
			{Node: space.Node{Dataset: "tank/z/runtime/web-1", Garbage: true, Bytes: 10}, Reason: "garbage"},
			{Node: space.Node{Dataset: "tank/z/storage/" + chain("b"), Bytes: 1 << 20, Cached: true, Since: noon.AddDate(0, 0, -3)}, Reason: "pool tank is 90% full"},
		}, Bytes: 1<<20 + 10, Problems: []string{"the quota of tank is 99% full"},
	}, t1))
	var lines []string
	for line := range strings.Lines(out.String()) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	assert.Equal(t, []string{
		"DATASET               FREES  LAST USED   REASON",
		"web-1                 10B    –           garbage",
		"sha256:bbbbbbbbbbbb…  1MiB   3 days ago  pool tank is 90% full",
		"2 datasets            1MiB",
		"the quota of tank is 99% full",
	}, lines)
}

// The error for a command of an older release names the command that replaces it.
func TestRemovedCommandNamesItsSuccessor(t *testing.T) {
	t.Parallel()
	_, err := run(t, "sweep")
	assert.ErrorContains(t, err, "zfstpl cleanup --dry-run")
}
