#!/bin/sh
# What people run, in containers of every kind, by our commands and by LXC's own tool: runs tests/system/workloads.rs,
# which prints the table. With --write it becomes tests/system/WORKLOADS.md.
# usage: test-workloads.sh [--write] [--debug] [KIND [ROW...]]
# KIND, ROWs: the other cells stay as they were.
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
packaging/test-host.sh --workloads
packaging/test-host.sh --openrc
logs=target/system/logs/workloads
[ $# -gt 0 ] || rm -f "$logs/outcomes"
failed=
# shellcheck disable=SC2086 # no word, or one
cargo test $flags --test workloads -- "$@" || failed=yes
if [ -n "$write" ]; then cp "$logs/table.md" tests/system/WORKLOADS.md; fi
[ -z "$failed" ]
