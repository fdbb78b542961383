//! A real socket, a real client, and a container whose init is the test itself.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::*;
use crate::lxc::command::{Client, Error as ClientError};
use crate::lxc::protocol::*;
use crate::sys::fdpass::recv_with_fds;

mod hostile;
mod table;

/// The container that the tests serve.
struct MadeUp {
    pidfd: OwnedFd,
    cgroup: OwnedFd,
    tty: OwnedFd,
    lent: Vec<i32>,
    controllers: Vec<String>,
    layout: Layout,
    done: Sender<String>,
}

impl Served for MadeUp {
    fn init_pid(&self) -> Pid {
        Pid::this()
    }
    fn init_pidfd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.pidfd.as_fd())
    }
    fn clone_flags(&self) -> u32 {
        0x6e02_0000
    }
    fn config_item(&self, key: &str) -> Option<String> {
        match key {
            "lxc.uts.name" => Some("made-up".to_owned()),
            "lxc.group" => Some("a\nb\n".to_owned()),
            "lxc.empty" => Some(String::new()),
            "lxc.long" => Some("x".repeat(PAYLOAD_MAX)),
            "lxc.longest" => Some("x".repeat(PAYLOAD_MAX - 1)),
            _ => None,
        }
    }
    fn layout(&self) -> Layout {
        self.layout
    }
    fn hierarchies(&self) -> Vec<Hierarchy<'_>> {
        let slash = if self.layout == Layout::Unified { "" } else { "/" };
        let hierarchy = |kind, controllers: &[String]| Hierarchy {
            kind,
            controllers: controllers.to_vec(),
            path: format!("{slash}lxc.payload.made-up/inner"),
            limit_path: format!("{slash}lxc.payload.made-up"),
            fd: Some(self.cgroup.as_fd()),
            limit_fd: Some(self.cgroup.as_fd()),
        };
        let mut all = vec![hierarchy(HierarchyKind::V2, &self.controllers)];
        if self.layout == Layout::Hybrid {
            let of_v1 = [["cpu", "cpuacct"], ["name=systemd", "name=other"]];
            all.extend(of_v1.map(|names| hierarchy(HierarchyKind::V1, &names.map(str::to_owned))));
        }
        all
    }
    fn tty_count(&self) -> i32 {
        2
    }
    fn lend_tty(&mut self, number: i32) -> Option<BorrowedFd<'_>> {
        (number > 0).then(|| self.tty.as_fd())
    }
    fn keep_lent(&mut self, numbers: &[i32]) {
        self.lent = numbers.to_vec();
    }
    fn window_changed(&mut self) {
        let _ = self.done.send("window".to_owned());
    }
    fn console_log(&mut self, asked: ConsoleLog) -> Option<Result<Vec<u8>, Errno>> {
        // Longer than what else is sent, and than a socket takes if nothing is done about it.
        match asked.most {
            0 => Some(Ok(vec![7; 1 << 20])),
            1 => Some(Err(Errno::ENODATA)),
            _ => None,
        }
    }
    fn on_stop(&mut self) -> io::Result<()> {
        self.done
            .send("stop".to_owned())
            .map_err(|_| io::Error::from_raw_os_error(Errno::ESRCH as i32))
    }
    fn freeze(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.done.send(format!("freeze {limit:?}")).map_err(io::Error::other)
    }
    fn unfreeze(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.done.send(format!("unfreeze {limit:?}")).map_err(io::Error::other)
    }
    fn add_device_rule(&mut self, rule: &DeviceItem) -> io::Result<()> {
        self.done.send(format!("{rule:?}")).map_err(io::Error::other)
    }
}

type Job = Box<dyn FnOnce(&mut Server, &mut MadeUp) + Send>;

/// The thread that serves, as a monitor's loop does.
struct Monitor {
    dir: TempDir,
    jobs: Option<Sender<Job>>,
    done: Receiver<String>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    fn start() -> Monitor {
        let dir = TempDir::new().unwrap();
        let lxcpath = dir.path().to_str().unwrap();
        let mut server = Server::bind(lxcpath, "made-up").unwrap().with_run_dir(dir.path());
        server.set_state(State::Running);
        let (done_tx, done) = channel();
        let pid = rustix::process::Pid::from_raw(process::id() as i32).unwrap();
        let mut made_up = MadeUp {
            pidfd: rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap(),
            cgroup: File::open(dir.path()).unwrap().into(),
            tty: File::open("/dev/null").unwrap().into(),
            lent: Vec::new(),
            controllers: ["memory", "pids", "devices", "freezer"].map(str::to_owned).to_vec(),
            layout: Layout::Unified,
            done: done_tx,
        };
        let (jobs, todo) = channel::<Job>();
        let thread = thread::spawn(move || {
            loop {
                poll(&mut [PollFd::new(server.as_fd(), PollFlags::POLLIN)], PollTimeout::from(5u8))
                    .unwrap();
                server.on_ready(&mut made_up).unwrap();
                server.expire(Instant::now());
                match todo.try_recv() {
                    Ok(job) => job(&mut server, &mut made_up),
                    Err(std::sync::mpsc::TryRecvError::Empty) => {}
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                }
            }
        });
        Monitor { dir, jobs: Some(jobs), done, thread: Some(thread) }
    }

    fn lxcpath(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    fn client(&self) -> Client {
        Client::new(self.lxcpath(), "made-up")
    }

    /// Does something in the serving thread.
    fn with<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Server, &mut MadeUp) -> T + Send + 'static,
    ) -> T {
        let (tx, rx) = channel();
        let job: Job = Box::new(move |server, made_up| tx.send(f(server, made_up)).unwrap());
        self.jobs.as_ref().unwrap().send(job).unwrap();
        rx.recv().unwrap()
    }

    /// Waits until something is so in the serving thread.
    fn until(&self, is: fn(&Server) -> bool) {
        let end = Instant::now() + Duration::from_secs(5);
        while !self.with(move |server, _| is(server)) {
            assert!(Instant::now() < end, "it never came to be");
        }
    }

    fn connect(&self) -> UnixStream {
        let name = socket_name(self.lxcpath(), "made-up");
        let stream =
            UnixStream::connect_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    }

    /// A request as bytes, without any credentials; the connection, and what came within it before
    /// its end.
    fn raw(
        &self,
        code: i32,
        value: i32,
        payload: &[u8],
    ) -> (UnixStream, Option<Header>, Vec<OwnedFd>) {
        let mut stream = self.connect();
        let header = Header { code, datalen: payload.len() as i32, value }.encode();
        stream.write_all(&[&header, payload].concat()).unwrap();
        let mut bytes = [0; RESPONSE_LEN];
        let (n, fds, _) = recv_with_fds(stream.as_fd(), &mut bytes, 20).unwrap_or_default();
        (stream, (n == RESPONSE_LEN).then(|| Header::decode(&bytes)), fds)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.jobs = None;
        let result = self.thread.take().unwrap().join();
        if !thread::panicking() {
            result.unwrap();
        }
    }
}

/// Whether nothing comes on a connection that stays open.
fn silent(mut stream: &UnixStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    stream.read(&mut [0; 1]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}
