//! Which checkpoints a subcommand is about: those of a container, those in a directory, or all.

use std::path::{Path, PathBuf};

use crate::cli::common::{LxcOptions, absolute};
use crate::error::{Exit, Failure, OrExit, Result};
use crate::lxc::name::{ContainerName, LxcPath};
use crate::store::known;
use crate::store::list::{self, Entry};
use crate::store::register::Register;

/// What is named on the command line.
#[derive(Debug)]
pub(super) enum Chosen {
    /// A container.
    Container(ContainerName),
    /// A directory: a checkpoint, or one in which checkpoints lie.
    Directory(PathBuf),
    /// All containers.
    All,
}

impl Chosen {
    /// What is meant: what has a slash in it is a directory, anything else the name of a container.
    pub(super) fn of(lxc: &LxcOptions) -> Result<Chosen> {
        match lxc.called() {
            None => Ok(Chosen::All),
            Some(called) if lxc.name.is_none() && is_path(called) => {
                Ok(Chosen::Directory(absolute(Path::new(called))?))
            }
            Some(_) => Ok(Chosen::Container(lxc.container()?.0)),
        }
    }

    /// The checkpoints.
    ///
    /// # Errors
    /// Exit 3 where there is no such container, and no checkpoint of one; or no such directory.
    pub(super) fn find(&self, lxcpath: &LxcPath) -> Result<Vec<Entry>> {
        match self {
            Chosen::All => Ok(known::all(&Register::of_host(), lxcpath, None)?),
            Chosen::Directory(dir) if !dir.is_dir() => Err(Failure::msg(
                Exit::WrongState,
                format!("there is no directory {}", dir.display()),
            )),
            Chosen::Directory(dir) => Ok(list::find_in(dir, lxcpath).or_exit(Exit::Other)?),
            Chosen::Container(name) => {
                let found = known::all(&Register::of_host(), lxcpath, Some(name))?;
                if found.is_empty() && !lxcpath.config_file(name).exists() {
                    let text = format!(
                        "there is no container {name} in {lxcpath}, and no checkpoint of one"
                    );
                    return Err(Failure::msg(Exit::WrongState, text).hint(
                        "lxc-ls shows the containers, lxc-cr list all checkpoints; -P chooses \
                         another directory",
                    ));
                }
                Ok(found)
            }
        }
    }
}

/// Whether a word on the command line is a path.
pub(super) fn is_path(word: &str) -> bool {
    word.contains('/') || matches!(word, "." | "..")
}
