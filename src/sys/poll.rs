//! Waiting for descriptors: poll(2), its interruptions and the rounding of its limit in one place.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Waits until one of these can be read, or its other end is gone, or, as a pidfd, its process has
/// ended; gives for each whether it is so. None is when `limit` has passed or a signal was handled
/// meanwhile: callers wait in a loop with a limit of their own.
///
/// # Errors
/// As poll(2), but for `EINTR`.
pub(crate) fn readable<const N: usize>(
    watched: [BorrowedFd<'_>; N],
    limit: Duration,
) -> io::Result<[bool; N]> {
    let come = readable_among(&watched, limit)?;
    Ok(std::array::from_fn(|i| come.get(i) == Some(&true)))
}

/// As [`readable`], for as many as there are.
///
/// # Errors
/// As [`readable`].
pub(crate) fn readable_among(watched: &[BorrowedFd<'_>], limit: Duration) -> io::Result<Vec<bool>> {
    wait(watched, timeout(limit))
}

/// As [`readable_among`], but for ever where there is no limit: for what has nothing else to do.
///
/// # Errors
/// As [`readable`].
pub(crate) fn readable_at_last(
    watched: &[BorrowedFd<'_>],
    limit: Option<Duration>,
) -> io::Result<Vec<bool>> {
    wait(watched, limit.map_or(PollTimeout::NONE, timeout))
}

#[expect(clippy::disallowed_methods, reason = "with the limit of the caller")]
fn wait(watched: &[BorrowedFd<'_>], limit: PollTimeout) -> io::Result<Vec<bool>> {
    let mut fds: Vec<PollFd<'_>> =
        watched.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match poll(&mut fds, limit) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(e) => return Err(e.into()),
    }
    Ok(fds.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect())
}

/// In milliseconds, rounded up: the rest of one must not become a busy loop.
fn timeout(limit: Duration) -> PollTimeout {
    let milliseconds = limit.as_nanos().div_ceil(1_000_000);
    i32::try_from(milliseconds)
        .ok()
        .and_then(|ms| PollTimeout::try_from(ms).ok())
        .unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_can_be_read_is_told_apart() {
        let (quiet, _writer) = io::pipe().unwrap();
        let (full, mut writer) = io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        let (over, end) = io::pipe().unwrap();
        drop(end);
        let watched = [quiet.as_fd(), full.as_fd(), over.as_fd()];
        let come = readable_at_last(&watched, None).unwrap();
        assert_eq!(come, [false, true, true]);
    }

    #[test]
    fn a_limit_is_kept_and_is_not_cut_short() {
        let (quiet, _writer) = io::pipe().unwrap();
        let begin = Instant::now();
        let limit = Duration::from_micros(1_500);
        assert_eq!(readable([quiet.as_fd()], limit).unwrap(), [false]);
        assert!(begin.elapsed() >= limit);
        assert_eq!(timeout(Duration::ZERO), PollTimeout::ZERO);
        assert_eq!(timeout(Duration::from_nanos(1)), PollTimeout::from(1_u8));
        assert_eq!(timeout(Duration::MAX), PollTimeout::MAX);
    }
}
