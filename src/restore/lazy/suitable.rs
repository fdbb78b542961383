//! Whether a container's memory can follow it, and should.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::settings::Lazy;
use crate::store::record::Record;
use crate::sys::userfaultfd::Userfaultfd;

use super::Source;

/// `auto` wants this much memory that can follow, in bytes: less is there in a quarter of a second.
const WORTH_IT: u64 = 256 << 20;
/// The kernel's word on who may handle faults of the kernel's own.
const UNPRIVILEGED: &str = "/proc/sys/vm/unprivileged_userfaultfd";

/// What was decided.
#[derive(Debug)]
pub enum Decision {
    /// It follows, from there.
    Lazy(Source),
    /// It comes first; why, where the other was asked for.
    Eager(Option<String>),
}

/// Decides for a checkpoint, and a container with a user namespace of its own or without.
///
/// # Errors
/// When an image cannot be read.
pub fn decide(
    wanted: Lazy,
    record: Option<&Record>,
    images: &Path,
    id_mapped: bool,
) -> Result<Decision> {
    if wanted == Lazy::Never {
        return Ok(Decision::Eager(None));
    }
    let because = |reason: &str| {
        let asked = wanted == Lazy::Always;
        Ok(Decision::Eager(
            asked.then(|| format!("all of its memory is restored before it runs: {reason}")),
        ))
    };
    if let Some(reason) = hindrance(id_mapped) {
        return because(&reason);
    }
    let Some(record) = record else { return because("the checkpoint has no record") };
    let Some(source) = Source::open(record, images)? else {
        return because(
            "the checkpoint has no checksums of single blocks of memory (it was made by an older release)",
        );
    };
    let bytes = source.bytes_of_tasks();
    match wanted == Lazy::Always || is_worth_it(&bytes) {
        true => Ok(Decision::Lazy(source)),
        false => Ok(Decision::Eager(None)),
    }
}

/// Much, and most of it one process's: pages that processes share until one of them writes are not
/// shared when each gets them on its own.
fn is_worth_it(bytes: &[u64]) -> bool {
    let all: u64 = bytes.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes));
    let largest = bytes.iter().copied().max().unwrap_or(0);
    all >= WORTH_IT && largest >= all / 4 * 3
}

/// What of the kernel's stands in the way.
fn hindrance(id_mapped: bool) -> Option<String> {
    match Userfaultfd::is_complete() {
        Ok(true) => {}
        Ok(false) => return Some("this kernel's userfaultfd does not tell of forks".to_owned()),
        Err(e) => return Some(format!("this kernel gives no userfaultfd: {e}")),
    }
    // CRIU opens it as the container's root, and the kernel asks for CAP_SYS_PTRACE on the host
    // (fs/userfaultfd.c).
    let allowed = fs::read_to_string(UNPRIVILEGED).is_ok_and(|text| text.trim() == "1");
    (id_mapped && !allowed).then(|| {
        "the kernel allows a container with an id map no userfaultfd (sysctl vm.unprivileged_userfaultfd is not 1)"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_wants_much_memory_of_one_process() {
        const MIB: u64 = 1 << 20;
        for (bytes, expected) in [
            (vec![], false),
            (vec![200 * MIB], false),
            (vec![256 * MIB, MIB], true),
            // A server with children that share all of it.
            (vec![300 * MIB, 300 * MIB, 300 * MIB], false),
            (vec![4096 * MIB, 100 * MIB, 100 * MIB], true),
        ] {
            assert_eq!(is_worth_it(&bytes), expected, "{bytes:?}");
        }
    }
}
