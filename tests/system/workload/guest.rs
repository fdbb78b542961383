//! A container of a kind, with the programs of some rows in it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::list::IO_URING;
use super::root::{self, LOGS, ROWS, SHIFT};
use super::{Kind, Place, Program, Row, Tool, boot};
use crate::harness::World;
use crate::harness::container::stock;
use crate::harness::enter::{APPARMOR, BRIDGE, OBJECT};
use crate::harness::installed::Installed;
use crate::harness::run::{Output, Run, wait_for};

/// For LXC to get a container from one state into another.
const STATE_LIMIT: Duration = Duration::from_secs(30);
/// A checkpoint or a restart of 4 GiB, by a debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);
/// The first port of the rows.
const PORT: u16 = 7100;
/// The host's end of the network, in IPv6.
pub const HOST6: &str = "fd99::1/64";
/// Of every kind of Debian; there is one at a time.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 80);
const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0x80);

/// A container that does not run yet.
pub struct Guest<'w> {
    world: &'w World,
    kind: Kind,
    name: String,
    address: Ipv4Addr,
    rows: &'w [Row],
}

impl<'w> Guest<'w> {
    /// Makes it; the roots that all of a sort use are made when the first is.
    pub fn make(
        world: &'w World,
        installed: &Installed,
        kind: Kind,
        rows: &'w [Row],
        tool: Tool,
    ) -> Guest<'w> {
        if kind == Kind::Recipe {
            return Guest::of_the_recipe(world, rows);
        }
        let guest =
            Guest { world, kind, name: kind.debian().name.to_owned(), address: ADDRESS, rows };
        if !guest.root().exists() {
            fs::create_dir_all(guest.dir()).unwrap();
            root::make(kind.debian(), &guest.root());
        }
        guest.configure(installed, tool);
        guest.put_programs();
        guest
    }

    /// The busybox container of all other trials, with one program more.
    fn of_the_recipe(world: &'w World, rows: &'w [Row]) -> Guest<'w> {
        let container = world.container_named("recipe").memory(0);
        container.append_config(&addresses6());
        // LXC makes no devpts where no pty is asked for, and takes the recipe's away.
        container.append_config("lxc.pty.max = 16\n");
        let name = container.name().to_owned();
        let guest = Guest { world, kind: Kind::Recipe, name, address: container.address(), rows };
        let object = guest.root().join("bin/object");
        fs::copy(OBJECT, &object).unwrap();
        fs::set_permissions(&object, fs::Permissions::from_mode(0o755)).unwrap();
        let inittab = guest.root().join("etc/inittab");
        let mut text = fs::read_to_string(&inittab).unwrap();
        for (port, row) in guest.ports() {
            if let Program::Object(kind, argument) = row.program {
                writeln!(text, "::once:/bin/object {kind} {port} {argument}").unwrap();
            }
        }
        fs::write(inittab, text).unwrap();
        guest
    }

    fn configure(&self, installed: &Installed, tool: Tool) {
        let mut text = "lxc.include = /usr/share/lxc/config/common.conf\n".to_owned();
        if self.kind.is_unprivileged() {
            writeln!(text, "lxc.include = /usr/share/lxc/config/userns.conf").unwrap();
            writeln!(text, "lxc.idmap = u 0 {SHIFT} 65536\nlxc.idmap = g 0 {SHIFT} 65536").unwrap();
        }
        writeln!(text, "lxc.include = {}", installed.config("lxc-cr.conf").display()).unwrap();
        if self.kind.is_systemd() {
            writeln!(text, "lxc.include = {}", installed.config("lxc-cr-systemd.conf").display())
                .unwrap();
        }
        if Path::new(APPARMOR).exists() {
            // As Debian's default.conf has it: LXC's own profile lets systemd mount nothing for its
            // services.
            writeln!(text, "lxc.apparmor.profile = generated\nlxc.apparmor.allow_nesting = 1")
                .unwrap();
        }
        if self.rows.iter().all(|row| row.name != IO_URING) {
            writeln!(text, "lxc.seccomp.profile = {}", installed.profile().display()).unwrap();
        }
        match self.kind {
            Kind::Program | Kind::ProgramPrivileged => {
                // An init mounts that.
                writeln!(text, "lxc.mount.entry = tmpfs dev/shm tmpfs mode=1777,create=dir 0 0")
                    .unwrap();
                writeln!(text, "lxc.init.cmd = /{ROWS}/row-0").unwrap();
            }
            _ => self
                .kind
                .init()
                .into_iter()
                .for_each(|init| writeln!(text, "lxc.init.cmd = {init}").unwrap()),
        }
        let console = match tool {
            Tool::Ours => {
                format!("lxc.console.logfile = {}", self.dir().join("console.log").display())
            }
            // What LXC's manual asks for: its tool fails where there are terminals.
            Tool::Lxcs => "lxc.console.path = none\nlxc.tty.max = 0".to_owned(),
        };
        write!(
            text,
            "lxc.uts.name = {}
lxc.rootfs.path = dir:{}
{}
lxc.net.0.type = veth
lxc.net.0.link = {BRIDGE}
lxc.net.0.name = eth0
lxc.net.0.flags = up
lxc.net.0.ipv4.address = {}/24
{}",
            self.name,
            self.root().display(),
            console,
            self.address,
            addresses6()
        )
        .unwrap();
        fs::write(self.dir().join("config"), text).unwrap();
    }

    /// Each row's program as a script, and what its init needs to start it.
    fn put_programs(&self) {
        let root = self.root();
        boot::clear(&root);
        let (mut ids, mut servers) = (Vec::new(), BTreeSet::new());
        for (port, row) in self.ports() {
            let id = port - PORT;
            let line = match row.program {
                Program::Object(kind, argument) => {
                    format!("exec /{ROWS}/object {kind} {port} {argument}")
                }
                Program::Line(line) => format!("PORT={port}\n{line}"),
                Program::Server(_) if self.kind.starts_servers() => continue,
                // Two rows may be clients of the same one.
                Program::Server(line) if !servers.insert(line) => continue,
                Program::Server(line) => line.to_owned(),
            };
            // What it says is kept among the logs.
            let script = format!("#!/bin/sh\nexec >/{LOGS}/row-{id}.log 2>&1\n{line}\n");
            boot::put_executable(&root.join(ROWS).join(format!("row-{id}")), &script);
            ids.push(id);
        }
        boot::put(&root, self.kind, &ids);
        if self.kind == Kind::SystemdPrivileged && self.rows.iter().all(Row::is_of_root) {
            boot::mask_others(&root);
        }
    }

    fn ports(&self) -> impl Iterator<Item = (u16, &Row)> {
        (PORT..).zip(self.rows)
    }

    /// Where the client of each row finds its program.
    pub fn places(&self) -> Vec<(Row, Place)> {
        let place =
            |port| Place { address: self.address, address6: ADDRESS6, port, root: self.root() };
        self.ports().map(|(port, row)| (*row, place(port))).collect()
    }

    fn dir(&self) -> PathBuf {
        self.world.lxcpath().join(&self.name)
    }

    fn root(&self) -> PathBuf {
        self.dir().join("rootfs")
    }

    /// Where its programs complain.
    pub fn logs(&self) -> PathBuf {
        self.root().join(LOGS)
    }

    /// Where a checkpoint without `-D` goes.
    pub fn dump_dir(&self) -> PathBuf {
        self.dir().join("dump")
    }

    /// Starts it with LXC.
    pub fn start(&self) {
        let log = self.dir().join("lxc.log");
        let _ = fs::remove_file(&log);
        let program = if self.kind == Kind::Execute { "lxc-execute" } else { "lxc-start" };
        let mut run = self.run_lxc(program).arg("-d").arg("-o").arg(&log).args(["-l", "DEBUG"]);
        if program == "lxc-execute" {
            run = run.args(["--", &format!("/{ROWS}/row-0")]);
        }
        run.ok();
        self.wait_state("RUNNING");
    }

    fn run_lxc(&self, program: &str) -> Run {
        self.world.lxc(program, &self.name)
    }

    /// One of our commands.
    pub fn ours(&self, program: &str) -> Output {
        self.world.ours(program, &self.name).limit(LIMIT).output()
    }

    /// LXC's own `lxc-checkpoint`.
    pub fn stock(&self, how: &str, images: &Path) -> Output {
        stock(self.run_lxc("lxc-checkpoint").args([how, "-v", "-D"]).arg(images).limit(LIMIT))
    }

    pub fn wait_state(&self, state: &str) {
        let told = || self.run_lxc("lxc-info").args(["-s", "-H"]).output().stdout.trim().to_owned();
        wait_for(&format!("it to be {state}"), STATE_LIMIT, || (told() == state).then_some(()))
            .unwrap_or_else(|e| panic!("{e}; it is {}", told()));
    }

    /// Ends it at once, whatever its state is.
    pub fn kill(&self) {
        self.run_lxc("lxc-stop").arg("-k").output();
        self.wait_state("STOPPED");
    }
}

fn addresses6() -> String {
    format!("lxc.net.0.ipv6.address = {ADDRESS6}/64\n")
}

impl Drop for Guest<'_> {
    /// The recipe's is made anew for each row; the others' roots are kept.
    fn drop(&mut self) {
        let removed = match self.kind {
            Kind::Recipe => fs::remove_dir_all(self.dir()),
            _ => fs::remove_dir_all(self.dump_dir()),
        };
        if let Err(error) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!("remove {}: {error}", self.name);
        }
    }
}
