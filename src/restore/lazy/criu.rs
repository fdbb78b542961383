//! What CRIU says on its lazy-pages socket (criu/uffd.c): for each task its pid as an `int`, and
//! with the next byte its userfaultfd; of a zombie, which has none, the negative pid. A number that
//! is no pid says that all run.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::sys::fdpass;
use crate::sys::userfaultfd::Userfaultfd;

/// `LAZY_PAGES_RESTORE_FINISHED`.
const FINISHED: i32 = 0x5253_5446;
/// How long the second half of a message may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A message.
#[derive(Debug)]
pub(super) enum Message {
    /// The memory of a task, with its pid in the container.
    Task(u32, Userfaultfd),
    /// One without memory.
    Zombie,
    /// All is restored.
    Finished,
    /// It has closed the socket.
    End,
}

/// Reads the next message; one has begun to come.
///
/// # Errors
/// Those of recvmsg(2), and `InvalidData` where it is not what CRIU sends.
pub(super) fn read(connection: &UnixStream) -> io::Result<Message> {
    connection.set_read_timeout(Some(LIMIT))?;
    let mut number = [0; 4];
    let mut filled = 0;
    while filled < number.len() {
        match fdpass::recv_with_fds(connection.as_fd(), &mut number[filled..], 0)? {
            (0, ..) if filled == 0 => return Ok(Message::End),
            (0, ..) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (length, ..) => filled += length,
        }
    }
    match i32::from_ne_bytes(number) {
        FINISHED => Ok(Message::Finished),
        pid if pid < 0 => Ok(Message::Zombie),
        pid => {
            let (length, mut fds, _) = fdpass::recv_with_fds(connection.as_fd(), &mut [0], 1)?;
            match (length, fds.pop()) {
                (1, Some(fd)) => Ok(Message::Task(pid.cast_unsigned(), Userfaultfd::new(fd))),
                _ => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "CRIU sends a pid without a descriptor",
                )),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{IoSlice, Write};

    #[test]
    fn messages_are_told_apart_however_they_come() {
        let (mut criu, ours) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        criu.write_all(&17i32.to_ne_bytes()).unwrap();
        fdpass::send_with_fds(criu.as_fd(), &[IoSlice::new(&[0])], &[file.as_fd()], None).unwrap();
        criu.write_all(&(-18i32).to_ne_bytes()).unwrap();
        criu.write_all(&FINISHED.to_ne_bytes()).unwrap();
        drop(criu);
        assert!(matches!(read(&ours).unwrap(), Message::Task(17, _)));
        assert!(matches!(read(&ours).unwrap(), Message::Zombie));
        assert!(matches!(read(&ours).unwrap(), Message::Finished));
        assert!(matches!(read(&ours).unwrap(), Message::End));
    }
}
