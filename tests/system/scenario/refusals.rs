//! Bad input: one clear message, the right exit status, and nothing on the host has changed.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::World;
use crate::harness::leak::Snapshot;
use crate::harness::run::{Output, Run};

/// What a command has said, and whether the host is as it was before it.
struct Tried {
    output: Output,
    changes: Result<(), String>,
}

impl Tried {
    /// Asserts that the host is as before, status and words.
    fn assert_unchanged(&self, code: i32, words: &[&str]) {
        let Tried { output, changes } = self;
        output.assert_code(code);
        for word in words {
            assert!(output.stderr.contains(word), "'{word}' is missing: {output}");
        }
        assert!(!output.stderr.contains("panicked"), "{output}");
        if let Err(changes) = changes {
            panic!("it has changed the host: {changes}\n{output}");
        }
    }

    /// The same; the message begins with the program's name and no line of it is a second error.
    fn assert_refused(&self, code: i32, words: &[&str]) {
        self.assert_unchanged(code, words);
        let output = &self.output;
        let program = Path::new(output.line.split(' ').next().unwrap())
            .file_name()
            .unwrap()
            .to_string_lossy();
        let first = output.stderr.lines().next().unwrap_or_default();
        assert!(code == 2 || first.starts_with(&format!("{program}: ")), "{output}");
        let errors =
            output.stderr.lines().filter(|l| l.starts_with(&format!("{program}: "))).count();
        assert!(errors <= 1, "more than one message: {output}");
        assert_eq!(output.stdout, "", "{output}");
    }
}

/// Runs a command and looks at the host before and after it.
fn tried_with(run: Run, look: impl Fn() -> Snapshot) -> Tried {
    let before = look();
    let output = run.output();
    Tried { output, changes: before.wait_until(look) }
}

/// Runs a command and looks at the host and into the world's files before and after it. For a trial
/// that has to put something right before it may fail.
fn tried(world: &World, run: Run) -> Tried {
    tried_with(run, || Snapshot::take().with_contents_of(world.lxcpath()))
}

/// Runs a command that must be refused.
fn refused(world: &World, run: Run, code: i32, words: &[&str]) {
    tried(world, run).assert_refused(code, words);
}

/// The host while the trial's container is stopped: some of what it had goes only a moment later.
struct Quiet(Snapshot);

impl Quiet {
    fn now() -> Quiet {
        Quiet(Snapshot::take().without_files())
    }

    fn wait(&self) {
        self.0
            .wait_until(|| Snapshot::take().without_files())
            .unwrap_or_else(|left| panic!("{left}"));
    }
}

/// Any program can take a name of the kind that LXC's command sockets have; without listening it
/// does not even answer.
pub fn of_an_address_that_is_taken(world: &World) {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
    let container = world.container();
    let quiet = Quiet::now();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    container.ours("lxc-checkpoint").ok();
    quiet.wait();
    let name = lxc_cr::api::lxc::protocol::socket_name(
        &world.lxcpath().to_string_lossy(),
        container.name(),
    );
    let thief =
        socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(thief.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes()).unwrap()).unwrap();
    let words = ["another program has the address of its command socket", &format!("@{name}")];
    refused(world, container.ours("lxc-restart"), 10, &words);
    drop(thief);
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// LXC destroys an ephemeral container when it stops, its checkpoint included.
pub fn of_what_would_be_destroyed(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    // LXC's monitor has read its configuration: it would not do it.
    container.append_config("lxc.ephemeral = 1\n");
    tried(world, container.ours("lxc-checkpoint")).assert_unchanged(4, &["it is ephemeral"]);
    let checked = container.lxc_cr("check").output();
    checked.assert_code(4);
    assert!(checked.stdout.contains("it is ephemeral"), "{checked}");
    let images = world.images("kept");
    container.ours("lxc-checkpoint").arg("--leave-running").arg("-D").arg(&images).ok();
    let replace = container.ours("lxc-restart").arg("--replace").arg("-D").arg(&images);
    tried(world, replace).assert_unchanged(4, &["is running as before"]);
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// Names and states.
pub fn of_containers_that_cannot_be_meant(world: &World) {
    let container = world.container();
    for program in ["lxc-checkpoint", "lxc-restart"] {
        refused(world, world.ours(program, "nobody"), 3, &["nobody", "no container of this name"]);
        for name in ["a/b", "..", ".", ""] {
            refused(world, world.ours(program, name), 2, &[]);
        }
        refused(world, Run::ours(program), 2, &["-n NAME"]);
        refused(
            world,
            Run::ours(program).args(["-n", "x", "-P", "relative"]),
            2,
            &["not absolute"],
        );
        refused(world, container.ours(program).arg("--no-such-option"), 2, &["--no-such-option"]);
    }
    refused(world, container.ours("lxc-checkpoint"), 3, &["not running", "lxc-start"]);
    refused(world, container.ours("lxc-restart"), 3, &["it is not suspended", "dump", "lxc-start"]);
    let elsewhere = container.ours("lxc-restart").args(["-D", "old"]);
    refused(
        world,
        elsewhere,
        9,
        &[&format!("{}, nor /", container.dir().join("old").display()), "lxc-cr list"],
    );
    container.start();
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
    refused(world, container.ours("lxc-restart"), 3, &["it is running", "--replace"]);
    container.exec(["/bin/true"]).assert_code(0);
    container.kill();
}

/// Users and programs.
pub fn of_hosts_that_cannot_do_it(world: &World) {
    let container = world.container();
    let quiet = Quiet::now();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();

    let as_nobody = |run: Run| {
        let words: Vec<_> = run.words();
        Run::new("setpriv").args(["--reuid=65534", "--regid=65534", "--clear-groups"]).args(words)
    };
    for program in ["lxc-checkpoint", "lxc-restart"] {
        tried(world, as_nobody(container.ours(program)))
            .assert_unchanged(1, &["only root", "sudo"]);
    }

    let old = world.lxcpath().join("images/criu");
    fs::create_dir_all(old.parent().unwrap()).unwrap();
    fs::write(&old, "#!/bin/sh\necho Version: 3.11\n").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
    let refused_by_settings = |program: &str| {
        let settings = Path::new("/etc/lxc/lxc-cr.toml");
        let with = |text: &str| {
            fs::write(settings, text).unwrap();
            let told = tried(world, container.ours(program));
            fs::remove_file(settings).unwrap();
            told
        };
        with("criu = \"/no/criu\"\n").assert_refused(4, &["criu is not installed", "/no/criu"]);
        with(&format!("criu = \"{}\"\n", old.display()))
            .assert_refused(4, &["3.11", "or newer is needed"]);
        with("brigde = 1\n").assert_refused(1, &["lxc-cr.toml", "brigde"]);
    };
    refused_by_settings("lxc-checkpoint");
    witness.assert_goes_on_from(&before);

    container.ours("lxc-checkpoint").ok();
    quiet.wait();
    refused_by_settings("lxc-restart");
    Run::new("ip").args(["link", "set", "br0", "name", "br1"]).ok();
    let no_bridge = tried(world, container.ours("lxc-restart"));
    Run::new("ip").args(["link", "set", "br1", "name", "br0"]).ok();
    no_bridge.assert_refused(4, &["bridge 'br0' does not exist", "ip link add br0 type bridge"]);
    assert_eq!(container.state(), "STOPPED");
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// Directories.
pub fn of_directories_that_are_not_right(world: &World) {
    let container = world.container();
    let quiet = Quiet::now();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let dir = world.images("d");
    let file = dir.join("file");
    fs::write(&file, "x").unwrap();
    let dump = |dir: &Path| container.ours("lxc-checkpoint").arg("-D").arg(dir);

    refused(world, dump(&file), 2, &["not a directory"]);
    // What holds other things has a place for each container.
    dump(&dir).ok();
    assert!(dir.join("lxc-cr").join(container.name()).join("inventory.img").exists());
    refused(world, dump(&dir), 4, &["was not restarted since", "hint: keep it elsewhere: mv "]);
    let good = dir.join("good");
    dump(&good).ok();
    refused(world, dump(&good), 4, &["already holds a checkpoint", "--overwrite"]);
    container.ours("lxc-checkpoint").arg("--overwrite").arg("-D").arg(&good).ok();
    let link = dir.join("link");
    std::os::unix::fs::symlink(&good, &link).unwrap();
    refused(world, dump(&link), 4, &["already holds a checkpoint"]);
    let open = dir.join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    refused(world, dump(&open), 1, &["can be written by others"]);
    witness.assert_goes_on_from(&before);
    container.kill();
    quiet.wait();

    let restore = |dir: &Path| container.ours("lxc-restart").arg("-D").arg(dir);
    refused(world, restore(&file), 2, &["not a directory"]);
    let empty = dir.join("empty");
    fs::create_dir(&empty).unwrap();
    fs::set_permissions(&empty, fs::Permissions::from_mode(0o700)).unwrap();
    refused(world, restore(&empty), 9, &["holds no checkpoint"]);
    refused(world, restore(&dir.join("nowhere")), 9, &["nowhere"]);
    let other = world.container();
    let foreign = other.ours("lxc-restart").arg("-D").arg(&good);
    let words =
        [&format!("the checkpoint of {} in {}", container.name(), good.display()), "is gone"];
    refused(world, foreign, 9, &words);

    let pages = good.join("pages-1.img");
    let mut bytes = fs::read(&pages).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&pages, &bytes).unwrap();
    // It is seen beside CRIU, which is stopped for it: CRIU's log, which the message names, and its
    // figures stay.
    let told = tried_with(restore(&good), || {
        let host = Snapshot::take().with_contents_of(world.lxcpath());
        host.without(&good.join("restore.log")).without(&good.join("stats-restore"))
    });
    told.assert_refused(9, &["pages-1.img", "was changed", "restore.log"]);
    bytes[middle] ^= 1;
    fs::write(&pages, &bytes[..middle]).unwrap();
    refused(world, restore(&good), 9, &["pages-1.img", "were written"]);
    fs::remove_file(&pages).unwrap();
    refused(world, restore(&good), 9, &["pages-1.img", "is missing"]);
    fs::write(&pages, &bytes).unwrap();
    restore(&good).ok();
    container.exec(["/bin/true"]).assert_code(0);
    container.kill();
}

/// A disk that is full: the container is still running, and nothing is left.
pub fn of_a_full_disk(world: &World) {
    let container = world.container().memory(16);
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let small = world.images("small");
    Run::new("mount").args(["-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs"]).arg(&small).ok();
    // It is seen beforehand; this is about what happens if it is not.
    let run =
        container.ours("lxc-checkpoint").args(["-q", "--force", "-s", "-D"]).arg(small.join("c"));
    // All that it leaves is below it.
    let told = tried_with(run, || Snapshot::take().without(&small));
    let left: Vec<_> = fs::read_dir(&small).unwrap().flatten().map(|e| e.file_name()).collect();
    Run::new("umount").arg(&small).ok();
    told.assert_refused(5, &["No space left", "running as before"]);
    assert_eq!(left, ["c.failed.log"]);
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// Not even CRIU's log has room; or nothing can be made at all. Each is said, and nothing is left
/// to be undone.
pub fn of_a_place_without_room(world: &World) {
    let container = world.container();
    container.start();
    let place = world.images("place");
    for (options, code, words) in [
        ("size=48k,mode=700", 5, "the disk is full"),
        ("size=1m,mode=700,ro", 4, "Read-only file system"),
    ] {
        Run::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&place).ok();
        let told =
            container.ours("lxc-checkpoint").args(["--force", "-D"]).arg(place.join("c")).output();
        Run::new("umount").arg(&place).ok();
        told.assert_code(code);
        assert!(told.stderr.contains(words) && told.stderr.contains("running as before"), "{told}");
        let next = container
            .ours("lxc-checkpoint")
            .args(["--dry-run", "-D"])
            .arg(world.images("other").join("c"))
            .ok();
        assert!(
            !next.stderr.contains("interrupted") && !next.stderr.contains("was interrupted"),
            "{told}\n{next}"
        );
    }
    container.kill();
}

/// Configurations that cannot be read.
pub fn of_configurations_that_cannot_be_read(world: &World) {
    let container = world.container();
    let quiet = Quiet::now();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let config = container.dir().join("config");
    let good = fs::read_to_string(&config).unwrap();
    let lines = good.lines().count() + 1;
    let refused_by_config = |program: &str| {
        let with = |text: &str, words: &[&str]| {
            fs::write(&config, text).unwrap();
            refused(world, container.ours(program), 1, words);
        };
        let many = format!("{good}lxc.tty.max = many\n");
        with(&many, &[&format!("config:{lines}:"), "lxc.tty.max = many", "^"]);
        with("lxc.include = /no/such/file\n", &["/no/such/file"]);
        with("lxc.uts.name = x\n", &["lxc.rootfs.path"]);
        fs::write(&config, &good).unwrap();
    };
    refused_by_config("lxc-checkpoint");
    container.ours("lxc-checkpoint").ok();
    quiet.wait();
    refused_by_config("lxc-restart");
    container.ours("lxc-restart").ok();
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// Two at once.
pub fn of_a_second_operation_at_the_same_time(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    // The first waits in its action script until it is told to go on.
    let dir = world.images("two");
    let (script, gate) = (dir.join("wait.sh"), dir.join("gate"));
    Run::new("mkfifo").arg(&gate).ok();
    fs::write(
        &script,
        format!(
            "#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION = pre-dump ] && read line < {}\nexit 0\n",
            gate.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut first = container
        .ours("lxc-checkpoint")
        .arg("-A")
        .arg(&script)
        .arg("-D")
        .arg(dir.join("c"))
        .spawn();
    // Opening the gate for writing waits until the script has come to it.
    let mut open_gate = fs::OpenOptions::new().write(true).open(&gate).unwrap();
    refused(
        world,
        container.ours("lxc-checkpoint"),
        10,
        &["lxc-checkpoint (pid ", "holds this container"],
    );
    refused(
        world,
        container.ours("lxc-restart").arg("-D").arg(&dir),
        10,
        &["holds this container"],
    );
    std::io::Write::write_all(&mut open_gate, b"go\n").unwrap();
    assert!(first.wait().unwrap().success());
    witness.assert_goes_on_from(&before);
    container.kill();
}

/// Directories that hold more than a checkpoint, or that one cannot be put into the place of.
pub fn of_directories_that_would_be_lost(world: &World) {
    let container = world.container();
    container.start();
    let mut witness = container.witness();
    let before = witness.status();
    let images = world.lxcpath().join("images");
    let dir = |name: &str| images.join(name);
    let private = |name: &str| {
        fs::create_dir_all(dir(name)).unwrap();
        fs::set_permissions(dir(name), fs::Permissions::from_mode(0o700)).unwrap();
    };
    let checkpoint = |name: &str| container.ours("lxc-checkpoint").arg("-D").arg(dir(name));

    // Images, but not CRIU's.
    private("machines");
    fs::write(dir("machines/disk.img"), "all that I have").unwrap();
    checkpoint("machines").arg("--overwrite").ok();
    assert_eq!(fs::read_to_string(dir("machines/disk.img")).unwrap(), "all that I have");
    // A suspended container's directory, with something of somebody else's.
    let dump = container.dir().join("dump");
    checkpoint("kept").ok();
    Run::new("cp").arg("-a").arg(dir("kept")).arg(&dump).ok();
    fs::write(dump.join("letter.txt"), "dear").unwrap();
    refused(world, container.ours("lxc-checkpoint"), 4, &["holds 'letter.txt'"]);
    fs::remove_dir_all(&dump).unwrap();
    // What another one builds on.
    private("child");
    fs::write(dir("child/inventory.img"), "").unwrap();
    std::os::unix::fs::symlink("../kept", dir("child/parent")).unwrap();
    refused(world, checkpoint("kept").arg("--overwrite"), 4, &["child builds on"]);
    fs::remove_dir_all(dir("child")).unwrap();
    // What it would itself build on.
    refused(
        world,
        checkpoint("kept").args(["--overwrite", "--predump-dir", "../kept"]),
        4,
        &["take its place"],
    );
    refused(world, checkpoint("new").args(["--predump-dir", "../gone"]), 4, &["gone", "../NAME"]);
    refused(
        world,
        checkpoint("new").args(["--predump-dir", "kept"]),
        4,
        &["new.partial/kept", "../NAME"],
    );
    // What somebody else could have put there.
    fs::create_dir_all("/tmp/theirs/copy").unwrap();
    fs::set_permissions("/tmp/theirs", fs::Permissions::from_mode(0o777)).unwrap();
    refused(
        world,
        checkpoint("new").args(["--predump-dir", "/tmp/theirs/copy"]),
        4,
        &["/tmp/theirs"],
    );
    fs::remove_dir_all("/tmp/theirs").unwrap();
    // Another file system.
    private("mounted");
    Run::new("mount").args(["-t", "tmpfs", "-o", "mode=700", "tmpfs"]).arg(dir("mounted")).ok();
    refused(world, checkpoint("mounted"), 4, &["is a mount point"]);
    Run::new("umount").arg(dir("mounted")).ok();

    // A slash at the end is as good as none.
    container
        .ours("lxc-checkpoint")
        .arg("--overwrite")
        .arg("-D")
        .arg(format!("{}/", dir("kept").display()))
        .ok();
    witness.assert_goes_on_from(&before);
    container.kill();
}
