#!/bin/sh
# Installs by apt those of these packages that are missing, and says so; nothing where all are there.
# usage: apt.sh PACKAGE…
set -eu

wanted=
for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || wanted="$wanted $package"
done
[ -n "$wanted" ] || exit 0
[ "$(id -u)" = 0 ] || { echo "apt: these packages are missing and only root can install them:$wanted" >&2; exit 1; }
echo "apt: installing$wanted"
apt-get -q update
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $wanted
