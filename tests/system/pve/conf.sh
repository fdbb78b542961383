# What the hooks of the Proxmox scene have in common: a container's definition in /etc/pve/lxc/ID.conf, as PVE writes it
# (`rootfs: VOLUME,…`, `mp0: VOLUME,mp=/mnt,ro=1`, `net0: name=eth0,bridge=vmbr0,…`, `dev0: /dev/null`).

log=/run/pve-hooks.log

# The call, in either version of LXC's hooks.
read_call() {
    if [ "${LXC_HOOK_VERSION:-0}" = 0 ]; then
        name=$1 section=$2 kind=$3
    else
        name=$LXC_NAME section=$LXC_HOOK_SECTION kind=$LXC_HOOK_TYPE
    fi
    conf=/etc/pve/lxc/$name.conf
    printf '%s %s target=%s mnt=%s\n' "$kind" "$name" "${LXC_TARGET:-}" "$(readlink /proc/self/ns/mnt)" >>$log
}

# The keys of a kind: mp0, mp1, …
keys() { sed -n "s/^\($1[0-9]*\): .*/\1/p" "$conf"; }
# The value of a key, and what stands before its first comma.
value() { sed -n "s/^$1: //p" "$conf"; }
volume() { value "$1" | cut -d, -f1; }
# One option of a key.
option() { value "$1" | tr , '\n' | sed -n "s/^$2=//p"; }

must() { "$@" >>$log 2>&1 || { echo "failed: $*" >&2; exit 1; }; }
