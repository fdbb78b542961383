//! A Debian container as `lxc-create -t download` leaves it: LXC's own configuration, and a root
//! with systemd. The template's image needs a network; the root is debootstrap's.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::World;
use super::enter::{BRIDGE, SYSTEMD_ROOT, WITNESS};
use super::machine::Host;
use super::run::{Run, wait_for};
use super::witness::Witness;

/// Where the ids of an unprivileged container begin on the host.
const SHIFT: u32 = 100_000;
/// Where LXC's configuration files are.
const CONFIGS: &str = "/usr/share/lxc/config";
/// A copy of the root, and the boot of systemd in it.
const LIMIT: Duration = Duration::from_secs(40);
/// What its administrator has installed: an address, and a service that the host is connected to.
const UNITS: &[(&str, &str)] = &[
    (
        "address.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=ip addr add ADDRESS/24 dev eth0\n\
         ExecStart=ip link set eth0 up\n",
    ),
    (
        "witness.service",
        "[Unit]\nAfter=address.service\n[Service]\nExecStart=/usr/local/bin/witness 64\n",
    ),
];
/// Services whose processes are other users': without an id map the root of this host cannot read
/// their limits.
const OF_OTHERS: &[&str] =
    &["dbus.service", "dbus.socket", "systemd-logind.service", "systemd-timesyncd.service"];

/// The container.
#[derive(Debug)]
pub struct Template<'w> {
    world: &'w World,
    name: &'static str,
    address: Ipv4Addr,
}

impl<'w> Template<'w> {
    /// Without an id map, as root creates it.
    pub fn privileged(world: &'w World, name: &'static str, number: u8) -> Template<'w> {
        let container = Template::make(world, name, number, "");
        for unit in OF_OTHERS {
            symlink("/dev/null", container.units().join(unit)).unwrap();
        }
        container
    }

    /// With an id map.
    pub fn unprivileged(world: &'w World, name: &'static str, number: u8) -> Template<'w> {
        let ids = format!(
            "lxc.include = {CONFIGS}/userns.conf\nlxc.idmap = u 0 {SHIFT} 65536\nlxc.idmap = g 0 \
             {SHIFT} 65536\n"
        );
        let container = Template::make(world, name, number, &ids);
        shift_owners(&container.root(), SHIFT);
        container
    }

    fn make(world: &'w World, name: &'static str, number: u8, ids: &str) -> Template<'w> {
        assert!(
            Path::new(SYSTEMD_ROOT).join("usr").exists(),
            "no root of it: run packaging/test-host.sh --systemd"
        );
        let container = Template { world, name, address: Ipv4Addr::new(10, 99, 0, number) };
        fs::create_dir_all(container.dir()).unwrap();
        let root = container.root();
        Run::new("cp").args(["-a", SYSTEMD_ROOT]).arg(&root).limit(LIMIT).ok();
        fs::write(root.join("etc/machine-id"), "").unwrap();
        fs::copy(WITNESS, root.join("usr/local/bin/witness")).unwrap();
        fs::set_permissions(root.join("usr/local/bin/witness"), fs::Permissions::from_mode(0o755))
            .unwrap();
        let wanted = container.units().join("multi-user.target.wants");
        fs::create_dir_all(&wanted).unwrap();
        for (unit, text) in UNITS {
            let text = text.replace("ADDRESS", &container.address.to_string());
            fs::write(container.units().join(unit), text).unwrap();
            symlink(format!("../{unit}"), wanted.join(unit)).unwrap();
        }
        fs::write(
            container.config(),
            format!(
                "# Distribution configuration
lxc.include = {CONFIGS}/common.conf
{ids}lxc.arch = linux64

# Container specific configuration
lxc.apparmor.profile = generated
lxc.apparmor.allow_nesting = 1
lxc.rootfs.path = dir:{root}
lxc.uts.name = {name}

# Network configuration
lxc.net.0.type = veth
lxc.net.0.link = {BRIDGE}
lxc.net.0.flags = up
lxc.net.0.hwaddr = 00:16:3e:00:99:{number:02x}
",
                root = root.display()
            ),
        )
        .unwrap();
        container
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// `LXCPATH/NAME`.
    pub fn dir(&self) -> PathBuf {
        self.world.lxcpath().join(self.name)
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir().join("config")
    }

    fn root(&self) -> PathBuf {
        self.dir().join("rootfs")
    }

    fn units(&self) -> PathBuf {
        self.root().join("etc/systemd/system")
    }

    /// A command of LXC on it.
    pub fn lxc(&self, program: &str) -> Run {
        self.world.lxc(program, self.name)
    }

    /// One of our commands on it.
    pub fn ours(&self, program: &str) -> Run {
        self.world.ours(program, self.name)
    }

    /// A subcommand of `lxc-cr` on it.
    pub fn lxc_cr(&self, subcommand: &str) -> Run {
        self.world.lxc_cr(subcommand, self.name)
    }

    /// Waits until systemd in it is up: "running", or "degraded" where this kernel has not all that
    /// Debian's units want.
    pub fn wait_up(&self, host: &Host) -> String {
        let ask = || {
            let attach = self.lxc("lxc-attach").args(["--", "systemctl", "is-system-running"]);
            let state = host.in_it(attach).output().stdout.trim().to_owned();
            ["running", "degraded"].contains(&state.as_str()).then_some(state)
        };
        wait_for("systemd to be up", LIMIT, ask).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    /// A connection to its witness, as soon as it answers.
    pub fn witness(&self) -> Witness {
        Witness::connect(self.address)
    }
}

/// Gives a tree to the ids of an id map.
pub fn shift_owners(path: &Path, shift: u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    lchown(path, Some(meta.uid() + shift), Some(meta.gid() + shift)).unwrap();
    if !meta.is_symlink() {
        // The change of the owner has taken the set-user-id bit.
        fs::set_permissions(path, meta.permissions()).unwrap();
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            shift_owners(&entry.unwrap().path(), shift);
        }
    }
}
