//! Which programs CRIU finds.
//!
//! At a dump CRIU asks up to four tools of iptables whether they are those of the old tables
//! (`iptables-save -V`), and lets them save these: six starts of programs, 13 ms and more in which
//! the container stands still. One that has no such table is dumped without them, and CRIU does the
//! same as on a host that never had them (net.c, `dump_iptables`). Tables of nftables it reads
//! itself.

use std::path::Path;

use crate::sys::spawn::SAFE_PATH;

/// What CRIU runs for the old tables.
const OF_IPTABLES: [&str; 4] =
    ["iptables-save", "iptables-legacy-save", "ip6tables-save", "ip6tables-legacy-save"];
/// What it needs all the same.
const NEEDED: [&str; 3] = ["ip", "sh", "tar"];

/// The directories in which CRIU finds all it needs but for the tools of iptables. None where these
/// lie in the same directories as the others.
pub(crate) fn search_path_without_iptables() -> Option<String> {
    without_iptables(SAFE_PATH, |dir, program| Path::new(dir).join(program).is_file())
}

fn without_iptables(path: &str, has: impl Fn(&str, &str) -> bool) -> Option<String> {
    let has_any = |dir: &str| OF_IPTABLES.iter().any(|program| has(dir, program));
    let left: Vec<&str> = path.split(':').filter(|dir| !has_any(dir)).collect();
    let complete = NEEDED.iter().all(|program| left.iter().any(|dir| has(dir, program)));
    complete.then(|| left.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[&str]) -> Option<String> {
        without_iptables("/sbin:/usr/bin:/bin", |dir, program| {
            files.contains(&format!("{dir}/{program}").as_str())
        })
    }

    #[test]
    fn directories_with_tools_of_iptables_are_left_out() {
        let debian = ["/sbin/ip", "/sbin/iptables-save", "/bin/ip", "/usr/bin/tar", "/bin/sh"];
        assert_eq!(found(&debian).as_deref(), Some("/usr/bin:/bin"));
        assert_eq!(
            found(&["/bin/ip", "/bin/tar", "/bin/sh"]).as_deref(),
            Some("/sbin:/usr/bin:/bin")
        );
    }

    #[test]
    fn what_criu_needs_is_never_hidden() {
        // All in one directory, as on a host with one directory of programs.
        assert_eq!(found(&["/bin/ip", "/bin/ip6tables-save", "/bin/tar", "/bin/sh"]), None);
        assert_eq!(found(&["/sbin/ip", "/sbin/iptables-save", "/usr/bin/tar", "/bin/sh"]), None);
    }
}
