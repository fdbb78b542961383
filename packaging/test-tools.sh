#!/bin/sh
# LXC's tools on a container that LXC has started and on the same one restored by us, with each LXC: runs the trials
# that compare them and prints the table. With --write it becomes tests/system/TOOLS.md.
# usage: test-tools.sh [--write] [PROFILE]
set -eu

cd "$(dirname "$0")/.."
write=
if [ "${1-}" = --write ]; then write=yes; shift; fi
profile=${1:-release}
flags=
[ "$profile" = debug ] || flags=--release
hosts='7 6 5'
# On a machine with the hierarchies of v1 beside cgroup2, where LXC 5 and 6 run, too.
if grep -q ' - cgroup cgroup ' /proc/self/mountinfo; then hosts="$hosts 6-hybrid 5-hybrid"; fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=
for host in $hosts; do
    layout=unified
    case $host in *-hybrid) layout=hybrid ;; esac
    packaging/test-host.sh --lxc "${host%-hybrid}" >"$work/made"
    rm -rf target/system/logs/tools
    # shellcheck disable=SC2086 # no word, or one
    LXC_CR_TEST_LXC=${host%-hybrid} LXC_CR_TEST_CGROUP=$layout cargo test $flags --test system -- lxcs_tools \
        >"$work/log" 2>&1 || { cat "$work/log" >&2; failed=yes; }
    sed -n 's/^test host: kernel [^,]*, \(LXC [^,]*\),.*/\1/p' "$work/log" | sed "s/\$/${host#"${host%-hybrid}"}/" >"$work/name.$host"
    cat target/system/logs/tools/answers target/system/logs/tools/ends target/system/logs/tools/checkpoint >"$work/rows.$host"
done

table() {
    echo "# LXC's tools on a container that LXC has started, and on the same one restored by us"
    echo
    # shellcheck disable=SC2016 # Markdown
    echo 'Made by `packaging/test-tools.sh --write`, which runs the trials of `scenario/tools.rs`. *same*: exit code and all words'
    echo 'on both streams are equal, but for pids, counters and names of interfaces; the exit code is that of both.'
    echo '*hybrid*: with the hierarchies of cgroup v1 beside cgroup2; LXC 7 starts no containers there.'
    echo
    printf '| command |'
    for host in $hosts; do printf ' %s |' "$(sed 's/-hybrid/, hybrid/' "$work/name.$host")"; done
    printf '\n|---|'
    for host in $hosts; do printf -- '---|'; done
    echo
    first=${hosts%% *}
    number=0
    cut -f 1 "$work/rows.$first" | while IFS= read -r command; do
        number=$((number + 1))
        # shellcheck disable=SC2016 # Markdown
        printf '| `%s` |' "$(printf %s "$command" | sed 's/|/\\|/g')"
        for host in $hosts; do printf ' %s |' "$(sed -n "${number}p" "$work/rows.$host" | cut -f 2)"; done
        echo
    done
}
table >"$work/table"
cat "$work/table"
if [ -n "$write" ]; then cp "$work/table" tests/system/TOOLS.md; fi
[ -z "$failed" ]
