//! Whether a container's memory can follow it, and should.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::Result;

use crate::settings::Lazy;
use crate::store::record::Record;
use crate::sys::userfaultfd::Userfaultfd;

use super::Source;

/// `auto` wants this much memory that can follow, in bytes: less is there in a quarter of a second.
const WORTH_IT: u64 = 256 << 20;
/// `auto` wants that at most one part in so many would be there more than once.
const MOST_SHARED: u64 = 10;
/// The kernel's word on who may handle faults of the kernel's own.
const UNPRIVILEGED: &str = "/proc/sys/vm/unprivileged_userfaultfd";

/// What was decided.
#[derive(Debug)]
pub(crate) enum Decision {
    /// It follows, from there.
    Lazy(Source),
    /// It comes first; why, where the other was asked for.
    Eager(Option<String>),
}

/// Decides for a checkpoint, and a container with a user namespace of its own or without.
///
/// # Errors
/// When an image cannot be read.
pub(crate) fn decide(
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
            "the checkpoint has no checksums of single blocks of memory (it was made by an older \
             release)",
        );
    };
    match wanted == Lazy::Always || is_worth_it(source.addresses()) {
        true => Ok(Decision::Lazy(source)),
        false => Ok(Decision::Eager(None)),
    }
}

/// Much, and little of it shared: pages that processes share until one of them writes are not
/// shared any more when each gets them on its own. They have the same addresses in all of these;
/// those of programs that were started on their own differ.
fn is_worth_it(mut addresses: Vec<Range<u64>>) -> bool {
    addresses.sort_unstable_by_key(|range| range.start);
    let (mut all, mut once, mut end) = (0u64, 0u64, 0u64);
    for range in addresses {
        all = all.saturating_add(range.end.saturating_sub(range.start));
        once = once.saturating_add(range.end.saturating_sub(range.start.max(end)));
        end = end.max(range.end);
    }
    all >= WORTH_IT && (all - once) * MOST_SHARED <= all
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
        "the kernel allows a container with an id map no userfaultfd (sysctl \
         vm.unprivileged_userfaultfd is not 1)"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_wants_much_memory_that_is_not_shared() {
        const MIB: u64 = 1 << 20;
        let of = |parts: &[(u64, u64)]| -> Vec<Range<u64>> {
            parts.iter().map(|(start, length)| start * MIB..(start + length) * MIB).collect()
        };
        for (parts, expected) in [
            (of(&[]), false),
            (of(&[(0, 200)]), false),
            (of(&[(0, 256), (1000, 1)]), true),
            // Two servers beside each other.
            (of(&[(0, 300), (5000, 300)]), true),
            // A server with children that share all of it, whichever comes first.
            (of(&[(100, 300), (100, 300), (100, 300)]), false),
            (of(&[(200, 100), (100, 300), (150, 20)]), false),
            // One that has forked and shares a little.
            (of(&[(0, 4096), (0, 100), (8000, 100)]), true),
        ] {
            assert_eq!(is_worth_it(parts.clone()), expected, "{parts:?}");
        }
    }
}
