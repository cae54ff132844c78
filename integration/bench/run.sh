#!/bin/bash
# What 'make bench' runs: measures in the testbed's machine or, with
# ZFSTPL_TEST_HOST=1, on this host (a pool on a file; nothing else is touched),
# and makes the tables. bin/ is built already. Arguments are passed on to
# 'bench measure'.
set -euo pipefail
cd "$(dirname "$0")/../.."

case ${BENCH:=full} in
full) docs=docs ;;
quick) docs=out/bench && set -- --quick "$@" ;;
*) echo "BENCH=$BENCH: want full or quick" >&2 && exit 1 ;;
esac
mkdir -p out/bench
samples=out/bench/bench.txt

if [ "${ZFSTPL_TEST_HOST:-}" = 1 ]; then
    bin/bench measure --bin bin --containerd-bin "$(bin/testbed path containerd)" "$@" >"$samples"
else
    echo "Booting a machine with ZFS $ZFS and containerd 2.4 (emulated where this one has no KVM)." >&2
    put=()
    for program in bench app zfstpl containerd-zfstpl-grpc; do put+=(--put "bin/$program:/put/bin/"); done
    bin/testbed run --containerd 2.4 --cores 2 --memory 6G --timeout 3h \
        --disk 24G --disk 12G --disk 12G "${put[@]}" -- \
        /put/bin/bench measure --bin /put/bin --pool-device /dev/testbed/disk0 \
        --ext4-device /dev/testbed/disk1 --btrfs-device /dev/testbed/disk2 "$@" >"$samples"
fi
bin/bench report --in "$samples" --out "$docs"
