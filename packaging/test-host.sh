#!/bin/sh
# Makes the test host: a Debian forky root with LXC 7.0 and CRIU 4.2.1, once, in a cache outside the tree.
# Installs by apt what building it and the tests needs and this machine lacks.
# usage: test-host.sh [--lxc 5|6|7|stock] [--path]  make it, print its versions and its path; --path only prints the path
#        test-host.sh --systemd [--path]        not the host but the root of a container to try in it, Debian 13
#        test-host.sh --workloads [--path]      the same with servers, and sysvinit, runit and systemd beside each other
#        test-host.sh --openrc [--path]         that with OpenRC, which cannot be beside sysvinit's own scripts
#        test-host.sh --programs GROUP [--path] Debian 13 with a group of servers of tests/system/program/list.txt
# --lxc: Debian 12 with LXC 5.0, or Debian 13 with LXC 6.0, and forky's CRIU; stock: Debian 13 with its own CRIU 4.1.
set -eu

suite=forky
tools=apparmor,lxcfs,iproute2,iptables,nftables,mount,busybox-static,procps,iputils-ping,strace
packages=lxc,criu,$tools
versions_of='lxc criu libc6'
arguments=0 pinned='' programs=''
case "${1-} ${2-}" in
"--lxc 7") arguments=2 ;;
"--lxc 6") suite=trixie arguments=2 pinned=criu ;;
"--lxc stock") suite=trixie arguments=2 ;;
"--lxc 5") suite=bookworm arguments=2 pinned=criu ;;
"--lxc "*) echo "test-host: LXC 5, 6, 7 or stock?" >&2; exit 2 ;;
"--systemd "*)
    suite=trixie arguments=1
    # What a user's container has: logins, timers, and services that shut themselves in namespaces.
    packages=systemd-sysv,dbus,libpam-systemd,systemd-timesyncd,cron,procps,iproute2,iputils-ping
    versions_of='systemd libc6'
    ;;
"--workloads "* | "--openrc "*)
    suite=trixie arguments=1
    # What people run, and the programs that it is run by. No program is started while they are installed: mmdebstrap
    # sees to that. systemd is there without being /sbin/init.
    packages=nginx-light,redis-server,postgresql,memcached,openssh-server,openssh-client,python3,nodejs
    packages=$packages,default-jre-headless,tmux,vim-tiny,rsyslog,cron,sysvinit-core,orphan-sysvinit-scripts,systemd,dbus
    packages=$packages,runit,procps,iproute2,mount
    if [ "$1" = --openrc ]; then packages=$packages,openrc; fi
    versions_of='nginx redis-server postgresql-17 memcached openssh-server nodejs default-jre-headless'
    ;;
--programs\ *)
    suite=trixie arguments=2 programs=yes
    list=$(dirname "$0")/../tests/system/program/list.txt
    packages=$(awk -F ' [|] ' -v group="$2" '" " $1 " " ~ " " group " " && $3 != "-" { gsub(" ", ",", $3); print $3 }' "$list" | paste -s -d ,)
    [ -n "$packages" ] || { echo "test-host: no group '$2' in $list" >&2; exit 2; }
    versions_of='systemd libc6'
    ;;
esac
shift "$arguments"
recipe=$(printf '%s' "1 $suite $packages ${pinned:+$pinned }$(dpkg --print-architecture)" | sha256sum | cut -c1-12)
cache=${LXC_CR_CACHE:-/var/cache/lxc-cr}
dir=$cache/$suite-$recipe
if [ "${1-}" = --path ]; then echo "$dir/root"; exit 0; fi

say() { echo "test-host: $*"; }
fail() { say "$*" >&2; exit 1; }

# cc and libc6-dev link the static witness; the keyring is not on every Ubuntu.
"$(dirname "$0")/apt.sh" mmdebstrap debian-archive-keyring gcc libc6-dev make
rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")
help="install Rust $rust or later from https://rustup.rs, then try again"
if ! command -v cargo >/dev/null; then
    # Debian 13 and Ubuntu have rustup. Debian 12 has not, but a new Rust, for its browsers.
    "$(dirname "$0")/apt.sh" rustup || "$(dirname "$0")/apt.sh" cargo-web rustc-web rustfmt-web ||
        fail "no cargo, and none to be had by apt: $help"
fi
# rustup's cargo is none before it has a toolchain.
cargo --version >/dev/null 2>&1 || { command -v rustup >/dev/null && rustup default stable; } || fail "cargo does not work: $help"
found=$(cargo --version | cut -d ' ' -f 2)
[ "$(printf '%s\n' "$rust" "$found" | sort -V | head -n 1)" = "$rust" ] || fail "cargo is of Rust $found: $help"
if [ "$(id -u)" != 0 ]; then say "not root: the tests that need the test host will be skipped"; exit 0; fi

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -d "$dir" ]; then
    # A mirror that this machine uses already, unless it is a snapshot, which may be older than what we need.
    # shellcheck disable=SC2016 # apt's own variables
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' |
        grep -v snapshot | head -n 1)
    mirror=${mirror:-http://deb.debian.org/debian}
    say "making a Debian $suite root in $dir from $mirror (half a minute)"
    new=$(mktemp -d "$cache/new.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    chmod 755 "$new"
    # The Release file of a frozen mirror may have expired; its signature is still checked.
    bootstrap() {
        mmdebstrap --quiet --mode=root --variant=apt --components=main --aptopt='Acquire::Check-Valid-Until "false"' "$@"
    }
    set --
    if [ -n "$programs" ]; then
        # Packages are kept for the next such root. No server starts by itself: a trial starts those that it is about.
        mkdir -p "$cache/debs"
        # shellcheck disable=SC2016 # mmdebstrap's shell expands them
        set -- --skip=cleanup/apt --skip=download/empty --skip=essential/unlink \
            --setup-hook="mkdir -p \"\$1/var/cache/apt/archives\"; mount --bind '$cache/debs' \"\$1/var/cache/apt/archives\"" \
            --customize-hook='umount "$1/var/cache/apt/archives"; rm -rf "$1"/var/lib/apt/lists/*' \
            --customize-hook='rm -rf "$1"/etc/systemd/system/*.wants "$1"/etc/systemd/system/*.requires "$1"/etc/rc?.d/S*'
    fi
    # Of forky, CRIU and the libraries that it alone needs. Debian 12's libc is too old for it and goes along.
    # shellcheck disable=SC2016 # mmdebstrap's shell expands them
    case "$suite $pinned" in
    "trixie criu")
        pins='Package: *\nPin: release n=forky\nPin-Priority: -10\n\nPackage: src:criu src:libnl3 src:libnet\nPin: release n=forky\nPin-Priority: 990\n'
        bootstrap --include="$packages" \
            --setup-hook="mkdir -p \"\$1/etc/apt/preferences.d\"; printf '$pins' > \"\$1/etc/apt/preferences.d/criu\"" \
            "$suite" "$new/root" "deb $mirror $suite main" "deb $mirror forky main" ;;
    "bookworm criu")
        pins='Package: *\nPin: release n=forky\nPin-Priority: 100\n'
        bootstrap --include="$(echo "$packages" | sed 's/criu,//')" \
            --setup-hook="mkdir -p \"\$1/etc/apt/preferences.d\"; printf '$pins' > \"\$1/etc/apt/preferences.d/criu\"" \
            --customize-hook='chroot "$1" apt-get -q -y install --no-install-recommends -t forky criu' \
            "$suite" "$new/root" "deb $mirror $suite main" "deb $mirror forky main" ;;
    *) bootstrap "$@" --include="$packages" "$suite" "$new/root" "$mirror" ;;
    esac ||
    { [ "$suite" = forky ] || fail "mmdebstrap did not do it"
      say "mmdebstrap did not do it, trying debootstrap"
      rm -rf "$new/root"
      apt-get -q -y install --no-install-recommends debootstrap
      # An older debootstrap has no script of that name; sid's serves.
      debootstrap --variant=minbase --include="$packages" "$suite" "$new/root" "$mirror" /usr/share/debootstrap/scripts/sid; }
    mv "$new" "$dir"
fi
# shellcheck disable=SC2016,SC2086 # dpkg-query's own variables, and a list of words
say "$(chroot "$dir/root" dpkg-query -W -f '${Package} ${Version}, ' $versions_of | sed 's/, $//') in $dir/root"
