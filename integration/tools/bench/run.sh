#!/bin/bash
# What 'make bench' runs: measures in the testbed's machine or, with
# ZFSTPL_TEST_HOST=1, on this host (a pool on a file; nothing else is touched),
# and makes the tables. bin/ is built already. HALF=snapshots, busy (or one of its
# parts, busy10 and busy500), waits, imports, scale, few, layers, cleanups or mounts
# measures one part anew and takes the others' last measurements, where there are
# any. BEFORE=DIR has scale also measure the older zfstpl whose programs are in DIR.
# Arguments are passed on to the measuring program.
set -euo pipefail
cd "$(dirname "$0")/../../.."

many=" busy500"
case ${BENCH:=full} in
full) docs=docs out=docs/bench ;;
quick) docs=out/bench out=out/bench many= && set -- --quick "$@" ;;
*) echo "BENCH=$BENCH: want full or quick" >&2 && exit 1 ;;
esac
case ${HALF:=both} in
both) halves="measure busy10$many waits imports scale few layers cleanups mounts" ;;
snapshots) halves=measure ;;
busy) halves="busy10$many" ;;
busy10 | busy500 | waits | imports | scale | few | layers | cleanups | mounts) halves=$HALF ;;
*) echo "HALF=$HALF: want both, snapshots, busy, busy10, busy500, waits, imports, scale, few, layers, cleanups or mounts" >&2 && exit 1 ;;
esac
mkdir -p "$out"

measure() { # the half, and what the program takes
    case $1 in
    busy*) set -- busy --clones "${1#busy}" "${@:2}" ;;
    esac
    if [ "${ZFSTPL_TEST_HOST:-}" = 1 ]; then
        if [ "$1" = imports ] || [ "$1" = mounts ]; then set -- "$@" --image "$(bin/image --print)"; fi
        if [ "$1" = scale ] && [ -n "${BEFORE:-}" ]; then set -- "$@" --before "$(realpath "$BEFORE")"; fi
        bin/bench "$@" --bin bin --containerd-bin "$(bin/testbed path containerd)"
        return
    fi
    local put=() image
    for program in bench app zfstpl containerd-zfstpl-grpc; do put+=(--put "bin/$program:/put/bin/"); done
    if [ "$1" = imports ] || [ "$1" = mounts ]; then
        image=$(bin/image --print)
        put+=(--put "$image:/put/image.tar")
        set -- "$@" --image /put/image.tar
    fi
    if [ "$1" = scale ] && [ -n "${BEFORE:-}" ]; then
        for program in zfstpl containerd-zfstpl-grpc; do put+=(--put "$BEFORE/$program:/put/before/"); done
        set -- "$@" --before /put/before
    fi
    if [ "$1" = busy ] || [ "$1" = waits ]; then put+=(--put "bin/containerd-builtin:/put/bin/"); fi
    echo "Booting a machine with ZFS $ZFS and containerd 2.4 (emulated where this one has no KVM)." >&2
    bin/testbed run --containerd 2.4 --cores 2 --memory 6G --timeout 6h \
        --disk 24G --disk 12G --disk 12G "${put[@]}" -- \
        /put/bin/bench "$@" --bin /put/bin --pool-device /dev/testbed/disk0 \
        --ext4-device /dev/testbed/disk1 --btrfs-device /dev/testbed/disk2
}

if [[ " $halves " == *" busy"* || " $halves " == *" waits "* ]]; then integration/tools/bench/builtin.sh; fi
for half in $halves; do
    # Not over the last ones, before there are new ones.
    measure "$half" "$@" >"$out/$half.new"
    mv "$out/$half.new" "$out/$half.txt"
done
in=()
for half in measure busy10 busy500 waits imports scale few layers cleanups mounts; do
    if [ -s "$out/$half.txt" ]; then in+=(--in "$out/$half.txt"); fi
done
bin/bench report "${in[@]}" --out "$docs"
