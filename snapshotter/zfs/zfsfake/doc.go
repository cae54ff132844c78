// Package zfsfake has a ZFS pool in memory that follows the rules of ZFS and fails where a
// test says. It is for tests. It knows package zfs and nothing of the snapshotter.
//
// # Failure points
//
// A Point is a place in the work of a pool: before or after a call of the pool, or before or
// after a transaction that has an operation. It has a name, made of the kinds of the calls and
// operations, and of the datasets if Of is used:
//
//	zfsfake.After(zfsfake.Clone)                    // after the transaction with the clone
//	zfsfake.Before(zfsfake.Set).Of("tank/run")      // before that of a property of tank/run
//	zfsfake.Before(zfsfake.List)                    // before each listing
//
// The pool derives what it passes from its calls and operations. A change of their number or
// order does not move a point to another operation.
//
// FailAt is the only way to make a pool fail. It takes a point, a Failure, and Limits on how
// often the failure happens. It returns a function that ends the failure:
//
//	end := pool.FailAt(zfsfake.Before(zfsfake.Promote), zfsfake.Kill())
//	require.ErrorIs(t, sn.Commit(ctx, "saved", "web"), zfsfake.ErrKilled)
//	end()
//
// The test fails if the pool has not passed the point before the end of the failure, or before
// the end of the test. So a point that an operation does not have any more is noticed.
// Optional makes an exception.
//
// A transaction is atomic. A point in the middle of it is at its edge: "before the promote" is
// before the transaction that has the promote. Which operations are one transaction depends on
// the pool: all of an Apply, those that InSteps describes, or each one with Torn.
//
// Each enumerates the points of one kind that an operation passes, without knowing how many
// there are, and reports their number:
//
//	for cut := range zfsfake.Each(t, zfsfake.Before(zfsfake.Transaction)) {
//		pool := ... // as before the operation
//		pool.FailAt(cut.Point, zfsfake.Crash())
//		err := operation(pool)
//		...
//	}
//
// It ends after the first cut that the operation did not reach.
package zfsfake
