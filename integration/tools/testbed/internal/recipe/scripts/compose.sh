# Puts the kernel's modules, ZFS's, containerd, BuildKit, Docker and Kubernetes into a
# root directory. Runs on the host.
root=$1 toolchain=$2 zfs=$3 containerd=$4 buildkit=$5 docker=$6 kubernetes=$7
kernel=$(cat "$toolchain/version")
mkdir -p "$root/usr/lib/modules"
cp -a "$toolchain/modules/$kernel" "$root/usr/lib/modules/"
mkdir -p "$root/usr/lib/modules/$kernel/extra"
cp "$zfs/spl.ko" "$zfs/zfs.ko" "$root/usr/lib/modules/$kernel/extra/"
cp "$zfs/version" "$root/etc/testbed-zfs"
mkdir -p "$root/opt/containerd-2.4/bin"
cp "$containerd"/bin/* "$root/opt/containerd-2.4/bin/"
cp "$buildkit"/bin/* "$docker"/bin/* "$kubernetes"/bin/* "$root/usr/local/bin/"
cp -r "$kubernetes/cni" "$root/usr/local/"
