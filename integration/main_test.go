package integration

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/zfstpl/zfstpl/integration/testpool"
)

// pool is the one pool all tests of a run share, each with a base of its own.
var pool *testpool.Pool

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if err := testpool.Available(); err != nil {
		fmt.Fprintf(os.Stderr, "integration tests cannot run here: %v. 'make test' runs them in the testbed.\n", err)
		return 1
	}
	if os.Getenv(childBase) != "" {
		return m.Run() // the pool is another process's
	}
	var err error
	if pool, err = testpool.Create(testpool.DefaultSize); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := pool.Close(context.Background()); err != nil {
		fmt.Fprintf(os.Stderr, "the tests left something behind: %v\n", err)
		return 1
	}
	return code
}
