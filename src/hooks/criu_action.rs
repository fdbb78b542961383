//! What our action script does when CRIU runs it.
//!
//! Started by our own commands it only carries the question to them: they know the ports, write the
//! journal, and complete a checkpoint before its container may end. Under LXC's own `lxc-checkpoint
//! -A` or a bare `criu --action-script` nobody is there to ask, and it does the two things that the
//! recipe's script did: at `network-lock` it takes the container off its bridges and notes beside
//! the images where it was; at `network-unlock` it puts it back.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::criu::action_env::{Action, ActionEnv};
use crate::criu::control::{self, Answer};
use crate::error::ErrorList;
use crate::resources::network::{Port, ports};
use crate::rollback::{Journal, Undo};
use crate::store::layout;
use crate::sys::namespace;
use crate::sys::netlink::Netlink;
use crate::sys::{files, process};

/// How long our command may take for its answer: completing a large checkpoint includes writing it
/// to the disk.
const ANSWER_LIMIT: Duration = Duration::from_secs(3600);

/// Ports on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Noted {
    #[serde(default)]
    port: Vec<Port>,
}

/// Does what is to be done at this action.
///
/// `command` is the socket of the command that started CRIU, when it was one of ours.
///
/// # Errors
/// CRIU then gives up, where it still can.
pub(crate) fn run(env: &ActionEnv, command: Option<&Path>) -> Result<()> {
    let Some(socket) = command else { return alone(env) };
    match control::ask(socket, &env.action, env.init_pid, ANSWER_LIMIT)
        .context("ask the command that runs CRIU")?
    {
        Answer::GoOn => Ok(()),
        Answer::Stop(why) => bail!(why),
        Answer::Nobody => orphaned(env, socket),
    }
}

/// Our command has died. A dump must not end its container now, for nobody would complete the
/// checkpoint: every action fails, and CRIU lets the tasks go on. Before that their network is put
/// back by the journal, and what the freezer holds is let go: their sockets are well again by now.
fn orphaned(env: &ActionEnv, socket: &Path) -> Result<()> {
    if env.action != Action::NetworkUnlock {
        bail!("the command that started CRIU has died");
    }
    // The next command may have forbidden CRIU to write, to make it give up; what is put back now
    // has to be written down.
    for pid in [std::process::id().cast_signed(), nix::unistd::getppid().as_raw()] {
        if let Err(e) = process::allow_writing(pid) {
            log::debug!("allow process {pid} to write: {e}");
        }
    }
    let mut journal = Journal::open(&socket.with_file_name("journal"))?;
    let mut errors = ErrorList::default();
    // It goes on from here: a checkpoint that has its name already is of the past at once.
    errors.note(journal.play_back_these(&|undo| matches!(undo, Undo::Unseal { .. })));
    let mut ports = Vec::new();
    for step in journal.steps() {
        match step {
            Undo::PutPortBack(port) => ports.push(port.as_ref().clone()),
            Undo::OpenGates(gates) => errors.note(gates.open()),
            Undo::Release(seized) => errors.note(seized.thaw()),
            _ => {}
        }
    }
    errors.note(ports::unlock(&mut Netlink::open()?, &ports));
    errors.into_result()?;
    journal.forget(|s| matches!(s, Undo::PutPortBack(_) | Undo::OpenGates(_)))
}

/// CRIU was started by somebody else.
fn alone(env: &ActionEnv) -> Result<()> {
    match (&env.action, env.init_pid) {
        (Action::NetworkLock, Some(init)) => lock(&file_of(env)?, init),
        (Action::NetworkUnlock, Some(init)) => unlock(&file_of(env)?, init),
        _ => Ok(()),
    }
}

fn file_of(env: &ActionEnv) -> Result<PathBuf> {
    Ok(env.image_dir.as_ref().context("CRIU names no image directory")?.join(layout::PORTS))
}

fn network_namespace(init: i32) -> Result<File> {
    namespace::network_of(init).context("open the container's network namespace")
}

fn lock(file: &Path, init: i32) -> Result<()> {
    let mut netlink = Netlink::open()?;
    let mut found = ports::find(&mut netlink, network_namespace(init)?.as_fd())?;
    ports::add_states(&mut found, &[])?;
    // Run twice, the second run finds the ports off their bridges: what the first has noted counts.
    let earlier = read(file)?;
    let known: Vec<Port> = found
        .into_iter()
        .map(|port| {
            match earlier
                .port
                .iter()
                .find(|e| e.host == port.host && e.host_index == port.host_index)
            {
                Some(noted) if port.bridge.is_none() => noted.clone(),
                _ => port,
            }
        })
        .collect();
    let text =
        toml::to_string(&Noted { port: known.clone() }).context("put the ports into words")?;
    files::write_atomically(file, text.as_bytes())?;
    ports::lock(&mut netlink, &known, &mut |_| Ok(()))
}

fn unlock(file: &Path, init: i32) -> Result<()> {
    let noted = read(file)?;
    if noted.port.is_empty() {
        return Ok(());
    }
    let mut netlink = Netlink::open()?;
    let present =
        ports::match_restored(&mut netlink, network_namespace(init)?.as_fd(), &noted.port)?;
    ports::unlock(&mut netlink, &present)
}

fn read(file: &Path) -> Result<Noted> {
    match fs::read_to_string(file) {
        Ok(text) => toml::from_str(&text).with_context(|| format!("read {}", file.display())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Noted::default()),
        Err(e) => Err(e).with_context(|| format!("read {}", file.display())),
    }
}
