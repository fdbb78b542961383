#!/bin/sh
# Looks at all that is packaged (lint.sh), then installs and removes: the packages over LXC, the .deb in the test host, and
# `make install` below a directory.
# usage: test-packages.sh [PROFILE]
set -eu

profile=${1:-release}
tree=$(cd "$(dirname "$0")/.." && pwd)
packages=$tree/target/$profile/packages
cd "$tree"
step() { echo "test-packages: $*"; }
fail() { step "FAILED: $*" >&2; exit 1; }

packaging/lint.sh "$profile"

step "the RPM package, in a root of its own"
packaging/test-rpm.sh "$packages"

step "make install, make uninstall"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/root/usr/local/bin" "$dir/root/usr/local/lib" "$dir/root/usr/local/share/man" "$dir/root/etc"
list() { (cd "$dir/root" && find . -printf '%y %m %p\n' | sort); }
umask 027
list >"$dir/before"
make -s install DESTDIR="$dir/root" PROFILE="$profile"
list >"$dir/installed"
"$dir/root/usr/local/bin/lxc-checkpoint" --version
if grep -rl '@[A-Z]*DIR@' "$dir/root"; then fail "a path was not filled in"; fi
make -s uninstall DESTDIR="$dir/root" PROFILE="$profile"
list | diff -u "$dir/before" - || fail "make uninstall leaves something"

step "the package, in the test host"
cp packaging/test-install.sh "$packages/"
build=
[ "$profile" = debug ] || build=--release
# shellcheck disable=SC2086 # nothing, or an option
cargo test --quiet $build --test system -- --shell /bin/sh /opt/lxc-cr/packages/test-install.sh /opt/lxc-cr/packages
