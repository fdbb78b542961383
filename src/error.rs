//! How a command fails: an exit code that scripts can branch on, and a message for a person.
//!
//! Lower layers return `anyhow::Error` (or a small enum where a caller branches on it) with the
//! bare cause. The stories (`checkpoint`, `restore`, …) know what the user wanted and in which
//! state the container is now; they turn the cause into a [`Failure`]. `cli` prints it, in one
//! place.

use std::fmt;
use std::path::PathBuf;

use crate::report::shown;

/// What a command's exit status says. Documented in every man page and in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// A failure that has no code of its own.
    Other = 1,
    /// The command line is wrong.
    Usage = 2,
    /// There is no such container, or it is not in the state that was asked for.
    WrongState = 3,
    /// The preflight found something that stands in the way; nothing was touched.
    Refused = 4,
    /// CRIU failed; the container is as before.
    CriuFailed = 5,
    /// CRIU failed and the container is lost; its images are kept.
    ContainerLost = 6,
    /// A time limit was reached.
    TimeLimit = 7,
    /// Something could not be undone; the message names it.
    RollbackIncomplete = 8,
    /// The checkpoint is damaged, incomplete, or cannot be used here.
    BadCheckpoint = 9,
    /// Another operation holds this container.
    Busy = 10,
}

impl Exit {
    /// The status for `exit(3)`.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The exit that a status stands for; a status of nobody's is a failure of the other kind.
    pub fn from_code(code: u8) -> Exit {
        use Exit::*;
        let all = [
            Done,
            Other,
            Usage,
            WrongState,
            Refused,
            CriuFailed,
            ContainerLost,
            TimeLimit,
            RollbackIncomplete,
            BadCheckpoint,
            Busy,
        ];
        all.into_iter().find(|e| e.code() == code).unwrap_or(Other)
    }
}

/// Why a command failed, as the user will read it.
#[derive(Debug)]
pub struct Failure {
    /// The exit status.
    pub exit: Exit,
    /// What could not be done, and the chain of causes.
    pub cause: anyhow::Error,
    /// More of it, each on a line of its own.
    pub details: Option<Box<Details>>,
    /// What to do now, in one imperative sentence.
    pub hint: Option<String>,
    /// The log that tells more.
    pub log: Option<PathBuf>,
    /// The state of the container now, for example "test-lxc is running as before".
    pub state: Option<String>,
}

/// Lines below a failure's own. (Behind a pointer: a result is as large as its error.)
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Details(Vec<String>);

/// Why a command was given up that a signal has asked to end: who begins more than one thing has to
/// know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted by signal {0}")]
pub(crate) struct Interrupted(pub i32);

/// The result of a story.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with its exit code and cause, and nothing else to say yet.
    pub fn new(exit: Exit, cause: impl Into<anyhow::Error>) -> Failure {
        Failure { exit, cause: cause.into(), details: None, hint: None, log: None, state: None }
    }

    /// A failure whose cause is just this text.
    pub fn msg(exit: Exit, text: impl fmt::Display) -> Failure {
        Failure::new(exit, anyhow::anyhow!("{text}"))
    }

    /// Whether a signal is the reason.
    pub fn is_interruption(&self) -> bool {
        self.cause.is::<Interrupted>()
    }

    /// Adds a line to it.
    pub fn detail(mut self, line: impl Into<String>) -> Failure {
        self.details.get_or_insert_default().0.push(line.into());
        self
    }

    /// Adds what the user can do.
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the log file that tells more.
    pub fn log(mut self, log: impl Into<PathBuf>) -> Failure {
        self.log = Some(log.into());
        self
    }

    /// Adds the state of the container now.
    pub fn state(mut self, state: impl Into<String>) -> Failure {
        self.state = Some(state.into());
        self
    }
}

impl fmt::Display for Failure {
    /// The chain of causes on one line, and the details below it; hint, log and state are for `cli`
    /// to lay out. Names that a container has given begin no line of their own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&format!("{:#}", self.cause)))?;
        self.details
            .iter()
            .flat_map(|details| &details.0)
            .try_for_each(|line| write!(f, "\n  {}", shown(line)))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(cause: anyhow::Error) -> Failure {
        Failure::new(Exit::Other, cause)
    }
}

/// Gives the error of a lower layer its exit code on the way up.
pub(crate) trait OrExit<T> {
    /// On error: a [`Failure`] with this exit code.
    fn or_exit(self, exit: Exit) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for std::result::Result<T, E> {
    fn or_exit(self, exit: Exit) -> Result<T> {
        self.map_err(|e| Failure::new(exit, e))
    }
}

/// The errors of a clean-up, which goes on after each of them and tells all at the end.
#[derive(Debug, Default)]
pub(crate) struct ErrorList(Vec<anyhow::Error>);

impl ErrorList {
    /// Notes the error of one step, if there is one.
    pub(crate) fn note<T>(&mut self, result: anyhow::Result<T>) {
        if let Err(e) = result {
            self.0.push(e);
        }
    }

    /// Everything that went wrong as one error; `Ok` when nothing did.
    pub(crate) fn into_result(self) -> anyhow::Result<()> {
        let mut errors = self.0;
        match errors.len() {
            0 => Ok(()),
            // As it is: somebody may ask what kind of error it was.
            1 => errors.pop().map_or(Ok(()), Err),
            _ => {
                let text: Vec<String> = errors.iter().map(|e| format!("{e:#}")).collect();
                Err(anyhow::anyhow!(text.join("; ")))
            }
        }
    }
}
