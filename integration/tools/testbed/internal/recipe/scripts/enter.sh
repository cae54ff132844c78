# Runs a script in a root directory. All mounts belong to this process's own
# namespace and go away with it. In the root, /mnt is the directory for what
# the script makes.
root=$1 debs=$2 out=$3 script=$4
shift 4
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir -p "$root/var/cache/apt/archives"
mount --bind "$debs" "$root/var/cache/apt/archives"
mount --bind "$out" "$root/mnt"
if [ -e /etc/resolv.conf ]; then
	cp -L /etc/resolv.conf "$root/etc/resolv.conf"
fi
# No package may start a daemon, or ask.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
exec chroot "$root" sh -euc "$script" sh "$@"
