#!/bin/sh
# Looks at the packages, the manuals, the completions and the scripts with the tools of their trades, then installs and
# removes: the package over LXC in the test host, and `make install` below a directory.
# usage: test-packages.sh [PROFILE]
set -eu

profile=${1:-release}
tree=$(cd "$(dirname "$0")/.." && pwd)
packages=$tree/target/$profile/packages
cd "$tree"
step() { echo "test-packages: $*"; }
fail() { step "FAILED: $*" >&2; exit 1; }

step "shellcheck"
shellcheck packaging/*.sh packaging/debian/lxc-cr.p*
shellcheck --shell=bash target/doc-out/bash/*

step "completions"
for file in target/doc-out/zsh/*; do zsh -n "$file"; done
for file in target/doc-out/fish/*; do [ -z "$(fish --no-config -c "source $file" 2>&1)" ] || fail "$file"; done

step "man --warnings"
for file in target/doc-out/man/*; do
    told=$(LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z "$file" 2>&1 >/dev/null)
    [ -z "$told" ] || fail "$file: $told"
done

step "lintian"
# New packages close a bug of Debian's; ours is not Debian's.
lintian --fail-on error,warning --pedantic --suppress-tags initial-upload-closes-no-bugs "$packages"/lxc-cr_*.deb

step "the RPM package, in a root of its own"
packaging/test-rpm.sh "$packages"

step "systemd-analyze verify"
units=$(mktemp -d)
for unit in packaging/systemd/*.service; do
    # The programs need not be installed here.
    sed 's|@BINDIR@/lxc-cr|/bin/true|' "$unit" >"$units/${unit##*/}"
done
told=$(systemd-analyze verify --man=no "$units"/*.service 2>&1) || fail "systemd-analyze: $told"
rm -rf "$units"
[ -z "$told" ] || fail "systemd-analyze: $told"

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
