//! The areas of a process's memory: where, with which rights and advice, of which file. Not what is
//! in them.
//!
//! The kernel joins and splits areas as it likes; what lies side by side and is alike counts as
//! one.

use std::io::{self, BufRead, BufReader};

use super::compare::plain;
use super::family::Family;
use super::proc::{Thread, processes, without_ghost};
use super::snapshot::{Snapshot, Standing, Subject};
use super::state::{Class, PutBack, State, states};

/// Memory areas.
pub(crate) const FAMILY: Family = Family { name: "areas", states: rows, read };

states! { rows;
    AREA = "area", PutBack::Criu, Class::Breaks, "the memory is not there, or larger or smaller";
    RIGHTS = "area.rights", PutBack::Criu, Class::Weakens, "memory can be written or executed that could not, or the reverse";
    BACKING = "area.file", PutBack::Criu, Class::Breaks, "it shows another file";
    POSSIBLE = "area.possible-rights", PutBack::Criu, Class::Weakens, "memory can be made writable or executable that could not";
    LOCK = "area.locked", PutBack::Criu, Class::Breaks, "secrets may be written to swap, or real-time work waits for the disk";
    FORK = "area.fork", PutBack::Criu, Class::Weakens, "children get memory that they did not, or no longer do";
    DUMP = "area.core-dump", PutBack::Criu, Class::Weakens, "core dumps hold secrets, or lack memory";
    PAGES = "area.huge-pages", PutBack::Criu, Class::Bearable, "it is slower, or takes more memory";
    MERGE = "area.mergeable", PutBack::Criu, Class::Bearable, "it takes more memory";
    READ_AHEAD = "area.read-ahead", PutBack::Criu, Class::Bearable, "files are read ahead otherwise";
    PROTECTION = "area.protection-key", PutBack::Criu, Class::Weakens, "its protection key protects other memory";
    SEALED = "area.sealed", PutBack::Cannot("CRIU does not save it"), Class::Weakens, "memory that could not be unmapped or changed can be";
    SHADOW = "area.shadow-stack", PutBack::Criu, Class::Weakens, "return addresses are not protected as before";
    ACCOUNT = "area.accounted", PutBack::Criu, Class::Varies, "it depends on the order in which rights were changed";
    POLICY = "area.numa-policy", PutBack::Cannot("CRIU does not save it"), Class::Bearable, "it gets memory of other nodes";
}

/// Flags of `VmFlags` in smaps and what they are of.
static FLAGS: &[(&str, &State)] = &[
    ("mr", &POSSIBLE),
    ("mw", &POSSIBLE),
    ("me", &POSSIBLE),
    ("ms", &POSSIBLE),
    ("lo", &LOCK),
    ("lf", &LOCK),
    ("dc", &FORK),
    ("wf", &FORK),
    ("dd", &DUMP),
    ("hg", &PAGES),
    ("nh", &PAGES),
    ("ht", &PAGES),
    ("mg", &MERGE),
    ("sr", &READ_AHEAD),
    ("rr", &READ_AHEAD),
    ("sl", &SEALED),
    ("ss", &SHADOW),
    ("ac", &ACCOUNT),
    ("nr", &ACCOUNT),
];

/// An area as it is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Area {
    start: u64,
    end: u64,
    rights: String,
    offset: u64,
    file: String,
    flags: Vec<String>,
    key: String,
    policy: String,
}

impl Area {
    /// Whether another one goes on where this one ends, and is alike.
    fn is_continued_by(&self, next: &Area) -> bool {
        let is_file = self.file.starts_with('/');
        self.end == next.start
            && self.rights == next.rights
            && self.file == next.file
            && self.shown_flags() == next.shown_flags()
            && self.key == next.key
            && self.policy == next.policy
            && (!is_file || self.offset + (self.end - self.start) == next.offset)
    }

    fn shown_flags(&self) -> Vec<&str> {
        self.flags
            .iter()
            .map(String::as_str)
            .filter(|flag| FLAGS.iter().any(|(f, s)| f == flag && s.name != ACCOUNT.name))
            .collect()
    }

    /// A stack begins where it has grown to.
    fn grows_down(&self) -> bool {
        self.flags.iter().any(|flag| flag == "gd")
    }
}

fn read(standing: &Standing, snapshot: &mut Snapshot) {
    for process in processes(standing) {
        match areas(&process) {
            Ok(areas) => areas.iter().for_each(|area| enter(&process, area, snapshot)),
            Err(e) => snapshot.miss(process.process(), &AREA, e),
        }
    }
}

fn areas(process: &Thread) -> io::Result<Vec<Area>> {
    let mut found = parse(BufReader::new(std::fs::File::open(process.path("smaps"))?))?;
    // A kernel without NUMA has no such file.
    if let Ok(policies) = process.file("numa_maps") {
        for line in policies.lines() {
            let mut words = line.split(' ');
            let start = words.next().and_then(|start| u64::from_str_radix(start, 16).ok());
            let area = found.iter_mut().find(|area| Some(area.start) == start);
            if let (Some(area), Some(policy)) = (area, words.next()) {
                area.policy = policy.to_owned();
            }
        }
    }
    Ok(join(found))
}

fn join(areas: Vec<Area>) -> Vec<Area> {
    let mut joined: Vec<Area> = Vec::new();
    for area in areas {
        match joined.last_mut() {
            Some(last) if last.is_continued_by(&area) => last.end = area.end,
            _ => joined.push(area),
        }
    }
    joined
}

fn parse(text: impl BufRead) -> io::Result<Vec<Area>> {
    let mut areas: Vec<Area> = Vec::new();
    for line in text.split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if let Some(area) = header(&line) {
            areas.push(area);
        } else if let Some(area) = areas.last_mut() {
            if let Some(flags) = line.strip_prefix("VmFlags:") {
                area.flags = flags.split_ascii_whitespace().map(str::to_owned).collect();
            } else if let Some(key) = line.strip_prefix("ProtectionKey:") {
                area.key = key.trim().to_owned();
            }
        }
    }
    Ok(areas)
}

/// A segment of System V is named by the key that it was made with: the key that it has now is
/// compared elsewhere.
fn backing(file: &str) -> String {
    if file.starts_with("/SYSV") && file.ends_with(" (deleted)") {
        return "/SYSV (deleted)".to_owned();
    }
    without_ghost(file)
}

/// `7f2c8a400000-7f2c8a421000 rw-p 00000000 00:00 0 [heap]`.
fn header(line: &str) -> Option<Area> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let (rights, offset) = (words.next()?, words.next()?);
    let file = words.nth(2).unwrap_or_default().trim_start();
    Some(Area {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        rights: rights.to_owned(),
        offset: u64::from_str_radix(offset, 16).ok()?,
        file: backing(&plain(file.as_bytes())),
        ..Area::default()
    })
}

fn enter(process: &Thread, area: &Area, snapshot: &mut Snapshot) {
    let start = if area.grows_down() { area.end } else { area.start };
    let subject = || Subject::Area { pid: process.pid, start };
    let mut enter = |state, value: String| snapshot.enter(subject(), state, value);
    enter(
        &AREA,
        if area.grows_down() { "a stack".to_owned() } else { format!("up to {:#x}", area.end) },
    );
    enter(&RIGHTS, area.rights.clone());
    enter(
        &BACKING,
        if area.file.starts_with('/') {
            format!("{} at {:#x}", area.file, area.offset)
        } else {
            area.file.clone()
        },
    );
    for state in
        [&POSSIBLE, &LOCK, &FORK, &DUMP, &PAGES, &MERGE, &READ_AHEAD, &SEALED, &SHADOW, &ACCOUNT]
    {
        let of_state =
            |flag: &&String| FLAGS.iter().any(|(name, of)| name == flag && of.name == state.name);
        enter(state, area.flags.iter().filter(of_state).cloned().collect::<Vec<_>>().join(" "));
    }
    if !area.key.is_empty() {
        enter(&PROTECTION, area.key.clone());
    }
    if !area.policy.is_empty() {
        enter(&POLICY, area.policy.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
559fa8aeb000-559fa8aed000 r--p 00000000 00:18 118  /usr/bin/a b (deleted)
Size:                  8 kB
ProtectionKey:         0
VmFlags: rd mr mw me sd
559fa8aed000-559fa8aee000 r--p 00002000 00:18 118  /usr/bin/a b (deleted)
ProtectionKey:         0
VmFlags: rd mr mw me ac
559fa8aee000-559fa8aef000 rw-p 00000000 00:00 0 
VmFlags: rd wr mr mw me dd
7ffcd3f33000-7ffcd3f54000 rw-p 00000000 00:00 0                          [stack]
VmFlags: rd wr mr mw me gd ac
";

    #[test]
    fn areas_that_are_alike_count_as_one() {
        let found = join(parse(SMAPS.as_bytes()).unwrap());
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].start, found[0].end), (0x559f_a8ae_b000, 0x559f_a8ae_e000));
        assert_eq!(found[0].file, "/usr/bin/a b (deleted)");
        assert_eq!((found[1].file.as_str(), found[2].file.as_str()), ("", "[stack]"));
        assert!(found[2].grows_down());
        assert_eq!(found[1].shown_flags(), ["mr", "mw", "me", "dd"]);
    }
}
