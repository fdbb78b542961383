#!/bin/sh
# Runs trials of tests/system in a whole machine: Debian 13's kernel under qemu, with all that a container or a small
# virtual machine lacks: real cgroup2 controllers, all capabilities, soft-dirty tracking, AppArmor.
# usage: test-vm.sh [FILTER...]     the trials whose names hold a FILTER; without one, those chosen below
set -eu

# What a kernel of another kind can change; the rest is tested on this one.
chosen='suspended_container a_container_left_running a_frozen_container what_the_host_lends network_settings all_of_lxcs_tools it_stops_in_every_way a_reboot_inside lxcs_own_checkpoint builds_on_copies apparmor'

here=$(cd "$(dirname "$0")/.." && pwd)
cache=${LXC_CR_CACHE:-/var/cache/lxc-cr}
memory=2048
modules='virtio_pci virtio_blk ext4 virtio_rng veth bridge overlay tun dummy macvlan nf_tables nf_conntrack_netlink ip_tables ip6_tables inet_diag raw_diag tcp_diag udp_diag unix_diag netlink_diag af_packet_diag'
say() { echo "test-vm: $*"; }
fail() { say "$*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "only root can make the machine's disk"

"$here/packaging/test-host.sh"
root=$("$here/packaging/test-host.sh" --path)

"$here/packaging/apt.sh" qemu-system-x86 e2fsprogs busybox-static cpio xz-utils kmod

# The kernel, only unpacked.
kernel=$cache/kernel-trixie
if [ ! -d "$kernel" ]; then
    # shellcheck disable=SC2016 # apt's own variables
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' |
        grep -v snapshot | head -n 1)
    mirror=${mirror:-http://deb.debian.org/debian}
    say "unpacking Debian 13's kernel into $kernel from $mirror"
    new=$(mktemp -d "$cache/new.XXXXXX")
    mmdebstrap --quiet --mode=root --variant=extract --components=main --include=linux-image-cloud-amd64 trixie "$new/root" "$mirror"
    depmod -b "$new/root/usr" "$(basename "$(echo "$new"/root/usr/lib/modules/*)")"
    mv "$new/root" "$kernel"
    rmdir "$new"
fi
version=$(basename "$(echo "$kernel"/usr/lib/modules/*)")

# The programs, and the trials with them.
cd "$here"
cargo build --release --bins
trials=$(cargo test --release --no-run --test system 2>&1 | sed -n 's|.*(\(target/release/deps/system-[0-9a-f]*\)).*|\1|p' | tail -n 1)
[ -x "$trials" ] || fail "the trials were not built"
# Builds the programs that run in containers, which needs a compiler.
"$trials" --exact dry_run_prints_and_changes_nothing >/dev/null

work=$(mktemp -d /var/tmp/lxc-cr-vm.XXXXXX)
trap 'umount "$work/root" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
mkdir "$work/upper" "$work/work" "$work/root" "$work/initrd"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/work" "$work/root"

mkdir -p "$work/root$here/target/release/deps" "$work/root$here/target/system" "$work/root$root"
cp -a packaging tests lxc-config "$work/root$here/"
cp -a "$trials" "$work/root$here/target/release/deps/"
find target/release -maxdepth 1 -type f -perm /111 -exec cp -a {} "$work/root$here/target/release/" \;
cp -a target/system/witness target/system/culprit "$work/root$here/target/system/"
# shellcheck disable=SC2086 # a list of words
[ $# -gt 0 ] || set -- $chosen
cat > "$work/root/init-trials" <<EOF
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm; mount -t devpts devpts /dev/pts; mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp; mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security
ip link set lo up
for profiles in lxc-containers usr.bin.lxc-start; do apparmor_parser -rK /etc/apparmor.d/\$profiles; done
mount --bind / $root
cd $here
failed=0
for filter in $*; do
    RUST_BACKTRACE=0 CI=1 LXC_CR_SLOW=20 $trials --color never \$filter || failed=1
done
find target/system/logs -name '*.log' ! -name output.log -exec tail -n 25 {} +
echo "test-vm: failed=\$failed"
sync
echo o > /proc/sysrq-trigger
sleep 60
EOF
chmod 755 "$work/root/init-trials"
say "making its disk"
mke2fs -q -t ext4 -d "$work/root" "$work/disk" 3G

mkdir -p "$work/initrd/bin" "$work/initrd/new" "$work/initrd/dev"
cp /bin/busybox "$work/initrd/bin/busybox"
# In the order in which they can be loaded.
for module in $modules; do
    modprobe -d "$kernel/usr" -S "$version" --show-depends "$module" || say "no module $module" >&2
done | sed -n 's|^insmod ||p' | awk '!seen[$1]++ { print $1 }' | while read -r file; do
    name=$(basename "$file" .xz)
    xz -dc "$file" > "$work/initrd/$name"
    echo "$name" >> "$work/initrd/modules"
done
cat > "$work/initrd/init" <<'EOF'
#!/bin/busybox sh
b=/bin/busybox
while read -r module; do $b insmod /$module; done < /modules
$b mount -t devtmpfs dev /dev
$b mount -t ext4 /dev/vda /new
$b mount -o move /dev /new/dev
exec $b switch_root /new /init-trials
EOF
chmod 755 "$work/initrd/init"
(cd "$work/initrd" && find . | cpio -o -H newc --quiet) > "$work/initrd.img"

say "starting it: kernel $version, $memory MiB"
# Not KVM: where this runs inside a virtual machine it is often there, and does not work. More than one processor makes
# qemu 7.2 crash its guests now and then.
qemu-system-x86_64 -M q35 -accel tcg -cpu max -smp 1 -m "$memory" -nodefaults -no-user-config -no-reboot -display none \
    -serial stdio -kernel "$kernel/boot/vmlinuz-$version" -initrd "$work/initrd.img" \
    -append "console=ttyS0 quiet panic=-1 nokaslr mitigations=off tsc=reliable random.trust_cpu=on" \
    -drive "file=$work/disk,if=virtio,format=raw,cache=unsafe" -device virtio-rng-pci < /dev/null | tee "$work/said"
grep -q 'test-vm: failed=0' "$work/said" || fail "not all of its trials passed"
