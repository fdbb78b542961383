#!/bin/sh
# Runs trials of tests/system in whole machines under qemu, with all that a container or a small virtual machine lacks:
# real cgroup2 controllers, all capabilities, soft-dirty tracking, AppArmor. Two of them side by side: Debian 13 as it is
# (its kernel, LXC and CRIU), and forky; in both, servers of other users than root run without an id map.
# usage: test-vm.sh [FILTER...]     the trials whose names hold a FILTER; without one, those chosen below
set -eu

# What a kernel of another kind can change; the rest is tested on this one.
chosen_trixie='suspended_container what_the_host_lends network_settings all_of_lxcs_tools a_reboot_inside builds_on_copies'
chosen_forky='suspended_container a_container_left_running a_container_is_replaced a_frozen_container it_stops_in_every_way lxcs_own_checkpoint builds_on_copies precopy apparmor'
# Of tests/system/workloads.rs.
servers='nginx redis postgresql memcached'

here=$(cd "$(dirname "$0")/.." && pwd)
cache=${LXC_CR_CACHE:-/var/cache/lxc-cr}
memory=2048
modules='virtio_pci virtio_blk ext4 virtio_rng veth bridge overlay tun dummy macvlan nf_tables nf_conntrack_netlink ip_tables ip6_tables inet_diag raw_diag tcp_diag udp_diag unix_diag netlink_diag af_packet_diag'
say() { echo "test-vm: $*"; }
fail() { say "$*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "only root can make a machine's disk"

"$here/packaging/test-host.sh"
"$here/packaging/test-host.sh" --lxc stock
"$here/packaging/test-host.sh" --workloads
"$here/packaging/apt.sh" qemu-system-x86 e2fsprogs busybox-static cpio xz-utils kmod
# shellcheck disable=SC2016 # apt's own variables
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' |
    grep -v snapshot | head -n 1)
mirror=${mirror:-http://deb.debian.org/debian}

# A suite's kernel, only unpacked.
unpack_kernel() {
    kernel=$cache/kernel-$1
    [ ! -d "$kernel" ] || return 0
    say "unpacking the kernel of Debian $1 into $kernel from $mirror"
    new=$(mktemp -d "$cache/new.XXXXXX")
    mmdebstrap --quiet --mode=root --variant=extract --components=main --aptopt='Acquire::Check-Valid-Until "false"' \
        --include=linux-image-cloud-amd64 "$1" "$new/root" "$mirror"
    depmod -b "$new/root/usr" "$(basename "$(echo "$new"/root/usr/lib/modules/*)")"
    mv "$new/root" "$kernel"
    rmdir "$new"
}
unpack_kernel trixie
unpack_kernel forky

# The programs, and the trials with them.
cd "$here"
cargo build --release --bins
built() {
    cargo test --release --no-run --test "$1" 2>&1 | sed -n "s|.*(\(target/release/deps/$1-[0-9a-f]*\)).*|\1|p" | tail -n 1
}
trials=$(built system)
workloads=$(built workloads)
for program in "$trials" "$workloads"; do [ -x "$program" ] || fail "the trials were not built"; done
# Builds the programs that run in containers, which needs a compiler.
"$trials" --exact dry_run_prints_and_changes_nothing > /dev/null
LXC_CR_WORKLOADS_OURS=1 "$workloads" 'one program, privileged' eventfd > /dev/null

work=$(mktemp -d /var/tmp/lxc-cr-vm.XXXXXX)
# Machines in the background do not hear a Ctrl-C.
clean_up() {
    for pid in "$work"/*/pid; do [ ! -f "$pid" ] || kill "$(cat "$pid")" || true; done
    umount "$work"/*/root 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

# What is the same in all of them: the tree with its programs, and what the machine does.
# usage: make_machine SUITE LXC    with the commands in $work/SUITE.todo
make_machine() {
    suite=$1 lxc=$2 dir=$work/$1
    root=$("$here/packaging/test-host.sh" --lxc "$lxc" --path)
    mkdir -p "$dir/upper" "$dir/work" "$dir/root" "$dir/initrd"
    mount -t overlay overlay -o "lowerdir=$root,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
    of_containers=$("$here/packaging/test-host.sh" --workloads --path)
    mkdir -p "$dir/root$here/target/release/deps" "$dir/root$here/target/system" "$dir/root$root" "$dir/root$of_containers"
    cp -a packaging tests lxc-config "$dir/root$here/"
    cp -a "$trials" "$workloads" "$dir/root$here/target/release/deps/"
    find target/release -maxdepth 1 -type f -perm /111 -exec cp -a {} "$dir/root$here/target/release/" \;
    for program in witness culprit object pattern hostile; do cp -a "target/system/$program" "$dir/root$here/target/system/"; done
    # It must not cover the tree.
    tmp='mount -t tmpfs tmpfs /tmp'
    case $here/ in /tmp/*) tmp='chmod 1777 /tmp' ;; esac
    cat > "$dir/root/init-trials" <<EOF
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root RUST_BACKTRACE=0 CI=1
export LXC_CR_SLOW=20 LXC_CR_TEST_LXC=$lxc LXC_CR_WORKLOADS_OURS=1
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm; mount -t devpts devpts /dev/pts; mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run; $tmp; mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security
ip link set lo up
for profiles in lxc-containers usr.bin.lxc-start; do apparmor_parser -rK /etc/apparmor.d/\$profiles; done
mount --bind / $root
[ ! -b /dev/vdb ] || mount -o ro /dev/vdb $of_containers
cd $here
failed=0
$(sed 's/$/ || failed=1/' "$work/$suite.todo")
[ \$failed = 0 ] || find target/system/logs -name '*.log' ! -name output.log -exec tail -n 25 {} +
echo "test-vm: failed=\$failed"
sync
echo o > /proc/sysrq-trigger
sleep 60
EOF
    chmod 755 "$dir/root/init-trials"
    mke2fs -q -t ext4 -d "$dir/root" "$dir/disk" 6G
    umount "$dir/root"
    make_initrd "$cache/kernel-$suite" "$dir"
}

make_initrd() {
    kernel=$1 dir=$2
    mkdir -p "$dir/initrd/bin" "$dir/initrd/new" "$dir/initrd/dev"
    cp /bin/busybox "$dir/initrd/bin/busybox"
    version=$(basename "$(echo "$kernel"/usr/lib/modules/*)")
    # In the order in which they can be loaded.
    for module in $modules; do
        modprobe -d "$kernel/usr" -S "$version" --show-depends "$module" || say "no module $module" >&2
    done | sed -n 's|^insmod ||p' | awk '!seen[$1]++ { print $1 }' | while read -r file; do
        name=$(basename "$file" .xz)
        case $file in *.xz) xz -dc "$file" ;; *) cat "$file" ;; esac > "$dir/initrd/$name"
        echo "$name" >> "$dir/initrd/modules"
    done
    cat > "$dir/initrd/init" <<'EOF'
#!/bin/busybox sh
b=/bin/busybox
while read -r module; do $b insmod /$module; done < /modules
$b mount -t devtmpfs dev /dev
$b mount -t ext4 /dev/vda /new
$b mount -o move /dev /new/dev
exec $b switch_root /new /init-trials
EOF
    chmod 755 "$dir/initrd/init"
    (cd "$dir/initrd" && find . | cpio -o -H newc --quiet) > "$dir/initrd.img"
}

# usage: run_machine SUITE    tells what it says, each line with its name before it
run_machine() {
    kernel=$cache/kernel-$1 dir=$work/$1
    image=$(find "$kernel" -name 'vmlinuz*' -type f | head -n 1)
    # Not KVM: where this runs inside a virtual machine it is often there, and does not work. More than one processor
    # makes qemu 7.2 crash its guests now and then.
    qemu-system-x86_64 -pidfile "$dir/pid" -M q35 -accel tcg -cpu max -smp 1 -m "$memory" -nodefaults -no-user-config -no-reboot -display none \
        -serial stdio -kernel "$image" -initrd "$dir/initrd.img" \
        -append "console=ttyS0 quiet panic=-1 nokaslr mitigations=off tsc=reliable random.trust_cpu=on" \
        -drive "file=$dir/disk,if=virtio,format=raw,cache=unsafe" \
        ${containers:+-drive "file=$containers,if=virtio,format=raw,readonly=on"} -device virtio-rng-pci < /dev/null |
        tee "$dir/said" | sed -u "s/^/$1: /; s/\r*\$//"
}

say "making their disks"
tried() { for filter in "$@"; do echo "$trials --color never $filter"; done; }
# As an administrator may have it, a container with an id map gets a userfaultfd.
lazily() { echo "echo 1 > /proc/sys/vm/unprivileged_userfaultfd; $trials --color never lazy_id_mapped"; }
# What a client waits for there is counted in minutes already.
served() { echo "LXC_CR_SLOW=4 $workloads '$1' $servers"; }
containers=
# shellcheck disable=SC2086 # lists of words
if [ $# -gt 0 ]; then
    tried "$@" | tee "$work/forky.todo" > "$work/trixie.todo"
else
    containers=$work/containers
    mke2fs -q -t ext4 -d "$("$here/packaging/test-host.sh" --workloads --path)" "$containers" 2G
    { tried $chosen_trixie; served 'one program, privileged'; } > "$work/trixie.todo"
    { tried $chosen_forky; lazily; served 'systemd, privileged'; } > "$work/forky.todo"
fi
make_machine trixie stock
make_machine forky 7

say "starting them, $memory MiB each"
run_machine trixie &
run_machine forky &
wait
for suite in trixie forky; do
    grep -q 'test-vm: failed=0' "$work/$suite/said" || failed="${failed-} $suite"
done
[ -z "${failed-}" ] || fail "not all trials passed on:$failed"
