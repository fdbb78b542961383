#!/bin/sh
# Installs, upgrades, removes and purges the package over LXC, in the test host: `test-packages.sh` runs this there.
# Every step is looked at from outside: what files there are, and what the commands say.
# usage: test-install.sh DIRECTORY
set -eu

packages=$1
umask 022
work=$(mktemp -d)
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH DEBIAN_FRONTEND=noninteractive

step() { echo "test-install: $*"; }
fail() { step "FAILED: $*" >&2; exit 1; }

# Everything but dpkg's own books.
files() {
    find / -xdev \( -path /proc -o -path /var/lib/dpkg -o -path /var/log -o -path /var/cache -o -path /tmp \
        -o -path /srv \) -prune -o -printf '%y %m %u:%g %l %p ' \( -type f -printf '%s\n' -o -printf '\n' \) | sort
    sha256sum /usr/bin/lxc-checkpoint* /usr/share/man/man1/lxc-checkpoint* /etc/lxc/*
}
same() { diff -u "$1" "$2" || fail "$3"; }
says() { "$1" --version | grep -qx "$2" || fail "$1 --version: $("$1" --version)"; }
ours() {
    says /usr/bin/lxc-checkpoint 'lxc-checkpoint 0\.[0-9.]*'
    says lxc-checkpoint 'lxc-checkpoint 0\.[0-9.]*'
    says lxc-restart 'lxc-restart 0\.[0-9.]*'
    says lxc-cr 'lxc-cr 0\.[0-9.]*'
    says lxc-checkpoint.distrib "$lxc"
}

set -- "$packages"/lxc-cr_*.deb
if [ $# != 1 ] || [ ! -e "$1" ]; then fail "not one package in $packages: $*"; fi
package=$1
lxc=$(lxc-checkpoint --version)
case $lxc in [0-9]*) ;; *) fail "lxc-checkpoint is not LXC's own: $lxc" ;; esac
# The test host has it for its own programs.
rmdir /var/lib/lxc-cr 2>/dev/null || true
files >"$work/before"

# The same with a lower version and another default, as the previous build.
dpkg-deb -R "$package" "$work/old"
sed -i 's/^Version: .*/Version: 0.0.9/' "$work/old/DEBIAN/control"
sed -i 's/^timeout = 0/timeout = 11/' "$work/old/etc/lxc/lxc-cr.toml"
sum=$(cd "$work/old" && md5sum etc/lxc/lxc-cr.toml)
sed -i "s|^.*  etc/lxc/lxc-cr.toml|$sum|" "$work/old/DEBIAN/md5sums"
dpkg-deb --root-owner-group -b "$work/old" "$work/old.deb" >/dev/null

step "install over LXC $lxc"
dpkg -i "$package" >"$work/log" 2>&1 || { cat "$work/log"; fail "install"; }
ours
files >"$work/installed"

step "suspend and resume a container"
lxc-start -n test-lxc
lxc-wait -n test-lxc -s RUNNING -t 20
init=$(lxc-info -n test-lxc -pH)
[ -n "$init" ] || fail "the container does not run"
/usr/bin/lxc-checkpoint -n test-lxc
[ "$(lxc-info -n test-lxc -sH)" = STOPPED ] || fail "it is not suspended"
lxc-restart -n test-lxc
[ "$(lxc-info -n test-lxc -sH)" = RUNNING ] || fail "it does not run again"
lxc-stop -k -n test-lxc

step "remove: LXC's own is back, the settings stay, and prepared containers are known and start"
cp /var/lib/lxc/test-lxc/config "$work/config"
lxc-cr prepare -n test-lxc --init busybox >"$work/log" 2>&1 || { cat "$work/log"; fail "prepare"; }
cp -a /var/lib/lxc/test-lxc /var/lib/lxc/renamed
sed -i 's|lxc/test-lxc/|lxc/renamed/|; s|= test-lxc$|= renamed|' /var/lib/lxc/renamed/config
lxc-start -n test-lxc
lxc-wait -n test-lxc -s RUNNING -t 20
lxc-start -n renamed
lxc-wait -n renamed -s RUNNING -t 20
lxc-checkpoint -n renamed >"$work/log" 2>&1 || { cat "$work/log"; fail "suspend"; }
dpkg -r lxc-cr >"$work/log" 2>&1 || { cat "$work/log"; fail "remove"; }
grep -q '^  renamed .*suspended' "$work/log" || { cat "$work/log"; fail "a suspended container is not named"; }
[ "$(lxc-info -n test-lxc -sH)" = RUNNING ] || fail "LXC does not know the container any more"
[ "$(lxc-ls -1 | grep -c -e '^test-lxc *$' -e '^renamed *$')" = 2 ] || fail "lxc-ls does not list them"
lxc-stop -k -n test-lxc
for name in test-lxc renamed; do
    lxc-start -n $name
    lxc-wait -n $name -s RUNNING -t 20
    lxc-stop -k -n $name
done
says /usr/bin/lxc-checkpoint "$lxc"
[ -z "$(dpkg-divert --list lxc-cr)" ] || fail "diversions are left: $(dpkg-divert --list lxc-cr)"
[ -e /etc/lxc/lxc-cr.toml ] || fail "the settings are gone after a removal"

step "purge: an include that a container names stays, and says so"
dpkg -P lxc-cr >"$work/log" 2>&1 || { cat "$work/log"; fail "purge"; }
grep -q 'lxc-cr.conf stays: .*/renamed/config' "$work/log" || { cat "$work/log"; fail "nothing is said of the include"; }
lxc-info -n renamed -s >"$work/log" 2>&1 || { cat "$work/log"; fail "LXC does not know the container any more"; }
rm -rf /var/lib/lxc/renamed /var/lib/lxc/test-lxc/lxc-cr.prepare
cp "$work/config" /var/lib/lxc/test-lxc/config

step "purge: all is as before"
dpkg -i "$package" >"$work/log" 2>&1 || { cat "$work/log"; fail "install again"; }
dpkg -P lxc-cr >"$work/log" 2>&1 || { cat "$work/log"; fail "purge"; }
# What a container that has run leaves in any case.
rm -rf /run/lxc /run/lock/lxc /run/criu.kdat /var/lib/lxc/test-lxc/dump
files >"$work/after"
same "$work/before" "$work/after" "files differ after a purge"

step "upgrade from the previous build: changed settings stay"
dpkg -i "$work/old.deb" >"$work/log" 2>&1 || { cat "$work/log"; fail "install the previous build"; }
ours
echo 'bridge = "lxcbr0"' >"$work/mine"
sed -i -f - /etc/lxc/lxc-cr.toml <<'END'
s/^bridge = .*/bridge = "mybr0"/
END
sum=$(md5sum /etc/lxc/lxc-cr.toml)
dpkg --force-confdef --force-confold -i "$package" >"$work/log" 2>&1 || { cat "$work/log"; fail "upgrade"; }
ours
[ "$(md5sum /etc/lxc/lxc-cr.toml)" = "$sum" ] || fail "the settings were changed by an upgrade"
[ "$(dpkg-divert --list lxc-cr | wc -l)" = 3 ] || fail "diversions: $(dpkg-divert --list lxc-cr)"

step "unchanged settings follow the package"
dpkg -P lxc-cr >"$work/log" 2>&1
dpkg -i "$work/old.deb" >"$work/log" 2>&1
dpkg -i "$package" >"$work/log" 2>&1 || { cat "$work/log"; fail "upgrade"; }
grep -qx 'timeout = 0' /etc/lxc/lxc-cr.toml || fail "the settings did not follow"
files >"$work/upgraded"
same "$work/installed" "$work/upgraded" "an upgrade leaves other files than an installation"

step "LXC is installed anew: its program stays aside"
# Its package, put together from what dpkg knows and what is installed.
mkdir -p "$work/lxc/DEBIAN" "$work/lxc/usr/bin"
dpkg-query -s lxc | sed '/^Conffiles:/,/^[^ ]/{/^Conffiles:/d;/^ /d};/^Status:/d' >"$work/lxc/DEBIAN/control"
echo '#!/bin/sh' >"$work/lxc/usr/bin/lxc-checkpoint"
dpkg-deb --root-owner-group -b "$work/lxc" "$work/lxc.deb" >/dev/null
(dpkg -i "$work/lxc.deb" >"$work/log" 2>&1) || { cat "$work/log"; fail "install LXC anew"; }
says /usr/bin/lxc-checkpoint 'lxc-checkpoint 0\.[0-9.]*'
[ "$(cat /usr/bin/lxc-checkpoint.distrib)" = '#!/bin/sh' ] || fail "LXC's new program is not aside"

rm -rf "$work"
step "passed"
