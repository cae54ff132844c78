# Completes the package sources of a new root and fetches their lists. Runs on
# the host, with the root as its argument.
# Where the host knows no mirror, mmdebstrap has chosen one: the backports are
# taken from the same.
root=$1 suite=$2
sources=$root/etc/apt/sources.list
if ! grep -q -- "$suite-backports" "$sources"; then
	site=$(sed -n 's/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' "$sources" | head -n 1)
	echo "deb $site $suite-backports main contrib" >>"$sources"
	chroot "$root" apt-get -q update
fi
