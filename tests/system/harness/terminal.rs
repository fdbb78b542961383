//! A user at a terminal: types, and waits for what appears.

use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::time::{Duration, Instant};

use lxc_cr::api::lxc::command::LentTty;
use lxc_cr::api::sys::pty::Pty;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::run::{Run, wait_for};

/// For a shell to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// The user's end of a terminal.
#[derive(Debug)]
pub struct Terminal {
    end: OwnedFd,
    seen: String,
    /// A tty that a monitor lends goes back with this.
    _lent: Option<LentTty>,
}

impl Terminal {
    /// A tty that a monitor has lent.
    pub fn lent(tty: LentTty) -> Terminal {
        Terminal::new(tty.end.try_clone().unwrap(), Some(tty))
    }

    /// A login over the network, without what telnet has to say of terminals.
    pub fn over(stream: std::net::TcpStream) -> Terminal {
        Terminal::new(stream.into(), None)
    }

    /// A program at a new terminal with 40 lines of 132 columns.
    pub fn of(run: Run) -> (Terminal, Child) {
        let Pty { master, slave, .. } = Pty::open().unwrap();
        let size = rustix::termios::Winsize { ws_row: 40, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&slave, size).unwrap();
        let child = run.spawn_at(&slave);
        (Terminal::new(master, None), child)
    }

    fn new(end: OwnedFd, lent: Option<LentTty>) -> Terminal {
        Terminal { end, seen: String::new(), _lent: lent }
    }

    /// Presses these keys.
    pub fn press(&mut self, keys: &str) -> &mut Terminal {
        assert_eq!(rustix::io::write(&self.end, keys.as_bytes()).unwrap(), keys.len());
        self
    }

    /// Types a line. What was seen before is forgotten.
    pub fn line(&mut self, text: &str) -> &mut Terminal {
        self.seen.clear();
        self.press(&format!("{text}\r"))
    }

    /// Waits until the program at it has taken it over: it throws away what was typed before.
    pub fn wait_until_taken(&mut self) -> &mut Terminal {
        let echoes = || {
            let modes = rustix::termios::tcgetattr(&self.end).unwrap().local_modes;
            modes.contains(rustix::termios::LocalModes::ECHO)
        };
        wait_for("the terminal to be taken over", LIMIT, || (!echoes()).then_some(())).unwrap();
        self
    }

    /// Waits until this text appears; what came before it is forgotten.
    pub fn see(&mut self, text: &str) -> &mut Terminal {
        let end = Instant::now() + LIMIT;
        while !self.seen.contains(text) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {text:?}; seen: {:?}", self.seen);
            let timeout = PollTimeout::try_from(left).unwrap();
            poll(&mut [PollFd::new(self.end.as_fd(), PollFlags::POLLIN)], timeout).unwrap();
            let mut bytes = [0; 4096];
            match rustix::io::read(&self.end, &mut bytes) {
                Ok(0) => panic!("the terminal was closed; seen: {:?}", self.seen),
                Ok(n) => self.seen.push_str(&String::from_utf8_lossy(&bytes[..n])),
                Err(rustix::io::Errno::AGAIN) => {}
                Err(e) => panic!("read the terminal: {e}; seen: {:?}", self.seen),
            }
        }
        let after = self.seen.find(text).unwrap() + text.len();
        self.seen.drain(..after);
        self
    }
}
