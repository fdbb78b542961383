#!/bin/sh
# Makes a Debian package, in target/PROFILE/packages, of what `make build doc` has made.
# usage: deb.sh [PROFILE]
set -eu

profile=${1:-release}
tree=$(cd "$(dirname "$0")/.." && pwd)
packages=$tree/target/$profile/packages
command -v dh >/dev/null || { echo "deb: debhelper is missing: apt install debhelper" >&2; exit 1; }

rm -rf "$packages/work" "$packages"/lxc-cr_*.deb
mkdir -p "$packages/work/lxc-cr"
cp -R "$tree/packaging/debian" "$packages/work/lxc-cr/debian"
cd "$packages/work/lxc-cr"
# All files get the changelog's date: the same tree makes the same package.
TREE=$tree PROFILE=$profile dpkg-buildpackage --build=binary --unsigned-changes --no-check-builddeps >../log 2>&1 ||
    { cat ../log >&2; exit 1; }
mv ../lxc-cr_*.deb "$packages/"
rm -rf "$packages/work"
ls "$packages"/lxc-cr_*.deb
