#!/bin/bash
# Builds bin/containerd-builtin: containerd with zfstpl compiled in, for the contender "built
# in". containerd's dependencies are not zfstpl's, so the program is in a module of its own.
set -euo pipefail
cd "$(dirname "$0")/../../.."
root=$PWD
module=github.com/containerd/containerd/v2
version=$(go list -m -f '{{.Version}}' $module)
go=$(go list -m -f '{{.GoVersion}}' github.com/zfstpl/zfstpl)
mkdir -p out/builtin
cd out/builtin
cat >go.mod <<END
module containerd-builtin

go $go

require (
	$module $version
	github.com/zfstpl/zfstpl v0.0.0
)

replace github.com/zfstpl/zfstpl => $root
END
cat >main.go <<END
package main

import (
	"context"
	"fmt"
	"os"

	_ "$module/cmd/containerd/builtins"
	"$module/cmd/containerd/command"

	_ "github.com/zfstpl/zfstpl/plugin"
)

func main() {
	if err := command.App().Run(context.Background(), os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "containerd:", err)
		os.Exit(1)
	}
}
END
[ -e go.sum ] || cp "$root/go.sum" .
# Without cgo, and so without btrfs: it is not measured with that snapshotter.
CGO_ENABLED=0 go build -mod=mod -trimpath -ldflags "-s -w -X $module/version.Version=${version#v}" -o "$root/bin/containerd-builtin" .
