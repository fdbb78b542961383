//! Which checkpoint of a container a command takes, where no directory is named.

use std::path::PathBuf;

use crate::error::{Exit, Failure, Result};
use crate::lxc::name::{ContainerName, LxcPath};
use crate::lxc::shell;
use crate::store::calendar::Calendar;
use crate::store::kept::At;
use crate::store::list::State;
use crate::store::register::Register;
use crate::store::{known, resume_mark};

/// The directory of the checkpoint that is meant by `--at`.
///
/// # Errors
/// Exit 3 where the container has none of that time or label, or it is out of reach; exit 9 where
/// it is damaged.
pub(super) fn checkpoint_at(at: &At, name: &ContainerName, lxcpath: &LxcPath) -> Result<PathBuf> {
    let entries = known::all(&Register::of_host(), lxcpath, Some(name))?;
    let list = format!("lxc-cr list {} shows those that there are", shell::options(name, lxcpath));
    let Some(entry) = at.find(&entries, &Calendar::of_host()) else {
        let text = match at {
            At::Latest => format!("there is no checkpoint of {name}"),
            At::Time(time) => {
                format!("there is no checkpoint of {name} whose time begins with {time}")
            }
            At::Label(label) => format!("there is no checkpoint of {name} with the label {label}"),
        };
        return Err(Failure::msg(Exit::WrongState, text).hint(list));
    };
    let dir = entry.directory.display();
    match entry.state {
        State::NotMounted => Err(Failure::msg(
            Exit::WrongState,
            format!("{dir} is on a file system that is not mounted"),
        )
        .hint("mount it, or choose another one: ".to_owned() + &list)),
        State::NoAnswer => {
            Err(Failure::msg(Exit::WrongState, format!("the server of {dir} does not answer"))
                .hint("choose another one: ".to_owned() + &list))
        }
        State::Damaged => {
            let damage = entry.damage.as_deref().unwrap_or("it cannot be read");
            Err(Failure::msg(Exit::BadCheckpoint, format!("{dir} is damaged: {damage}"))
                .hint("choose another one: ".to_owned() + &list))
        }
        _ => Ok(entry.directory.clone()),
    }
}

/// The checkpoint of a suspended container.
///
/// # Errors
/// Exit 3 where there is none.
pub(super) fn own_checkpoint(name: &ContainerName, lxcpath: &LxcPath) -> Result<PathBuf> {
    let dir = resume_mark::dir(&lxcpath.container_dir(name));
    if dir.symlink_metadata().is_ok() || !lxcpath.config_file(name).exists() {
        return Ok(dir);
    }
    let named = shell::options(name, lxcpath);
    let others = known::all(&Register::of_host(), lxcpath, Some(name)).unwrap_or_default();
    let hint = match At::Latest.find(&others, &Calendar::of_host()) {
        Some(_) => {
            format!(
                "lxc-restart {named} --at latest takes the newest of its others, lxc-cr list \
                 {named} shows them"
            )
        }
        None => format!(
            "start it: lxc-start {named}; lxc-checkpoint {named} makes a checkpoint of it then"
        ),
    };
    Err(Failure::msg(
        Exit::WrongState,
        format!("it is not suspended: there is no {}", dir.display()),
    )
    .hint(hint))
}
