//! A checkpoint's contents as a person reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::{By, Contents, Process};
use crate::report::{bytes, moment, seconds, shown};

/// Deeper than this a tree of processes is not drawn to the right any more.
const MAX_INDENT: usize = 20;

/// What is printed besides the summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Details {
    /// The open files of each process.
    pub files: bool,
    /// The sockets.
    pub sockets: bool,
    /// The mounts.
    pub mounts: bool,
}

/// A checkpoint's contents with these details.
#[derive(Debug)]
pub(crate) struct Text<'a>(pub &'a Contents, pub Details);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Text(contents, details) = self;
        contents.summary(f)?;
        writeln!(f, "\nprocesses ({})", contents.processes.len())?;
        contents.tree(f)?;
        contents.network(f)?;
        if details.files {
            contents.files(f)?;
        }
        if details.sockets {
            contents.sockets(f)?;
        }
        if details.mounts {
            contents.mounts(f)?;
        }
        contents.left_out(*details, f)?;
        if !contents.problems.is_empty() {
            writeln!(f, "\nproblems")?;
        }
        contents.problems.iter().try_for_each(|p| writeln!(f, "  {}", shown(p)))
    }
}

impl Contents {
    fn summary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "checkpoint  {}", self.directory.display())?;
        match &self.container {
            Some(c) => {
                writeln!(f, "container   {} in {}", c.name, c.lxcpath.display())?;
                writeln!(f, "root        {}", c.rootfs.display())?;
            }
            None => writeln!(f, "container   not recorded: this is not a checkpoint of lxc-cr")?,
        }
        writeln!(f, "made        {}", moment(self.created))?;
        writeln!(f, "by          {}", self.by)?;
        if self.to_be_resumed {
            writeln!(f, "marked      to be resumed, at boot or by lxc-cr resume")?;
        }
        writeln!(f, "size        {} in {} images", bytes(self.size), self.images)?;
        if let Some(us) = self.frozen_us {
            writeln!(f, "frozen      {}", seconds(Duration::from_micros(us)))?;
        }
        if !self.precopied.is_empty() {
            let copied: Vec<String> = self.precopied.iter().map(|size| bytes(*size)).collect();
            writeln!(f, "copied      {} while it ran", copied.join(", "))?;
        }
        Ok(())
    }

    fn network(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nnetwork")?;
        for i in &self.interfaces {
            let mac = i.mac.as_ref().map(|m| format!(" {m}")).unwrap_or_default();
            let bridge = i.bridge.as_ref().map(|b| format!(" on {b}")).unwrap_or_default();
            writeln!(f, "  {}{mac}{bridge}, MTU {}", i.name, i.mtu)?;
            i.addresses.iter().try_for_each(|address| writeln!(f, "    {address}"))?;
        }
        Ok(())
    }

    fn files(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nopen files ({})", self.open_files())?;
        for process in self.processes.iter().filter(|p| !p.open.is_empty()) {
            writeln!(f, "  {} {}", process.pid, process.name)?;
            for descriptor in &process.open {
                writeln!(f, "    {:>3}  {}", descriptor.fd, descriptor.what)?;
            }
        }
        Ok(())
    }

    fn sockets(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nsockets ({})", self.sockets.len())?;
        for s in &self.sockets {
            let remote =
                if s.remote.is_empty() { String::new() } else { format!(" to {}", s.remote) };
            let nameless = "without a name".into();
            let local = if s.local.is_empty() { &nameless } else { &s.local };
            let pids: Vec<String> = s.pids.iter().map(u32::to_string).collect();
            let of = if pids.is_empty() {
                "no process".to_owned()
            } else {
                format!("process {}", pids.join(", "))
            };
            writeln!(f, "  {} {} {}{remote}, of {of}", s.kind, s.state, local)?;
        }
        Ok(())
    }

    fn mounts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nmounts ({})", self.mounts.len())?;
        for m in &self.mounts {
            let from = match &m.from_host {
                Some(path) if path.as_os_str().is_empty() => ", from the host".to_owned(),
                Some(path) => format!(", {} of the host", path.display()),
                None => String::new(),
            };
            writeln!(f, "  {} ({}{from})", m.point, m.kind)?;
        }
        Ok(())
    }

    /// How to see the rest.
    fn left_out(&self, details: Details, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = [
            (details.files, self.open_files(), "open files", "--files"),
            (details.sockets, self.sockets.len(), "sockets", "--sockets"),
            (details.mounts, self.mounts.len(), "mounts", "--mounts"),
        ];
        let rest: Vec<String> = rest
            .into_iter()
            .filter(|(is_shown, count, ..)| !is_shown && *count > 0)
            .map(|(_, count, what, option)| format!("{count} {what} ({option})"))
            .collect();
        if rest.is_empty() { Ok(()) } else { writeln!(f, "\nand {}", rest.join(", ")) }
    }

    fn open_files(&self) -> usize {
        self.processes.iter().map(|process| process.open.len()).sum()
    }

    /// The processes, children beneath their parent.
    fn tree(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut children: BTreeMap<u32, Vec<&Process>> = BTreeMap::new();
        let known: BTreeSet<u32> = self.processes.iter().map(|p| p.pid).collect();
        for process in &self.processes {
            // One whose parent is not in the images is drawn as a root, so that none is left out.
            let parent = if known.contains(&process.parent) { process.parent } else { 0 };
            children.entry(parent).or_default().push(process);
        }
        // Each is taken out as it is drawn: images made by hand may hold a ring.
        let mut stack: Vec<(usize, &Process)> =
            children.remove(&0).unwrap_or_default().into_iter().rev().map(|p| (1, p)).collect();
        while let Some((depth, process)) = stack.pop() {
            writeln!(f, "{:indent$}{}", "", Line(process), indent = 2 * depth.min(MAX_INDENT))?;
            let below = children.remove(&process.pid).unwrap_or_default();
            stack.extend(below.into_iter().rev().map(|p| (depth + 1, p)));
        }
        children.into_values().flatten().try_for_each(|p| writeln!(f, "  {}", Line(p)))
    }
}

/// A process on its line.
struct Line<'a>(&'a Process);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line(p) = self;
        write!(f, "{} {}", p.pid, p.name)?;
        if p.zombie {
            return write!(f, " (zombie)");
        }
        write!(f, "  {} of {}", bytes(p.memory), bytes(p.mapped))?;
        if p.memory_in_parent > 0 {
            write!(f, " and {} in the parent checkpoint", bytes(p.memory_in_parent))?;
        }
        if p.threads > 1 {
            write!(f, ", {} threads", p.threads)?;
        }
        p.program.as_ref().map_or(Ok(()), |program| write!(f, ", {}", program))
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said =
            |name: &str, version: &Option<String>| version.as_ref().map(|v| format!("{name} {v}"));
        let parts: Vec<String> = [
            said("lxc-cr", &self.lxc_cr),
            said("CRIU", &self.criu),
            said("LXC", &self.lxc),
            said("Linux", &self.kernel),
            self.machine.clone(),
        ]
        .into_iter()
        .flatten()
        .collect();
        f.write_str(&shown(&if parts.is_empty() {
            "an unknown program".to_owned()
        } else {
            parts.join(", ")
        }))
    }
}
