#!/bin/bash
# The client of a server, in the same container. See list.txt for the kinds.
# usage: client.sh once KIND PORT TEXT PATTERN          asks on a connection of its own
#        client.sh hold ID KIND PORT TEXT PATTERN       and again on the same one at each line into /run/client/ID;
#                                                       a line for each answer goes into /run/client/ID.out
set -u
how=$1
shift
if [ "$how" = hold ]; then id=$1; shift; fi
kind=$1 port=$2 text=$3 pattern=$4

say() { echo "$*"; if [ "$how" = hold ]; then echo "$*" >> "/run/client/$id.out"; fi; }
fail() { say "bad: $*"; exit 1; }
open() {
    for address in 127.0.0.1 ::1 "$(hostname -I | cut -d ' ' -f 1)"; do
        # No word of a refusal: the next address may do.
        { exec 3<>"/dev/$1/$address/$port"; } 2>/dev/null && return
    done
    fail "no connection to port $port"
}
# What comes at once, in one piece.
receive() { timeout "$1" dd bs=65536 count=1 <&3 2>/dev/null | tr -d '\0\r' | head -c 4096; return "${PIPESTATUS[0]}"; }
answer() {
    local got
    got=$(receive 10)
    printf '%s' "$got" | grep -aqE -- "$pattern" || fail "no $pattern in '$(printf '%s' "$got" | tr -c '[:print:]' ' ' | cut -c 1-120)'"
}
ask() {
    case $kind in greets) return ;; esac
    # What was left of the answer before.
    while receive 0.2 | grep -q .; do :; done
    printf '%b' "$text" >&3 || fail "cannot write"
    answer
}
begin() {
    case $kind in
    datagram) open udp; printf '%b' "$text" >&3; answer ;;
    greets) open tcp; [ "$pattern" = '^$' ] || answer ;;
    *) open tcp; ask ;;
    esac
}

begin
say good
[ "$how" = hold ] || exit 0
while read -r _ < "/run/client/$id"; do
    case $kind in
    # A server that says nothing more is still there; one that has closed it is not.
    greets) receive 0.3 > /dev/null; [ $? = 124 ] || fail "the connection is closed" ;;
    *) ask ;;
    esac
    say good
done
