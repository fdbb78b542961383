//! Containers with the console and the ttys that LXC gives them.

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use lxc_cr::api::lxc::command::Client;

use super::monitor::monitor_of;
use crate::harness::World;
use crate::harness::container::Container;
use crate::harness::run::wait_for;
use crate::harness::terminal::Terminal;

/// For what the container or the monitor does next.
const LIMIT: Duration = Duration::from_secs(5);

/// A shell on the console and one on tty1; tty2 has nobody.
const INITTAB: &str = "\
::once:/bin/syslogd -n -O /var/log/messages
::once:/bin/witness 0
console::respawn:-/bin/sh
tty1::respawn:-/bin/sh
";

/// What busybox's shell shows when it waits for a line.
const PROMPT: &str = "/ # ";

/// A container with a console, as LXC makes it when nothing is said of it, and two ttys.
fn with_terminals<'w>(world: &'w World, more: &str) -> Container<'w> {
    with_inittab(world, more, INITTAB)
}

fn with_inittab<'w>(world: &'w World, more: &str, inittab: &str) -> Container<'w> {
    let container = world.container();
    let file = container.dir().join("config");
    let text = fs::read_to_string(&file).unwrap();
    let kept: Vec<&str> = text.lines().filter(|l| !l.starts_with("lxc.console")).collect();
    assert_eq!(text.lines().count(), kept.len() + 1);
    fs::write(&file, format!("{}\nlxc.tty.max = 2\n{more}", kept.join("\n"))).unwrap();
    fs::write(container.rootfs().join("etc/inittab"), inittab).unwrap();
    container.start();
    // Only a shell that has shown its prompt has set its terminal up: what is typed before is lost.
    for number in [0, 1] {
        at(&container, number).line("echo $((6 * 7))").see("42");
    }
    container
}

fn client(container: &Container<'_>) -> Client {
    let lxcpath = container.dir().parent().unwrap().to_str().unwrap().to_owned();
    Client::new(&lxcpath, container.name())
}

fn at(container: &Container<'_>, number: i32) -> Terminal {
    Terminal::lent(client(container).tty(number).unwrap().expect("nobody has it"))
}

fn suspend_and_restart(container: &Container<'_>) {
    container.ours("lxc-checkpoint").ok();
    container.ours("lxc-restart").ok();
}

/// Shells on the console and on a tty go on, with their variables, their terminals, and their keys.
/// Twice.
pub fn shells_on_them_go_on(world: &World) {
    // Both in the container's own devpts and, without lxc.pty.max, where LXC finds one.
    for more in ["lxc.pty.max = 64\n", ""] {
        let container = with_terminals(world, more);
        at(&container, 0)
            .line("WHERE=console; busybox stty intr q")
            .line("echo at $WHERE")
            .see("at console");
        at(&container, 1)
            .line("WHERE=tty; busybox stty rows 33 columns 77")
            .line("echo at $WHERE")
            .see("at tty");
        let before = settings(&container);
        for _ in 0..2 {
            suspend_and_restart(&container);
            at(&container, 0).line("echo still at $WHERE").see("still at console");
            let mut tty = at(&container, 1);
            tty.line("echo still at $WHERE").see("still at tty");
            // It is the shell's controlling terminal: a key interrupts what it runs, and /dev/tty
            // leads to it.
            tty.line("sh -c 'echo re''ady; exec cat'").see("\nready").press("\x03").see(PROMPT);
            tty.line("echo left with $?").see("left with 130");
            tty.line("echo through > /dev/tty").see("\nthrough");
            assert_eq!(settings(&container), before);
        }
        container.kill();
    }
}

/// What the terminals have been set to, and whose they are.
fn settings(container: &Container<'_>) -> Vec<String> {
    let script =
        "for t in console tty1; do busybox stty -a < /dev/$t; stat -c '%a %u %g' /dev/$t; done";
    container.exec(["/bin/sh", "-c", script]).stdout.lines().map(str::to_owned).collect()
}

/// A shell that has its terminal from init, and one at a terminal of the container's own (a login
/// over the network), for both of which `/dev/tty` has to be found out.
pub fn other_shells_go_on_beside_them(world: &World) {
    let inittab =
        format!("{}::respawn:busybox telnetd -F -l /bin/sh\n", INITTAB.replace("console::", "::"));
    let container = with_inittab(world, "lxc.pty.max = 64\n", &inittab);
    let stream =
        wait_for("telnetd", LIMIT, || TcpStream::connect((container.address(), 23)).ok()).unwrap();
    let mut login = Terminal::over(stream);
    login.see(PROMPT).line("WHERE=login").see(PROMPT).line("echo at $WHERE").see("at login");
    at(&container, 0).line("WHERE=init").line("echo at $WHERE").see("at init");
    for _ in 0..2 {
        suspend_and_restart(&container);
        login.line("echo still at $WHERE").see("still at login");
        let mut console = at(&container, 0);
        console.line("echo still at $WHERE").see("still at init");
        for terminal in [&mut login, &mut console] {
            terminal
                .line("sh -c 'echo re''ady; exec cat'")
                .see("\nready")
                .press("\x03")
                .see(PROMPT);
            terminal.line("echo through > /dev/tty").see("\nthrough");
        }
    }
    container.kill();
}

/// LXC's own lxc-console, on a tty and on the console.
pub fn lxc_console_works_on_them(world: &World) {
    let container = with_terminals(world, "");
    suspend_and_restart(&container);
    for number in ["1", "0"] {
        let (mut terminal, mut console) =
            Terminal::of(container.lxc("lxc-console").args(["-t", number]));
        terminal.see("Connected to tty").wait_until_taken().line("echo $((6 * 7))").see("42");
        terminal.line("busybox stty size").see("40 132");
        assert!(client(&container).tty(number.parse().unwrap()).unwrap().is_none(), "it is taken");
        // Ctrl-a q leaves it.
        terminal.press("\x01q");
        assert!(console.wait().unwrap().success());
        // It comes back when the connection ends: the next one gets it.
        at_last(&container, number.parse().unwrap()).line("echo $((6 * 7))").see("42");
    }
    container.kill();
}

/// The terminal, once the monitor has noticed that the last user is gone.
fn at_last(container: &Container<'_>, number: i32) -> Terminal {
    let lent = wait_for("the tty to come back", LIMIT, || client(container).tty(number).unwrap());
    Terminal::lent(lent.unwrap())
}

/// The console's output goes to its log and its ring buffer, as before.
pub fn the_consoles_output_is_kept(world: &World) {
    let log = world.images("console").join("log");
    let more = format!(
        "lxc.console.logfile = {}\nlxc.console.buffer.size = 4096\nlxc.console.size = 65536\n",
        log.display()
    );
    let container = with_terminals(world, &more);
    container.exec(["/bin/sh", "-c", "echo before > /dev/console"]).assert_code(0);
    suspend_and_restart(&container);
    container.exec(["/bin/sh", "-c", "echo after > /dev/console"]).assert_code(0);
    // The answer is asked of the monitor, which has read all until then.
    let asked = client(&container).console_log(false).unwrap().expect("a ring buffer");
    assert!(String::from_utf8_lossy(&asked).contains("after\r\n"), "{asked:?}");
    let text = fs::read_to_string(&log).unwrap();
    let (before, after) = (text.find("before"), text.find("after"));
    assert!(before.is_some() && before < after, "{text:?}");
    container.kill();
}

/// `-F`: the console is where the command was typed, until the container ends.
pub fn in_the_foreground_the_console_is_here(world: &World) {
    let container = with_terminals(world, "");
    container.ours("lxc-checkpoint").ok();
    let (mut terminal, mut command) = Terminal::of(container.ours("lxc-restart").arg("-F"));
    terminal.see("running again").wait_until_taken().line("echo $((6 * 7))").see("42");
    terminal.line("busybox stty size").see("40 132");
    terminal.line("poweroff");
    assert!(command.wait().unwrap().success());
    assert_eq!(container.state(), "STOPPED");
}

/// With an id map the terminals belong to the container's root.
pub fn they_belong_to_the_containers_root(world: &World) {
    let container = with_terminals(
        world,
        "lxc.pty.max = 64\nlxc.idmap = u 0 0 65536\nlxc.idmap = g 0 0 65536\n",
    );
    at(&container, 1).line("WHERE=tty").line("chown 7:8 /dev/tty1; echo at $WHERE").see("at tty");
    let before = settings(&container);
    suspend_and_restart(&container);
    at(&container, 1).line("echo still at $WHERE").see("still at tty");
    assert_eq!(settings(&container), before);
    assert!(before.iter().any(|l| l.ends_with(" 7 8")), "{before:?}");
    container.kill();
}

/// What is at /dev/pts is handed to lxc-attach: no link of the container's may lead it to the host.
pub fn a_link_at_devpts_leads_nowhere(world: &World) {
    let container = with_terminals(world, "lxc.pty.max = 64\n");
    let victim = world.images("victim");
    let script = "busybox umount /dev/ptmx && busybox umount -l /dev/pts && rmdir /dev/pts && ln \
                  -s $0 /dev/pts";
    container.exec(["/bin/sh", "-c", script, victim.to_str().unwrap()]).assert_code(0);
    suspend_and_restart(&container);
    let held: Vec<_> = fs::read_dir(format!("/proc/{}/fd", monitor_of(container.init_pid())))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .collect();
    assert!(!held.is_empty() && !held.contains(&victim), "{held:?}");
    let told = container.exec(["/bin/echo", "hello"]);
    assert_eq!(told.stdout, "hello\n", "{told}");
    container.kill();
}
