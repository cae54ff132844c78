// Bench measures zfstpl beside other snapshotters, on one machine and in one
// run: the contenders take turns, each does a little every time, so that what
// changes on the machine meanwhile changes for all.
//
//	bench measure [--quick]     measure; samples go to the standard output
//	bench busy [--quick]        the contenders on ZFS, on an idle pool and on a busy one
//	bench scale [--quick]       the same with few clones and with many, by zfstpl alone
//	bench layers [--quick]      the same for layers of what was changed
//	bench cleanups [--quick]    the same for what happens during a cleanup
//	bench report --in FILE      make tables and a plot of them
//
// 'make bench' does all of it. Measuring needs root, ZFS and containerd; everything
// it makes has names of its own and is gone afterwards.
package main
