//! The monitor: the parent of a restored container's init, and its voice towards LXC's tools.
//!
//! It does what liblxc's monitor does (start.c, `lxc_poll`; commands.c): it answers on the command
//! socket, passes signals on to init, and when init has ended it cleans up in liblxc's order. It
//! sleeps otherwise.

mod cgroups;
mod console;
mod end;
mod lxc_backend;

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::error::ErrorList;
use crate::lxc::protocol::State;
use crate::lxc::server::Server;
use crate::restore::Restored;
use crate::restore::cgroups::leave;
use crate::restore::lazy::{Filled, Filling};
use crate::sys::poll;
use crate::sys::process::Process;
use crate::sys::signals::{GIVE_UP, Received, Signals};

use end::{AtEnd, Namespaces};
use lxc_backend::Container;

/// How long what traces init may keep its exit status.
const REAP_LIMIT: Duration = Duration::from_secs(5);
const REAP_PAUSE: Duration = Duration::from_millis(10);

/// How a container ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Its init has ended.
    Stopped,
    /// It asked for a reboot; there may be clients who wait until it runs again.
    Reboot(Box<Server>),
}

/// Serves a restored container until its init ends, then cleans up.
///
/// # Errors
/// What could not be cleaned up; it stays in the journal for the next command.
pub(crate) fn serve(restored: Restored, signals: &Signals) -> Result<End> {
    let Restored { defined, init, mut server, mut journal, payload, pivots, ports, .. } = restored;
    let Restored { terminals, devices, phys_interfaces, mut filling, .. } = restored;
    let mut container = Container::new(defined, init, terminals, &payload, &ports, devices)?;
    let namespaces = Namespaces::for_hooks(&container.defined.config, container.init.pid())?;
    server.set_state(if container.is_frozen() { State::Frozen } else { State::Running });

    if let Err(e) = crate::sys::memory::give_back() {
        log::debug!("give memory back: {e}");
    }

    loop {
        let ready =
            wait(&container, server.as_fd(), signals, filling.as_ref(), server.next_deadline())?;
        if ready.terminals {
            container.terminals.pass_on();
        }
        if ready.server {
            server.on_ready(&mut container).context("answer on the command socket")?;
        }
        server.expire(Instant::now());
        if ready.filling
            && let Some(filled) = filling.as_mut().and_then(Filling::handle)
        {
            filling = None;
            match filled {
                Filled::Complete => log::info!("all of its memory is in"),
                Filled::Ended(cause) => report_lost_memory(&cause),
            }
        }
        while let Some(received) = signals.next().context("read a signal")? {
            pass_on(received, &container.init);
        }
        if ready.ended {
            break;
        }
    }

    // Its end may have been seen before the pager's, who ended it.
    if let Some(cause) = filling.as_mut().and_then(Filling::failure) {
        report_lost_memory(&cause);
    }
    // Before our cgroup goes, in which its process is.
    drop(filling);

    // liblxc's order: exit status, network, STOPPING, stop hooks, cgroups, STOPPED, post-stop
    // hooks, connections.
    let status = reap(container.init.pid())?;
    server.send_exit_code(status);
    let reboot = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGHUP;
    let mut errors = ErrorList::default();
    let (defined, init) = container.close();
    let stage = AtEnd { defined: &defined, init: init.pid(), reboot, namespaces };
    errors.note(stage.network_down(&ports));
    errors.note(phys_interfaces.bring_back());
    server.set_state(State::Stopping);
    errors.note(stage.run_stop());
    errors.note(leave(&pivots));
    errors.note(journal.play_back());
    if reboot {
        server.end_for_reboot();
    } else {
        server.end();
    }
    let post_stop = stage.run_post_stop();
    // As in liblxc: what these hooks would have taken back, the container is not started on top of.
    let starts_afresh = reboot && post_stop.is_ok();
    errors.note(post_stop);
    if !starts_afresh {
        return errors.into_result().map(|()| End::Stopped);
    }
    if let Err(e) = errors.into_result() {
        log::error!("before its reboot it could not give back what it held of the host: {e:#}");
    }
    // Its connections go on.
    Ok(End::Reboot(Box::new(server)))
}

/// What has come.
struct Ready {
    ended: bool,
    server: bool,
    filling: bool,
    terminals: bool,
}

#[expect(clippy::disallowed_methods, reason = "its work lasts as long as the container")]
fn wait(
    container: &Container,
    server: std::os::fd::BorrowedFd<'_>,
    signals: &Signals,
    filling: Option<&Filling>,
    deadline: Option<Instant>,
) -> Result<Ready> {
    let limit = deadline.map(|at| at.saturating_duration_since(Instant::now()));
    let filling: Vec<_> = filling.iter().flat_map(|filling| filling.watched()).collect();
    let ours = [container.init.as_fd(), server, signals.as_fd()];
    let watched =
        ours.into_iter().chain(filling.iter().copied()).chain(container.terminals.watched());
    let watched: Vec<_> = watched.collect();
    let come = poll::readable_at_last(&watched, limit).context("wait for something to do")?;
    let (first, terminals) = come.split_at(ours.len() + filling.len());
    Ok(Ready {
        ended: first.first() == Some(&true),
        server: first.get(1) == Some(&true),
        filling: first.iter().skip(ours.len()).any(|come| *come),
        terminals: terminals.contains(&true),
    })
}

/// liblxc passes every signal on to init; SIGHUP becomes SIGTERM, for a hang-up means a reboot to
/// an init.
fn pass_on(received: Received, init: &Process) {
    let number = match received.number {
        libc::SIGCHLD => return,
        GIVE_UP => {
            log::debug!("asked to give up a restore that is complete");
            return;
        }
        libc::SIGHUP => libc::SIGTERM,
        other => other,
    };
    if let Err(e) = init.signal(number) {
        log::warn!("pass signal {number} on to init: {e}");
    }
}

/// Takes the exit status of init, which has ended, as wait(2) gives it. While something traces
/// init, the tracer has it first; one that keeps it does not keep us: then the status is 0.
#[expect(clippy::disallowed_methods, reason = "WNOHANG")]
fn reap(pid: i32) -> Result<i32> {
    let end = Instant::now() + REAP_LIMIT;
    loop {
        match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code << 8),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(signal as i32),
            Ok(WaitStatus::StillAlive) if Instant::now() >= end => {
                log::warn!("init has ended, and its exit status is kept by what traces it");
                return Ok(0);
            }
            Ok(WaitStatus::StillAlive) => std::thread::sleep(REAP_PAUSE),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e).context("take init's exit status"),
        }
    }
}

/// Becomes what LXC's tools look for: its own session, no terminal, `/` as its directory, and the
/// name that LXC's monitors have. (The title is our first argument; it was given to us when we were
/// started.)
pub(crate) fn detach(name: &str) -> io::Result<()> {
    std::env::set_current_dir("/")?;
    crate::sys::process::set_own_name(name)
}

fn report_lost_memory(cause: &anyhow::Error) {
    log::error!("it was ended, for its memory could not be completed: {cause:#}");
}

/// Lets go of standard streams, so that whoever waits for their end is not kept waiting by a
/// container.
pub(crate) fn let_go_of_streams() -> Result<()> {
    let null = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(Path::new("/dev/null"))
        .context("open /dev/null")?;
    crate::sys::process::replace_standard_streams(null.as_fd())
        .context("let go of the standard streams")
}
