//go:build linux

package main

import "github.com/zfstpl/zfstpl/integration/tools/bench/internal/report"

// names are those that --only takes.
var names = []string{
	report.Native, report.Command, report.ZFSPlugin, report.OverlayZFS, report.OverlayExt4, report.Btrfs,
	report.Socket, report.Floor, report.EmptyProxy, report.LogOnly,
}
