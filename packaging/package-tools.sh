#!/bin/sh
# Installs by apt what makes the packages and looks at them; nothing where all is there.
set -eu

wanted=
for package in debhelper rpm lintian rpmlint busybox-static shellcheck man-db groff zsh fish systemd; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || wanted="$wanted $package"
done
[ -n "$wanted" ] || exit 0
echo "package-tools: apt-get install$wanted"
if [ "$(id -u)" != 0 ]; then echo "package-tools: only root can install them" >&2; exit 1; fi
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $wanted
