# Installs what tests need, other than ZFS and the newer containerd.
apt() {
	apt-get -q -y --no-install-recommends "$@"
}
apt install "$@" || { apt update && apt install "$@"; }

# Debian's containerd stands beside the other: one is chosen when a guest boots.
cd /tmp
apt download containerd
dpkg -x containerd_*.deb /tmp/containerd
mkdir -p /opt/containerd-1.7
mv /tmp/containerd/usr/bin /opt/containerd-1.7/bin
rm -rf /tmp/*
/opt/containerd-1.7/bin/containerd --version >/mnt/containerd-version

echo testbed >/etc/hostname
printf '127.0.0.1 localhost testbed\n::1 localhost\n' >/etc/hosts
echo 7a6673747074657374626564746573742 | cut -c1-32 >/etc/machine-id
# All guests are the same host to ZFS: a pool whose guest died can be imported
# by the next one without force, as after a reboot.
printf '\164\142\145\144' >/etc/hostid
printf 'PS1="testbed# "\n' >/root/.bash_profile
