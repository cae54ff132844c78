# Builds the modules of an OpenZFS release for the root's kernel, from Debian's
# package of their source, as DKMS would.
release=$1 suite=$2
apt() {
	apt-get -q -y --no-install-recommends ${suite:+-t "$suite"} "$@"
}
headers=$(echo /usr/src/linux-headers-*-cloud-amd64)
cd /tmp
apt download zfs-dkms || { apt update && apt download zfs-dkms; }
version=$(dpkg-deb -f zfs-dkms_*.deb Version)
case $version in
"$release".*) ;;
*)
	echo "Debian's package is now $version, not $release" >&2
	exit 1
	;;
esac
# The same version is wanted for the programs; the mirror has it now.
apt install --download-only "zfsutils-linux=$version"

dpkg -x zfs-dkms_*.deb /tmp/zfs
cd /tmp/zfs/usr/src/zfs-*
./configure --disable-dependency-tracking --prefix=/usr --with-config=kernel \
	--with-linux="${headers%-cloud-amd64}-common" --with-linux-obj="$headers" \
	--enable-linux-experimental
make -j"$(nproc)"
# Without the list of places for function tracing the module loads in a third
# of the time (emulated, 2 s and not 6): the kernel looks up each in all symbols.
for module in spl zfs; do
	objcopy --strip-debug -R .BTF -R .BTF.base -R __mcount_loc -R .rela__mcount_loc \
		"module/$module.ko" "/mnt/$module.ko"
done
echo "$version" >/mnt/version
