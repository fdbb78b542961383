#!/bin/sh
# Makes the test host: a Debian forky root with LXC 7.0 and CRIU 4.2.1, once, in a cache outside the tree.
# Installs by apt what building it and the tests needs and this machine lacks.
# usage: test-host.sh [--systemd]           make it, print its versions and its path
#        test-host.sh [--systemd] --path    print the path where it is or would be
# --systemd: not the host but the root of a container to try in it, Debian 13 with systemd 257.
set -eu

suite=forky
packages=lxc,criu,iproute2,iptables,nftables,mount,busybox-static,procps,iputils-ping,strace
versions_of='lxc criu libc6'
if [ "${1-}" = --systemd ]; then
    shift
    suite=trixie
    # What a user's container has: logins, timers, and services that shut themselves in namespaces.
    packages=systemd-sysv,dbus,libpam-systemd,systemd-timesyncd,cron,procps,iproute2,iputils-ping
    versions_of='systemd libc6'
fi
recipe=$(printf '%s' "1 $suite $packages $(dpkg --print-architecture)" | sha256sum | cut -c1-12)
cache=${LXC_CR_CACHE:-/var/cache/lxc-cr}
dir=$cache/$suite-$recipe
if [ "${1-}" = --path ]; then echo "$dir/root"; exit 0; fi

say() { echo "test-host: $*"; }
fail() { say "$*" >&2; exit 1; }

# cc and libc6-dev link the static witness; the keyring is not on every Ubuntu.
wanted=
for package in mmdebstrap debian-archive-keyring gcc libc6-dev make; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || wanted="$wanted $package"
done
command -v cargo >/dev/null || wanted="$wanted rustup"
if [ -n "$wanted" ]; then
    [ "$(id -u)" = 0 ] || fail "these packages are missing and only root can install them:$wanted"
    say "installing$wanted"
    apt-get -q update
    case $wanted in *rustup*) [ -n "$(apt-cache -q policy rustup)" ] ||
        fail "no cargo, and no rustup package here: install Rust 1.89 or later from https://rustup.rs, then try again" ;; esac
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $wanted
    case $wanted in *rustup*) rustup default stable ;; esac
fi
if [ "$(id -u)" != 0 ]; then say "not root: the tests that need the test host will be skipped"; exit 0; fi

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -d "$dir" ]; then
    # A mirror that this machine uses already, unless it is a snapshot, which may be older than what we need.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' |
        grep -v snapshot | head -n 1)
    mirror=${mirror:-http://deb.debian.org/debian}
    say "making a Debian $suite root in $dir from $mirror (half a minute)"
    new=$(mktemp -d "$cache/new.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    chmod 755 "$new"
    # The Release file of a frozen mirror may have expired; its signature is still checked.
    mmdebstrap --quiet --mode=root --variant=apt --components=main --include="$packages" \
        --aptopt='Acquire::Check-Valid-Until "false"' "$suite" "$new/root" "$mirror" ||
    { say "mmdebstrap did not do it, trying debootstrap"
      rm -rf "$new/root"
      apt-get -q -y install --no-install-recommends debootstrap
      # An older debootstrap has no script of that name; sid's serves.
      debootstrap --variant=minbase --include="$packages" "$suite" "$new/root" "$mirror" /usr/share/debootstrap/scripts/sid; }
    mv "$new" "$dir"
fi
# shellcheck disable=SC2016,SC2086 # dpkg-query's own variables, and a list of words
say "$(chroot "$dir/root" dpkg-query -W -f '${Package} ${Version}, ' $versions_of | sed 's/, $//') in $dir/root"
