//! The ranges of ids that root may give to containers: /etc/subuid and /etc/subgid. Pure but for
//! reading the two.

use super::root::Root;
use crate::preflight::Finding;
use crate::prepare::change::Change;

const FILES: [&str; 2] = ["etc/subuid", "etc/subgid"];
/// Where Debian's useradd begins.
const FIRST: u64 = 100_000;
/// As many as a container has.
const COUNT: u64 = 65_536;

/// A line of such a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    owner: String,
    start: u64,
    count: u64,
}

fn ranges(text: &str) -> Vec<Range> {
    let parse = |line: &str| {
        let mut fields = line.trim().split(':');
        let (owner, start, count) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Range {
            owner: owner.to_owned(),
            start: start.parse().ok()?,
            count: count.parse().ok()?,
        })
    };
    text.lines().filter_map(parse).collect()
}

/// Whether root has a range for a container.
fn has_roots(ranges: &[Range]) -> bool {
    ranges.iter().any(|r| ["root", "0"].contains(&r.owner.as_str()) && r.count >= COUNT)
}

/// The first ids that are nobody's yet.
fn free(all: &[Range]) -> u64 {
    let mut start = FIRST;
    loop {
        let taken = all
            .iter()
            .filter(|r| r.start < start + COUNT && start < r.start.saturating_add(r.count));
        match taken.map(|r| r.start.saturating_add(r.count)).max() {
            None => return start,
            Some(end) => start = end,
        }
    }
}

/// What root lacks, and the files with it.
pub(super) fn plan(root: &Root) -> anyhow::Result<(Vec<Finding>, Vec<Change>)> {
    let found = FILES.map(|file| ranges(&root.text(file).unwrap_or_default()));
    let start = free(&found.concat());
    let (mut findings, mut changes) = (Vec::new(), Vec::new());
    for (file, ranges) in FILES.iter().zip(&found) {
        if has_roots(ranges) {
            continue;
        }
        let line = format!("root:{start}:{COUNT}\n");
        findings.push(
            Finding::note(
                format!("root has no range of {COUNT} ids in /{file}"),
                "containers with an id map are made with them",
            )
            .remedy(format!("echo {} >> /{file}", line.trim_end())),
        );
        changes.extend(root.append(file, &line)?);
    }
    Ok((findings, changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_elses_ids_are_taken() {
        assert_eq!(free(&[]), 100_000);
        assert_eq!(free(&ranges("a:100000:65536\nb:165536:65536\n")), 231_072);
        assert_eq!(free(&ranges("b:165536:65536\n# x\nodd:x:y\n")), 100_000);
        assert_eq!(free(&ranges("c:120000:10\n")), 120_010);
        assert!(
            has_roots(&ranges("root:1000000:65536")) && has_roots(&ranges("0:1000000:1000000000"))
        );
        assert!(!has_roots(&ranges("root:100000:1000\nme:100000:65536")));
    }
}
