//! Pseudo terminals: a pair of descriptors, of which whoever holds the master is the user at the
//! terminal.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, fcntl_getfl, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, Winsize,
    tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

/// A new pseudo terminal. It is gone when both ends are closed.
#[derive(Debug)]
pub struct Pty {
    /// The end of the user; reads and writes of it never wait.
    pub master: OwnedFd,
    /// The end of the programs. It never becomes the controlling terminal of who opened it.
    pub slave: OwnedFd,
    /// The path of the programs' end.
    pub path: PathBuf,
}

impl Pty {
    /// Opens a new one in the devpts of our mount namespace.
    pub fn open() -> io::Result<Pty> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(
            &master,
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        )?;
        let name = ptsname(&master, Vec::new())?;
        let path = Path::new(OsStr::from_bytes(name.to_bytes())).to_owned();
        never_wait(master.as_fd())?;
        Ok(Pty { master, slave, path })
    }

    /// Gives the programs' end to another user and group, with these permissions.
    pub fn give_to(&self, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
        fchown(&self.slave, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        Ok(fchmod(&self.slave, Mode::from_raw_mode(mode))?)
    }
}

/// Reads and writes of this descriptor, and of all that share its open file, return at once.
pub(crate) fn never_wait(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?)
}

/// Whether this is a terminal.
pub(crate) fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    rustix::termios::isatty(fd)
}

/// Gives `to` the window size of `from`.
pub(crate) fn copy_window_size(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let size: Winsize = tcgetwinsize(from)?;
    Ok(tcsetwinsize(to, size)?)
}

/// A terminal's settings, to be given back.
#[derive(Debug)]
pub(crate) struct Settings(Termios);

/// Makes a terminal pass on each key at once and unchanged, as liblxc does (terminal.c,
/// `lxc_setup_tios`): what keys mean is decided by the terminal at the other end. Returns the
/// settings that it had.
pub(crate) fn pass_keys_on(fd: BorrowedFd<'_>) -> io::Result<Settings> {
    let before = tcgetattr(fd)?;
    let mut settings = before.clone();
    settings.input_modes |= InputModes::IGNPAR;
    settings.input_modes &= !(InputModes::ISTRIP
        | InputModes::INLCR
        | InputModes::IGNCR
        | InputModes::ICRNL
        | InputModes::IXON
        | InputModes::IXANY
        | InputModes::IXOFF
        | InputModes::IUCLC);
    settings.local_modes &= !(LocalModes::TOSTOP
        | LocalModes::ISIG
        | LocalModes::ICANON
        | LocalModes::ECHO
        | LocalModes::ECHOE
        | LocalModes::ECHOK
        | LocalModes::ECHONL
        | LocalModes::IEXTEN);
    settings.output_modes |= OutputModes::ONLCR | OutputModes::OPOST;
    settings.special_codes[SpecialCodeIndex::VMIN] = 1;
    settings.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(fd, OptionalActions::Flush, &settings)?;
    Ok(Settings(before))
}

/// Gives a terminal its settings back.
pub(crate) fn restore_settings(fd: BorrowedFd<'_>, settings: &Settings) -> io::Result<()> {
    Ok(tcsetattr(fd, OptionalActions::Flush, &settings.0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_there_and_the_path_leads_to_one() {
        let pty = Pty::open().unwrap();
        assert!(is_terminal(pty.slave.as_fd()));
        rustix::io::write(&pty.slave, b"x\n").unwrap();
        let mut bytes = [0; 8];
        assert_eq!(rustix::io::read(&pty.master, &mut bytes).unwrap(), 3, "CR LF");
        assert_eq!(
            rustix::io::read(&pty.master, &mut bytes).unwrap_err(),
            rustix::io::Errno::AGAIN
        );
        let (by_path, by_fd) =
            (rustix::fs::stat(&pty.path).unwrap(), rustix::fs::fstat(&pty.slave).unwrap());
        assert_eq!((by_path.st_rdev, by_path.st_dev), (by_fd.st_rdev, by_fd.st_dev));
    }

    #[test]
    fn settings_are_given_back() {
        let pty = Pty::open().unwrap();
        let echo = || tcgetattr(&pty.slave).unwrap().local_modes.contains(LocalModes::ECHO);
        let before = pass_keys_on(pty.slave.as_fd()).unwrap();
        assert!(!echo());
        restore_settings(pty.slave.as_fd(), &before).unwrap();
        assert!(echo());
    }
}
