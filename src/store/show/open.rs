//! The descriptors of a checkpoint's processes, and the sockets among them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::{Process, keep};
use crate::criu::images::{self, FileKind, InetSocket, NamespaceIds, UnixSocket};
use crate::report::Foreign;

/// A descriptor of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Descriptor {
    /// Its number.
    pub fd: u32,
    /// What it led to, in words: a path, a socket's ends, "pipe 3", "eventfd".
    pub what: Foreign,
    /// CRIU's number for it: descriptors with the same one share it.
    pub file: u32,
}

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Socket {
    /// "tcp", "udp", "unix stream", …
    pub kind: String,
    /// "listen", "established", …
    pub state: String,
    /// Its address or name.
    pub local: Foreign,
    /// Its other end; empty without one.
    pub remote: Foreign,
    /// The processes that had it open.
    pub pids: Vec<u32>,
    #[serde(skip)]
    file: u32,
}

/// All that was open.
#[derive(Debug, Default)]
pub(super) struct Open(BTreeMap<u32, FileKind>);

impl Open {
    pub(super) fn read(dir: &Path, problems: &mut Vec<String>) -> Open {
        let files = keep(problems, images::open_files(dir).map_err(Into::into)).unwrap_or_default();
        Open(files.into_iter().map(|f| (f.id, f.kind)).collect())
    }

    /// The path of a file.
    pub(super) fn path_of(&self, file: u32) -> Option<Foreign> {
        match self.0.get(&file)? {
            FileKind::Path(path) => Some(path.path.as_path().into()),
            _ => None,
        }
    }

    /// What a process had open. A zombie has nothing, and no images that would tell so.
    pub(super) fn of_process(
        &self,
        dir: &Path,
        pid: u32,
        zombie: bool,
        problems: &mut Vec<String>,
    ) -> Vec<Descriptor> {
        let table = match NamespaceIds::of_task(dir, pid) {
            Ok(ids) => ids.files,
            Err(e) if zombie && e.is_not_found() => None,
            Err(e) => {
                problems.push(format!("{:#}", anyhow::Error::from(e)));
                None
            }
        };
        let Some(table) = table else { return Vec::new() };
        let mut found =
            keep(problems, images::descriptors(dir, table).map_err(Into::into)).unwrap_or_default();
        found.sort_by_key(|d| d.fd);
        found
            .into_iter()
            .map(|d| Descriptor { fd: d.fd, what: self.in_words(d.file).into(), file: d.file })
            .collect()
    }

    fn in_words(&self, file: u32) -> String {
        match self.0.get(&file) {
            Some(FileKind::Path(path)) => path.path.to_string_lossy().into_owned(),
            Some(FileKind::Inet(inet)) => {
                let socket = inet_socket(file, inet);
                let remote = if socket.remote.is_empty() {
                    String::new()
                } else {
                    format!(" to {}", socket.remote)
                };
                format!("{} {}{remote} ({})", socket.kind, socket.local, socket.state)
            }
            Some(FileKind::Unix(unix)) => {
                let socket = unix_socket(file, unix);
                [socket.kind.as_str(), socket.local.raw()].join(" ").trim_end().to_owned()
            }
            Some(FileKind::Pipe(number)) => format!("pipe {number}"),
            Some(FileKind::Other(text)) => (*text).to_owned(),
            None => "something unknown".to_owned(),
        }
    }

    /// The sockets, with those who had them open.
    pub(super) fn sockets(&self, processes: &[Process]) -> Vec<Socket> {
        let mut owners: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for process in processes {
            for descriptor in &process.open {
                let pids = owners.entry(descriptor.file).or_default();
                if !pids.contains(&process.pid) {
                    pids.push(process.pid);
                }
            }
        }
        let sockets = self.0.iter().filter_map(|(file, kind)| match kind {
            FileKind::Inet(inet) => Some(inet_socket(*file, inet)),
            FileKind::Unix(unix) => Some(unix_socket(*file, unix)),
            _ => None,
        });
        sockets.map(|s| Socket { pids: owners.remove(&s.file).unwrap_or_default(), ..s }).collect()
    }
}

fn inet_socket(file: u32, inet: &InetSocket) -> Socket {
    let text =
        |address: Option<std::net::SocketAddr>| address.map(|a| a.to_string()).unwrap_or_default();
    Socket {
        kind: inet.protocol.to_owned(),
        state: inet.state.to_owned(),
        local: text(inet.local).into(),
        remote: text(inet.remote).into(),
        pids: Vec::new(),
        file,
    }
}

fn unix_socket(file: u32, unix: &UnixSocket) -> Socket {
    let state = match (unix.listens, unix.peer) {
        (true, _) => "listen",
        (false, 0) => "unconnected",
        (false, _) => "established",
    };
    Socket {
        kind: format!("unix {}", unix.kind),
        state: state.to_owned(),
        local: unix.name.as_str().into(),
        remote: Foreign::default(),
        pids: Vec::new(),
        file,
    }
}
