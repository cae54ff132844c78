package inspect

import "github.com/zfstpl/zfstpl/snapshotter/internal/state"

// State is the state of a dataset under a base.
type State = state.State

// The states of a dataset under a base.
const (
	Used    = state.Used    // has a record
	Cached  = state.Cached  // a template without records
	Garbage = state.Garbage // the next cleanup destroys it
	Partial = state.Partial // the remains of an interrupted commit, which the next start destroys
	Foreign = state.Foreign // not created by zfstpl, or changed by another program
)
