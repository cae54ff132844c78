# Unpacks a root directory.
archive=$1 root=$2
mkdir -p "$root"
tar -C "$root" --numeric-owner -xpf "$archive"
