# Installs what builds kernel modules, and takes out the kernel itself.
apt() {
	apt-get -q -y --no-install-recommends "$@"
}
# The lists may be older than what the mirror still has.
apt install "$@" || { apt update && apt install "$@"; }

headers=$(echo /usr/src/linux-headers-*-cloud-amd64)
kernel=${headers#/usr/src/linux-headers-}
cd /tmp
apt download "linux-image-$kernel"
dpkg -x linux-image-*.deb /tmp/kernel
# The kernel without its wrapping: to unpack it takes an emulated processor
# seconds, and QEMU can start it as it is.
image=/tmp/kernel/boot/vmlinuz-$kernel
offset=$(LC_ALL=C grep -aboP -m 1 '\x28\xb5\x2f\xfd' "$image" | head -n 1 | cut -d: -f1)
tail -c "+$((offset + 1))" "$image" >/tmp/vmlinux.zst
# What follows the compressed data is taken for garbage, rightly.
zstd -qdc /tmp/vmlinux.zst >/mnt/vmlinux || true
case $(file -b /mnt/vmlinux) in
"ELF 64-bit LSB executable"*) ;;
*)
	echo "no kernel in $image" >&2
	exit 1
	;;
esac
modules=$(echo /tmp/kernel/usr/lib/modules/* /tmp/kernel/lib/modules/* | tr ' ' '\n' | grep -v '\*' | head -n 1)
rm -f "$modules/build" "$modules/source"
mkdir -p /mnt/modules
mv "$modules" "/mnt/modules/$kernel"
# The initramfs has no program to unpack it.
xz -dc "/mnt/modules/$kernel/kernel/drivers/block/virtio_blk.ko.xz" >/mnt/virtio_blk.ko
echo "$kernel" >/mnt/version
rm -rf /tmp/*
