#!/bin/bash
# Installs what 'make' needs and this machine lacks: Go, a C compiler (for the
# race detector) and git. Does nothing where they are there.
set -euo pipefail

# Any Go from 1.21 on fetches the one that go.mod names by itself.
go_is_usable() {
    command -v go >/dev/null || return 1
    local version
    version=$(cd / && GOTOOLCHAIN=local go env GOVERSION)
    [[ $version =~ ^go1\.([0-9]+) ]] && ((BASH_REMATCH[1] >= 21))
}

missing=()
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
command -v git >/dev/null || missing+=(git)
if [ "${ZFSTPL_TEST_HOST:-}" = 1 ]; then command -v runc >/dev/null || missing+=(runc); fi
go_is_usable || missing+=(golang-go)
((${#missing[@]})) || exit 0

if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
    echo "zfstpl: install these first: ${missing[*]} (on Debian, as root, 'make' does it itself)" >&2
    exit 1
fi
echo "zfstpl: installing ${missing[*]} (once)"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -rf "$log" "${lists:-$log}"' EXIT
install() {
    apt-get "$@" -qq install -y --no-install-recommends >"$log" 2>&1 "${packages[@]}" || { tail -n 20 "$log" >&2; exit 1; }
}
packages=()
for p in "${missing[@]}"; do [ "$p" = golang-go ] || packages+=("$p"); done
apt-get -qq update >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
if ((${#packages[@]})); then install; fi
go_is_usable && exit 0

# The release's own Go, where it is new enough; else the one of its backports,
# from a list of sources of our own: the machine's stay as they are.
packages=(golang-go)
# shellcheck disable=SC1091
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
site=$(apt-get indextargets --format '$(SITE) $(ORIGIN) $(CODENAME)' | awk -v c="$codename" '$2 == "Debian" && $3 == c { print $1; exit }')
if [ -z "$site" ]; then
    echo "zfstpl: no Debian archive is configured in /etc/apt; install Go 1.21 or newer by hand" >&2
    exit 1
fi
lists=$(mktemp -d)
mkdir -p "$lists/lists/partial"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
for suite in "$codename" "$codename-updates" "$codename-backports"; do
    echo "deb [signed-by=$keyring] $site $suite main"
done >"$lists/sources.list"
own=(-o "Dir::Etc::SourceList=$lists/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$lists/lists")
apt-get "${own[@]}" -qq update >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
install "${own[@]}" -t "$codename-backports"
go_is_usable || { echo "zfstpl: Go 1.21 or newer is needed and $codename has none; install it by hand" >&2; exit 1; }
