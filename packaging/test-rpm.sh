#!/bin/sh
# Installs, upgrades and removes the RPM package over a package with LXC's name and files, in a root of its own.
# usage: test-rpm.sh DIRECTORY
set -eu

packages=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
step() { echo "test-rpm: $*"; }
fail() { step "FAILED: $*" >&2; exit 1; }
with_rpm() { rpm --root "$root" --nodeps "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "rpm $*"; }; }

set -- "$packages"/lxc-cr-*.rpm
if [ $# != 1 ] || [ ! -e "$1" ]; then fail "not one package in $packages: $*"; fi
package=$1

# What the package's scripts need, and rpm's books.
mkdir -p "$root/bin" "$root/usr/bin" "$root/etc" "$root/dev"
mknod -m 666 "$root/dev/null" c 1 3
cp "$(command -v busybox)" "$root/bin/busybox"
for tool in sh mv ln rm cp sed grep mkdir rmdir dirname basename; do ln -s busybox "$root/bin/$tool"; done
rpm --root "$root" --initdb

# LXC's files, with its version in each.
lxc() {
    cat >"$work/lxc.spec" <<END
Name: lxc
Version: $1
Release: 1
Summary: LXC's files
License: LGPL-2.1-or-later
BuildArch: noarch
%description
What ours takes the place of.
%install
for file in /usr/bin/lxc-checkpoint /usr/share/man/man1/lxc-checkpoint.1.gz /usr/share/bash-completion/completions/lxc-checkpoint; do
    mkdir -p %{buildroot}\$(dirname \$file)
    echo "LXC $1" >%{buildroot}\$file
done
%files
/usr
END
    rpmbuild -bb --define "_topdir $work/rpmbuild" --define "_rpmdir $work" --define '__os_install_post %{nil}' \
        --define '_rpmfilename %%{name}-%%{version}.rpm' "$work/lxc.spec" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "build"; }
}
lxc 6.0
lxc 7.0
files() { (cd "$root" && find usr etc \( -type f -o -type l \) -exec sha256sum {} + | sort -k 2); }
ours() {
    [ "$(readlink "$root/usr/bin/lxc-checkpoint")" = /usr/libexec/lxc-cr/instead/lxc-checkpoint ] || fail "lxc-checkpoint is not ours"
    [ "$(cat "$root/usr/bin/lxc-checkpoint.distrib")" = "LXC $1" ] || fail "LXC's own is not aside"
    "$root/usr/libexec/lxc-cr/instead/lxc-checkpoint" --version | grep -qx 'lxc-checkpoint 0\.[0-9.]*' || fail "it does not run"
    for file in usr/share/man/man1/lxc-checkpoint.1.gz usr/share/bash-completion/completions/lxc-checkpoint; do
        [ -e "$root$(readlink "$root/$file")" ] || fail "$file leads nowhere"
    done
}

step "rpmlint"
rpmlint --ignore-unused-rpmlintrc "$package" >"$work/lint" 2>&1 || true
# Not wanted: what a distribution adds when it signs and publishes a package, and a tag that RPM has given up. And the
# name of ours does not end with a language.
not_ours='no-signature|no-packager-tag|no-group-tag|no-dependency-on locales-cr|hardlink-across-partition'
if grep ' E: ' "$work/lint" | grep -Ev "$not_ours"; then fail "rpmlint"; fi

with_rpm -i "$work/lxc-6.0.rpm"
files >"$work/before"
step "install over LXC"
with_rpm -i "$package"
ours 6.0
step "LXC is upgraded: its program stays aside"
with_rpm -U "$work/lxc-7.0.rpm"
ours 7.0
step "the same again, as an upgrade"
with_rpm -U --force "$package"
ours 7.0
step "remove: what containers name stays"
mkdir -p "$root/var/lib/lxc/web"
printf 'lxc.include = %s\nlxc.seccomp.profile = %s\n' /usr/share/lxc/config/lxc-cr.conf \
    /usr/share/lxc-cr/systemd/no-bpf.seccomp >"$root/var/lib/lxc/web/config"
with_rpm -e lxc-cr
[ -s "$root/usr/share/lxc/config/lxc-cr.conf" ] || fail "an include that a container names is gone"
[ -s "$root/usr/share/lxc-cr/systemd/no-bpf.seccomp" ] || fail "a profile that a container names is gone"
[ ! -e "$root/usr/share/lxc/config/lxc-cr-systemd.conf" ] || fail "an include that no container names stays"
rm -rf "$root/var/lib/lxc/web"
with_rpm -i "$package"
ours 7.0
step "remove: all is as before"
with_rpm -e lxc-cr
with_rpm -U --oldpackage "$work/lxc-6.0.rpm"
files >"$work/after"
diff -u "$work/before" "$work/after" || fail "files differ after the removal"
step "passed"
