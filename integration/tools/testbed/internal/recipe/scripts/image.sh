# Completes the root of an image: ZFS's programs, of the same version as its
# modules, and the index of all modules.
suite=$1
version=$(cat /etc/testbed-zfs)
apt-get -q -y --no-install-recommends ${suite:+-t "$suite"} install "zfsutils-linux=$version"
depmod "$(ls /usr/lib/modules)"
rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/* /usr/sbin/policy-rc.d /etc/resolv.conf
: >/etc/resolv.conf
mkdir -p /out /put /opt
