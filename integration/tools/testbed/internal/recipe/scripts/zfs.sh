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
# It refuses a probe on a function that is not in the list, so the functions that
# integration/waits probes stay: in each the place is the call after its endbr64.
probed=" txg_wait_synced txg_wait_synced_sig txg_wait_synced_flags __cv_wait_io __cv_wait_io_sig "
for module in spl zfs; do
	objcopy --strip-debug -R .BTF -R .BTF.base -R __mcount_loc -R .rela__mcount_loc \
		"module/$module.ko" "/tmp/$module.o"
	{
		echo '.section .note.GNU-stack, ""'
		echo '.section __mcount_loc, "a"'
		nm "/tmp/$module.o" | while read -r _ _ symbol; do
			case $probed in *" $symbol "*) echo ".quad $symbol + 4" ;; esac
		done
	} | as -o /tmp/places.o
	ld -r -o "/mnt/$module.ko" "/tmp/$module.o" /tmp/places.o
done
echo "$version" >/mnt/version
