//! A login over SSH, with an editor in tmux.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use super::super::{Finish, Place};
use crate::harness::run::{PATH, wait_for};

/// The shell of a login goes on, and the terminal that it has.
pub fn sshd(place: &Place) -> Finish {
    let mut session = Session::open(place);
    session.run("LEFT=behind; echo $((6 * 7)) one", "42 one");
    let again = place.clone();
    Box::new(move || {
        session.run("echo $LEFT $((6 * 8)) two", "behind 48 two");
        session.run("stty size; tty", "/dev/pts/");
        Session::open(&again).run("echo $((6 * 9)) new", "54 new");
    })
}

/// What was typed into vim before, and after, is in the file.
pub fn tmux(place: &Place) -> Finish {
    let mut session = Session::open(place);
    let file = place.root.join("root/edited");
    let _ = std::fs::remove_file(&file);
    session.run("tmux kill-server; stty -echo; echo $((6 * 7)) ready", "42 ready");
    session.send("TERM=xterm tmux new vim.tiny -u NONE edited\n");
    session.wait("edited");
    session.send("itext before");
    session.wait("text before");
    Box::new(move || {
        session.send(" and after\x1b:wq\n");
        wait_for("what was edited", super::ANSWER_LIMIT, || {
            std::fs::read_to_string(&file).ok().filter(|t| t == "text before and after\n")
        })
        .unwrap_or_else(|e| panic!("{e}: {:?}", std::fs::read_to_string(&file)));
        // What is typed before is tmux's, and goes with it.
        session.wait("[exited]");
        session.run("echo $((6 * 8)) left", "48 left");
    })
}

/// `ssh -tt`: a terminal over there, pipes here.
struct Session {
    ssh: Child,
    input: ChildStdin,
    told: Arc<Mutex<String>>,
}

impl Session {
    /// The client is the container's, run on the host.
    fn open(place: &Place) -> Session {
        let options = "-F none -tt -q -i /root/.ssh/id_ed25519 -o StrictHostKeyChecking=no -o \
                       UserKnownHostsFile=/dev/null";
        drop(super::Connection::open(place.address, 22));
        let (mut output, writer) = std::io::pipe().unwrap();
        let mut ssh = Command::new("chroot")
            .env_clear()
            .env("PATH", PATH)
            .env("TERM", "dumb")
            .arg(&place.root)
            .arg("ssh")
            .args(options.split(' '))
            .arg(format!("root@{}", place.address))
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .spawn()
            .unwrap();
        let input = ssh.stdin.take().unwrap();
        let told = Arc::new(Mutex::new(String::new()));
        let telling = told.clone();
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut piece) {
                telling.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..length]));
            }
        });
        Session { ssh, input, told }
    }

    fn send(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).unwrap_or_else(|e| panic!("type {text:?}: {e}"));
    }

    fn wait(&mut self, expected: &str) {
        let came = wait_for(&format!("{expected:?} over SSH"), super::ANSWER_LIMIT, || {
            let mut told = self.told.lock().unwrap();
            let at = told.find(expected)?;
            told.drain(..at + expected.len());
            Some(())
        });
        came.unwrap_or_else(|e| panic!("{e}: {:?}", self.told.lock().unwrap()));
    }

    fn run(&mut self, line: &str, expected: &str) {
        self.send(&format!("{line}\n"));
        self.wait(expected);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.ssh.kill();
        let _ = self.ssh.wait();
    }
}
