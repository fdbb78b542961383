//! Which LXC is installed.
//!
//! liblxc tells its version only to those who load it, so one of its tools is asked. That takes
//! some milliseconds; the answer is remembered for as long as the program file is the same.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::sys::{child, files};

/// Where the tool is looked for. A fixed list: `$PATH` is the caller's.
const PLACES: &[&str] = &["/usr/bin/lxc-info", "/usr/local/bin/lxc-info"];
/// More than this is no version.
const LONGEST: usize = 40;
/// How long it may take to tell it. It takes some milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// LXC's version; none where its tools are not installed, or do not tell.
pub(crate) fn find_cached(cache: &Path) -> Option<String> {
    let program = PLACES.iter().map(Path::new).find(|p| p.is_file())?;
    let meta = program.metadata().ok()?;
    let changed = (meta.ctime(), meta.ctime_nsec(), meta.mtime(), meta.mtime_nsec());
    let key =
        format!("{} {} {} {} {changed:?}", program.display(), meta.dev(), meta.ino(), meta.size());
    let kept = fs::read_to_string(cache).ok();
    if let Some((_, version)) =
        kept.as_deref().and_then(|text| text.split_once('\n')).filter(|(k, _)| *k == key)
    {
        return parse(version);
    }
    let version = ask(program)?;
    if let Err(e) = files::write_atomically(cache, format!("{key}\n{version}\n").as_bytes()) {
        log::debug!("{e:#}");
    }
    Some(version)
}

fn ask(program: &Path) -> Option<String> {
    let mut command = Command::new(program);
    command.arg("--version").env_clear().stdin(Stdio::null());
    match child::run(&mut command, LIMIT) {
        Ok(told) => parse(&told.stdout),
        Err(e) => {
            log::debug!("run {}: {e}", program.display());
            None
        }
    }
}

/// `7.0.0`, or `5.0.0~git…` of a build from git.
fn parse(text: &str) -> Option<String> {
    let text = text.trim();
    let version = text.starts_with(|c: char| c.is_ascii_digit()) && text.len() <= LONGEST;
    (version && text.chars().all(|c| c.is_ascii_graphic())).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_is_taken_for_one() {
        assert_eq!(parse("7.0.0\n").as_deref(), Some("7.0.0"));
        for bad in ["", "lxc-info: no", "7.0.0 and more", &"7".repeat(50)] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
