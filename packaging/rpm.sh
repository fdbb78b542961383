#!/bin/sh
# Makes an RPM package, in target/PROFILE/packages, of what `make build doc` has made: the same files as in the .deb.
# usage: rpm.sh [PROFILE]
set -eu

profile=${1:-release}
tree=$(cd "$(dirname "$0")/.." && pwd)
packages=$tree/target/$profile/packages
command -v rpmbuild >/dev/null || { echo "rpm: rpmbuild is missing: apt install rpm, or dnf install rpm-build" >&2; exit 1; }
version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$tree/Cargo.toml")
# All files get the changelog's date: the same tree makes the same package.
SOURCE_DATE_EPOCH=$(date -d "$(sed -n 's/^ -- .*>  //p;/^ -- /q' "$tree/packaging/debian/changelog")" +%s)
export SOURCE_DATE_EPOCH

rm -rf "$packages/rpmbuild" "$packages"/lxc-cr-*.rpm
mkdir -p "$packages/rpmbuild"
rpmbuild -bb --define "_topdir $packages/rpmbuild" --define "_tree $tree" --define "_profile $profile" \
    --define "_version $version" --define "_rpmdir $packages" --define "_rpmfilename %%{name}-%%{version}-%%{release}.%%{arch}.rpm" \
    --define "_buildhost localhost" --define "use_source_date_epoch_as_buildtime 1" \
    --define "clamp_mtime_to_source_date_epoch 1" --define "_libexecdir /usr/libexec" \
    "$tree/packaging/rpm/lxc-cr.spec" >"$packages/rpm.log" 2>&1 || { cat "$packages/rpm.log" >&2; exit 1; }
rm -rf "$packages/rpmbuild" "$packages/rpm.log"
ls "$packages"/lxc-cr-*.rpm
