//! Work on a thread of its own: one that enters a namespace, or traces, and then ends.

use std::{io, panic, thread};

/// Does `work` on a new thread and waits for its end.
///
/// # Errors
/// Where no thread can be started.
#[expect(clippy::disallowed_methods, reason = "as long as the work, whose own waits have limits")]
pub(crate) fn on_a_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|crash| panic::resume_unwind(crash)))
    })
}
