#!/bin/sh
# Servers as Debian packages them: runs tests/system/programs.rs, which prints what came of each, and the counts.
# With --write its table becomes docs/programs.md.
# usage: test-programs.sh [--write] [--debug] [NAME...]
# NAMEs: the others stay as they were.
set -eu

cd "$(dirname "$0")/.."
write='' flags=--release
while :; do
    case ${1-} in
    --write) write=yes ;;
    --debug) flags= ;;
    *) break ;;
    esac
    shift
done
packaging/test-host.sh
packaging/test-host.sh --programs main
packaging/test-host.sh --programs other
logs=target/system/logs/programs
[ $# -gt 0 ] || rm -f "$logs/outcomes"
failed=
# shellcheck disable=SC2086 # no word, or one
cargo test $flags --test programs -- "$@" || failed=yes
if [ -n "$write" ]; then mkdir -p docs && cp "$logs/programs.md" docs/programs.md; fi
[ -z "$failed" ]
