// Package crash kills a daemon during an operation, at each of its calls to ZFS or within
// one, and compares what the next daemon shows with the state before or after the operation.
//
// A Case is an operation, a Rig is a base and its daemon, a Fixture is what one crash needs,
// and a Run crashes in all ways of one case. The expected snapshots and their content are
// those of the model.
package crash
