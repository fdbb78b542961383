#!/bin/sh
# Looks at the scripts, the completions, the manuals, the units and the .deb with the tools of their trades, when
# `make build doc` is done. A tool that is missing is told of; with CI set that is a failure.
# usage: lint.sh [PROFILE]
set -eu

profile=${1:-release}
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
step() { echo "lint: $*"; }
fail() { step "FAILED: $*" >&2; exit 1; }
# Begins a step, by its name, that needs these tools.
begin() {
    what=$1
    shift
    for tool in "$@"; do
        command -v "$tool" >/dev/null && continue
        [ -z "${CI-}" ] || fail "$what: $tool is missing"
        step "$what: LEFT OUT, $tool is missing"
        return 1
    done
    step "$what"
}

if begin "scripts" shellcheck; then
    shellcheck packaging/*.sh packaging/debian/lxc-cr.p*
    shellcheck --shell=bash .ci/run target/doc-out/bash/*
fi

if begin "completions of zsh" zsh; then
    for file in target/doc-out/zsh/*; do zsh -n "$file"; done
fi
if begin "completions of fish" fish; then
    for file in target/doc-out/fish/*; do [ -z "$(fish --no-config -c "source $file" 2>&1)" ] || fail "$file"; done
fi

if begin "manuals" man; then
    for file in target/doc-out/man/*; do
        told=$(LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z "$file" 2>&1 >/dev/null)
        [ -z "$told" ] || fail "$file: $told"
    done
fi

if begin "units" systemd-analyze; then
    mkdir "$work/lxc@.service.d"
    # The programs need not be installed here, nor LXC's unit that ours adds to.
    for unit in packaging/systemd/*; do
        to=$work/${unit##*/}
        [ "$unit" != packaging/systemd/lxc@.conf ] || to=$work/lxc@.service.d/lxc-cr.conf
        sed -e 's|@BINDIR@/lxc-[a-z]*|/bin/true|' -e 's|=lxc-wait|=/bin/true|' "$unit" >"$to"
    done
    printf '[Service]\nExecStart=/bin/true\n' >"$work/lxc@.service"
    told=$(systemd-analyze verify --man=no "$work"/*.service 2>&1) || fail "systemd-analyze: $told"
    [ -z "$told" ] || fail "systemd-analyze: $told"
fi

if begin "the Debian package" dh lintian; then
    packaging/deb.sh "$profile"
    # New packages close a bug of Debian's; ours is not Debian's.
    lintian --fail-on error,warning --pedantic --suppress-tags initial-upload-closes-no-bugs \
        "target/$profile/packages"/lxc-cr_*.deb
fi
