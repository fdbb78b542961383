//! Terminals behind descriptors.

use std::os::fd::BorrowedFd;

use super::open::Open;
use super::proc::{Numbers, digest};
use super::snapshot::Snapshot;
use super::state::{Class, PutBack, State, states};
use crate::sys::kernel_state;

states! { all;
    MODES = "terminal.modes", PutBack::Criu, Class::Breaks, "keys echo or edit otherwise";
    WINDOW = "terminal.window", PutBack::Criu, Class::Bearable, "programs draw for another size";
    DISCIPLINE = "terminal.line-discipline", PutBack::Us, Class::Breaks, "what is written is understood otherwise";
    LOCKED = "terminal.locked", PutBack::Criu, Class::Breaks, "its other end cannot be opened, or can";
    PACKET = "terminal.packet-mode", PutBack::Criu, Class::Breaks, "what is read from it begins otherwise";
    EXCLUSIVE = "terminal.exclusive", PutBack::Criu, Class::Weakens, "others may open the terminal";
    NUMBER = "terminal.number", PutBack::Criu, Class::Breaks, "its other end has another name";
    FOREGROUND = "terminal.foreground", PutBack::Criu, Class::Breaks, "keys signal another group";
    SESSION = "terminal.session", PutBack::Criu, Class::Breaks, "it is no longer the terminal of its session";
    INPUT = "terminal.unread", PutBack::Cannot("CRIU does not save it"), Class::Breaks, "keys that were typed are lost";
}

/// Its rows.
pub(super) fn rows() -> Vec<&'static State> {
    all()
}

/// Enters what a terminal says of itself; nothing for what is none.
pub(super) fn enter(open: &Open, fd: BorrowedFd<'_>, numbers: &Numbers, snapshot: &mut Snapshot) {
    if !open.is_file() {
        return;
    }
    // `struct termios2` has 44 bytes.
    let Ok(modes) = kernel_state::request::<44>(fd, TCGETS2) else { return };
    let mut enter = |state, value: String| snapshot.enter(open.subject(), state, value);
    enter(&MODES, digest(&modes));
    let number = |request| kernel_state::request::<4>(fd, request).map(i32::from_ne_bytes);
    if let Ok(window) = kernel_state::request::<8>(fd, libc::TIOCGWINSZ) {
        let size = |at: usize| u16::from_ne_bytes([window[at], window[at + 1]]);
        enter(&WINDOW, format!("{} rows {} columns {} {}", size(0), size(2), size(4), size(6)));
    }
    let states: [(libc::Ioctl, &'static State); 6] = [
        (libc::TIOCGETD, &DISCIPLINE),
        (TIOCGPTLCK, &LOCKED),
        (TIOCGPKT, &PACKET),
        (TIOCGEXCL, &EXCLUSIVE),
        (TIOCGPTN, &NUMBER),
        (libc::FIONREAD, &INPUT),
    ];
    for (request, state) in states {
        // Some are only for one of its ends.
        if let Ok(value) = number(request) {
            enter(state, value.to_string());
        }
    }
    for (request, state) in [(libc::TIOCGPGRP, &FOREGROUND), (libc::TIOCGSID, &SESSION)] {
        if let Ok(value) = number(request) {
            enter(state, numbers.owner(value));
        }
    }
}

/// include/uapi/asm-generic/ioctls.h.
const TCGETS2: libc::Ioctl = 0x802c_542a;
const TIOCGPTN: libc::Ioctl = 0x8004_5430;
const TIOCGPKT: libc::Ioctl = 0x8004_5438;
const TIOCGPTLCK: libc::Ioctl = 0x8004_5439;
const TIOCGEXCL: libc::Ioctl = 0x8004_5440;
