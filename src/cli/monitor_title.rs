//! How a container's monitor calls itself: by that name it is started, and found in the log.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How the title of every LXC monitor begins.
const TITLE: &str = "[lxc monitor] ";

/// The title of a container's monitor, as liblxc makes it (start.c, `lxc_setproctitle`).
pub(crate) fn title(lxcpath: &Path, name: &str) -> String {
    format!("{TITLE}{} {name}", lxcpath.display())
}

/// Whether this process was started to be a monitor.
pub(crate) fn is_meant() -> bool {
    let mut arguments = std::env::args_os();
    let first = arguments.next().unwrap_or_default();
    first.as_bytes().starts_with(TITLE.as_bytes()) && arguments.next().is_none()
}
