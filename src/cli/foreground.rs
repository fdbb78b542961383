//! `lxc-restart -F`: stays until the container ends, its console at our terminal, as with
//! `lxc-start -F`.
//!
//! The monitor has a session of its own, so it cannot read our terminal. We are a client of its
//! console instead, as `lxc-console -t 0` is, but without a key that leaves it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ExitStatus};

use anyhow::Context;

use crate::error::Result;
use crate::lxc::command::{Client, LentTty};
use crate::lxc::name::{ContainerName, LxcPath};
use crate::sys::process::Process;
use crate::sys::pty::{self, Settings};
use crate::sys::signals::Signals;
use crate::sys::{child, poll};

/// Read at once, in bytes.
const PIECE: usize = 4096;

/// Waits for the container's end, and says how its monitor has ended; signals go to it.
#[expect(clippy::disallowed_methods, reason = "it lasts as long as the container")]
pub(super) fn stay(
    monitor: &mut Child,
    name: &ContainerName,
    lxcpath: &LxcPath,
    signals: &Signals,
) -> Result<ExitStatus> {
    let process = Process::of_child(monitor).context("hold the monitor")?;
    let client = Client::new(&lxcpath.as_os_str().to_string_lossy(), name.as_str());
    let stdin = io::stdin();
    let mut terminal = Terminal::take(stdin.as_fd(), &client);
    while process.is_alive() {
        let mut watched = vec![process.as_fd(), signals.as_fd()];
        if let Some(terminal) = &terminal {
            watched.extend([terminal.console.end.as_fd(), terminal.ours]);
        }
        let come = poll::readable_at_last(&watched, None).context("wait for the container")?;
        let come = |i: usize| come.get(i) == Some(&true);
        let (output, input) = (come(2), come(3));
        if let Some(t) = &terminal
            && ((output && t.show().is_err()) || (input && t.type_in().is_err()))
        {
            terminal = None;
        }
        while let Some(received) = signals.next().context("read a signal")? {
            match (received.number, &terminal) {
                (libc::SIGWINCH, Some(terminal)) => terminal.window_changed(&client),
                (libc::SIGWINCH, None) => {}
                (number, _) => {
                    if let Err(e) = process.signal(number) {
                        log::warn!("pass signal {number} on: {e}");
                    }
                }
            }
        }
    }
    if let Some(terminal) = &terminal {
        // What the container has said at last.
        while terminal.show().is_ok_and(|n| n > 0) {}
    }
    drop(terminal);
    Ok(child::ended(monitor).context("wait for the monitor")?)
}

/// Our terminal, at which the container's console is.
struct Terminal<'a> {
    ours: BorrowedFd<'a>,
    console: LentTty,
    before: Settings,
}

impl<'a> Terminal<'a> {
    /// `None` where there is no terminal, or the container has no console.
    fn take(ours: BorrowedFd<'a>, client: &Client) -> Option<Terminal<'a>> {
        if !pty::is_terminal(ours) {
            return None;
        }
        let console = client.tty(0).inspect_err(|e| log::warn!("get the console: {e}")).ok()??;
        pty::never_wait(console.end.as_fd()).ok()?;
        let before =
            pty::pass_keys_on(ours).inspect_err(|e| log::warn!("set the terminal: {e}")).ok()?;
        let terminal = Terminal { ours, console, before };
        terminal.window_changed(client);
        Some(terminal)
    }

    fn window_changed(&self, client: &Client) {
        let told = pty::copy_window_size(self.ours, self.console.end.as_fd())
            .map_err(anyhow::Error::from)
            .and_then(|()| Ok(client.window_changed()?));
        if let Err(e) = told {
            log::debug!("set the console's window size: {e:#}");
        }
    }

    /// What the container has written; how many bytes.
    fn show(&self) -> io::Result<usize> {
        move_bytes(self.console.end.as_fd(), self.ours)
    }

    /// What the user has typed.
    fn type_in(&self) -> io::Result<usize> {
        move_bytes(self.ours, self.console.end.as_fd())
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        if let Err(e) = pty::restore_settings(self.ours, &self.before) {
            log::warn!("give the terminal its settings back: {e}");
        }
    }
}

/// Moves what is there, at most [`PIECE`]; the end of a terminal is an error.
fn move_bytes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes = [0; PIECE];
    let n = match rustix::io::read(from, &mut bytes) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(n) => n,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(0),
        Err(e) => return Err(e.into()),
    };
    let mut rest = bytes.get(..n).unwrap_or_default();
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(n) => rest = rest.get(n..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            // Nobody reads there: the rest is lost, as at any terminal that is typed at too fast.
            Err(rustix::io::Errno::AGAIN) => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(n)
}
