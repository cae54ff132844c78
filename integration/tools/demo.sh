#!/bin/bash
# What 'make demo' runs: the guided tour, in the testbed's machine or, with
# ZFSTPL_TEST_HOST=1, on this host's own ZFS (a pool on a file; nothing else is
# touched). bin/ is built already.
set -euo pipefail
cd "$(dirname "$0")/../.."

image=$(bin/image --print)
manifest=$(dirname "$image")/rootfs.jsonl

if [ "${ZFSTPL_TEST_HOST:-}" = 1 ]; then
    exec bin/demo --image "$image" --manifest "$manifest" --bin bin --containerd-bin "$(bin/testbed path containerd)"
fi
echo "Booting a machine with ZFS $ZFS and containerd $CONTAINERD (emulated where this one has no KVM)."
exec bin/testbed run --memory 4G --disk 8G \
    --put bin/:/put/bin --put "$image:/put/image.tar" --put "$manifest:/put/image.rootfs.jsonl" -- \
    /put/bin/demo --image /put/image.tar --manifest /put/image.rootfs.jsonl --bin /put/bin --pool-device /dev/testbed/disk0
