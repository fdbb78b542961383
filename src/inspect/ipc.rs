//! What an IPC namespace holds: System V's objects and POSIX message queues. Not what is in shared
//! memory.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::io::Read;
use std::path::Path;

use nix::mount::MsFlags;
use nix::sched::CloneFlags;

use super::compare::plain;
use super::family::Family;
use super::proc::{field, processes};
use super::snapshot::{Snapshot, Standing, Subject, Values};
use super::state::{Class, PutBack, State, states};
use crate::sys::kernel_state;
use crate::sys::mount::Detached;

/// IPC objects.
pub(crate) const FAMILY: Family = Family { name: "ipc", states: rows, read };

states! { rows;
    OBJECT = "ipc", PutBack::Criu, Class::Breaks, "the object is not there";
    KEY = "ipc.key", PutBack::Criu, Class::Breaks, "programs do not find it";
    MODE = "ipc.mode", PutBack::Criu, Class::Weakens, "others may use it, or no longer";
    OWNER = "ipc.owner", PutBack::Criu, Class::Weakens, "others may use it, or no longer";
    CREATOR = "ipc.creator", PutBack::Us, Class::Weakens, "others may remove it, or no longer";
    DOOMED = "shm.doomed", PutBack::Us, Class::Breaks, "memory is not freed with its last user, or too early";
    SHM_LOCKED = "shm.locked", PutBack::Us, Class::Breaks, "secrets may be written to swap";
    SIZE = "shm.size", PutBack::Criu, Class::Breaks, "the memory is larger or smaller";
    ATTACHED = "shm.attached", PutBack::Criu, Class::Breaks, "others are attached to it";
    SHM_PIDS = "shm.pids", PutBack::Cannot("the kernel sets them"), Class::Varies, "who made it and who attached last are only shown by ipcs";
    TIMES = "ipc.times", PutBack::Cannot("the kernel sets them"), Class::Varies, "when it was used last is only shown by ipcs";
    SEM_VALUES = "sem.values", PutBack::Criu, Class::Breaks, "locks are held or free that were not";
    SEM_PIDS = "sem.pids", PutBack::Cannot("the kernel sets them"), Class::Varies, "who changed it last is only shown by ipcs";
    QUEUED = "msg.queued", PutBack::Criu, Class::Breaks, "messages are lost";
    MSG_PIDS = "msg.pids", PutBack::Cannot("the kernel sets them"), Class::Varies, "who sent and received last is only shown by ipcs";
    MQ_QUEUED = "mqueue.queued", PutBack::Us, Class::Breaks, "messages are lost";
    MQ_NOTIFY = "mqueue.notify", PutBack::Cannot("only the process itself can ask for it"), Class::Breaks, "it is not notified of messages";
    MQ_FILE = "mqueue.file", PutBack::Us, Class::Weakens, "others may use the queue, or no longer";
    LIMIT_SHM_MAX = "ipc.limit-shmmax", PutBack::Criu, Class::Breaks, "shared memory may be larger, or less large";
    LIMIT_SHM_ALL = "ipc.limit-shmall", PutBack::Criu, Class::Breaks, "there may be more or less shared memory";
    LIMIT_SHM_MNI = "ipc.limit-shmmni", PutBack::Criu, Class::Breaks, "there may be more or fewer segments";
    RMID_FORCED = "ipc.shm-rmid-forced", PutBack::Criu, Class::Breaks, "segments without users are kept, or removed";
    LIMIT_MSG_MAX = "ipc.limit-msgmax", PutBack::Criu, Class::Breaks, "messages may be longer, or less long";
    LIMIT_MSG_MNB = "ipc.limit-msgmnb", PutBack::Criu, Class::Breaks, "queues may hold more or less";
    LIMIT_MSG_MNI = "ipc.limit-msgmni", PutBack::Criu, Class::Breaks, "there may be more or fewer queues";
    LIMIT_SEM = "ipc.limit-sem", PutBack::Criu, Class::Breaks, "there may be more or fewer semaphores";
    MQ_QUEUES_MAX = "ipc.limit-mqueue-queues", PutBack::Criu, Class::Breaks, "there may be more or fewer queues";
    MQ_MSG_MAX = "ipc.limit-mqueue-msg", PutBack::Criu, Class::Breaks, "queues may hold more or less";
    MQ_SIZE_MAX = "ipc.limit-mqueue-msgsize", PutBack::Criu, Class::Breaks, "messages may be longer, or less long";
    MQ_MSG_DEFAULT = "ipc.mqueue-msg-default", PutBack::Criu, Class::Bearable, "new queues hold more or less";
    MQ_SIZE_DEFAULT = "ipc.mqueue-msgsize-default", PutBack::Criu, Class::Bearable, "messages of new queues may be longer, or less long";
}

static SYSCTLS: &[(&str, &State)] = &[
    ("kernel/shmmax", &LIMIT_SHM_MAX),
    ("kernel/shmall", &LIMIT_SHM_ALL),
    ("kernel/shmmni", &LIMIT_SHM_MNI),
    ("kernel/shm_rmid_forced", &RMID_FORCED),
    ("kernel/msgmax", &LIMIT_MSG_MAX),
    ("kernel/msgmnb", &LIMIT_MSG_MNB),
    ("kernel/msgmni", &LIMIT_MSG_MNI),
    ("kernel/sem", &LIMIT_SEM),
    ("fs/mqueue/queues_max", &MQ_QUEUES_MAX),
    ("fs/mqueue/msg_max", &MQ_MSG_MAX),
    ("fs/mqueue/msgsize_max", &MQ_SIZE_MAX),
    ("fs/mqueue/msg_default", &MQ_MSG_DEFAULT),
    ("fs/mqueue/msgsize_default", &MQ_SIZE_DEFAULT),
];

/// `SHM_DEST` and `SHM_LOCKED` of the mode of a segment.
const SHM_DEST: u32 = 0o1000;
const SHM_LOCKED_FLAG: u32 = 0o2000;

fn read(standing: &Standing, snapshot: &mut Snapshot) {
    let mut seen = BTreeSet::new();
    for process in processes(standing) {
        let Ok(namespace) = fs::read_link(process.path("ns/ipc")) else { continue };
        // A container that shares the host's has no objects of its own.
        let is_host = fs::read_link("/proc/self/ns/ipc").is_ok_and(|ours| ours == namespace);
        if is_host || !seen.insert(namespace) {
            continue;
        }
        // Objects of further namespaces are told apart by who sees them.
        let prefix = if seen.len() == 1 { String::new() } else { format!("of {}: ", process.pid) };
        let ipc = [("ipc", CloneFlags::CLONE_NEWIPC)];
        match kernel_state::within(process.host_pid, &ipc, || all_here(&prefix)) {
            Ok(found) => found
                .into_iter()
                .for_each(|(subject, state, value)| snapshot.enter(subject, state, value)),
            Err(e) => snapshot.miss(Subject::Container, &OBJECT, e),
        }
    }
}

/// What the namespace of this thread has.
fn all_here(prefix: &str) -> io::Result<Values> {
    let mut found = Values::new();
    for (path, state) in SYSCTLS {
        // A kernel without POSIX queues has no such files.
        if let Ok(value) = fs::read_to_string(format!("/proc/sys/{path}")) {
            let value = value.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
            let subject = Subject::Ipc { object: format!("{prefix}settings") };
            found.push((subject, *state, value));
        }
    }
    for (kind, enter) in
        [("shm", of_shm as fn(&Row<'_>, &mut Entered<'_>)), ("sem", of_sem), ("msg", of_msg)]
    {
        let text = fs::read_to_string(format!("/proc/sysvipc/{kind}"))?;
        for row in Row::all(&text) {
            let object = format!(
                "{prefix}{kind} {}",
                row.get(&format!("{}id", if kind == "msg" { "msq" } else { kind }))
            );
            let mut entered = Entered { object, found: &mut found };
            entered.enter(&OBJECT, "there".to_owned());
            of_any(&row, &mut entered);
            enter(&row, &mut entered);
        }
    }
    queues(prefix, &mut found)?;
    Ok(found)
}

/// Where values of one object go.
struct Entered<'f> {
    object: String,
    found: &'f mut Values,
}

impl Entered<'_> {
    fn enter(&mut self, state: &'static State, value: String) {
        self.found.push((Subject::Ipc { object: self.object.clone() }, state, value));
    }
}

/// A line of a table with a heading.
struct Row<'t> {
    names: Vec<&'t str>,
    values: Vec<&'t str>,
}

impl<'t> Row<'t> {
    fn all(text: &'t str) -> Vec<Row<'t>> {
        let mut lines = text.lines();
        let names: Vec<&str> = lines.next().unwrap_or_default().split_ascii_whitespace().collect();
        lines
            .map(|line| Row {
                names: names.clone(),
                values: line.split_ascii_whitespace().collect(),
            })
            .collect()
    }

    fn get(&self, name: &str) -> &'t str {
        let at = self.names.iter().position(|found| *found == name);
        at.and_then(|at| self.values.get(at)).copied().unwrap_or_default()
    }

    fn all_of(&self, names: &[&str]) -> String {
        names.iter().map(|name| self.get(name)).collect::<Vec<_>>().join(" ")
    }

    fn mode(&self) -> u32 {
        u32::from_str_radix(self.get("perms"), 8).unwrap_or_default()
    }
}

fn of_any(row: &Row<'_>, to: &mut Entered<'_>) {
    to.enter(&KEY, row.get("key").to_owned());
    to.enter(&MODE, format!("{:o}", row.mode() & 0o777));
    to.enter(&OWNER, row.all_of(&["uid", "gid"]));
    to.enter(&CREATOR, row.all_of(&["cuid", "cgid"]));
}

fn of_shm(row: &Row<'_>, to: &mut Entered<'_>) {
    let flag = |flag: u32| if row.mode() & flag == 0 { "no" } else { "yes" }.to_owned();
    to.enter(&DOOMED, flag(SHM_DEST));
    to.enter(&SHM_LOCKED, flag(SHM_LOCKED_FLAG));
    to.enter(&SIZE, row.get("size").to_owned());
    to.enter(&ATTACHED, row.get("nattch").to_owned());
    to.enter(&SHM_PIDS, row.all_of(&["cpid", "lpid"]));
    to.enter(&TIMES, row.all_of(&["atime", "dtime", "ctime"]));
}

fn of_sem(row: &Row<'_>, to: &mut Entered<'_>) {
    to.enter(&TIMES, row.all_of(&["otime", "ctime"]));
    let (Ok(id), Ok(count)) = (row.get("semid").parse(), row.get("nsems").parse()) else { return };
    // It may not be readable for its mode, but root reads all.
    if let Ok(values) = kernel_state::semaphores(id, count) {
        let join = |text: Vec<String>| text.join(" ");
        to.enter(&SEM_VALUES, join(values.iter().map(|(value, _)| value.to_string()).collect()));
        to.enter(&SEM_PIDS, join(values.iter().map(|(_, pid)| pid.to_string()).collect()));
    }
}

fn of_msg(row: &Row<'_>, to: &mut Entered<'_>) {
    to.enter(&QUEUED, format!("{} messages {} bytes", row.get("qnum"), row.get("cbytes")));
    to.enter(&MSG_PIDS, row.all_of(&["lspid", "lrpid"]));
    to.enter(&TIMES, row.all_of(&["stime", "rtime", "ctime"]));
}

/// POSIX queues, by a mount of our own that is nowhere in the tree.
fn queues(prefix: &str, found: &mut Values) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    let directory = match Detached::mount(Path::new("mqueue"), "mqueue", MsFlags::empty(), "") {
        // A kernel without them.
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
        other => other?,
    };
    for entry in fs::read_dir(directory.path())? {
        let entry = entry?;
        let object = format!("{prefix}mqueue /{}", plain(entry.file_name().as_bytes()));
        let mut to = Entered { object, found };
        let (mut text, file) = (String::new(), entry.metadata()?);
        fs::File::open(entry.path())?.read_to_string(&mut text)?;
        to.enter(&OBJECT, "there".to_owned());
        to.enter(&MQ_QUEUED, field_of(&text, "QSIZE"));
        to.enter(&MQ_NOTIFY, format!("{} {}", field_of(&text, "NOTIFY"), field_of(&text, "SIGNO")));
        to.enter(&MQ_FILE, format!("{:o} {} {}", file.mode(), file.uid(), file.gid()));
    }
    Ok(())
}

/// "QSIZE:129        NOTIFY:2     SIGNO:0     NOTIFY_PID:8260".
fn field_of(text: &str, name: &str) -> String {
    let lines = text.replace(' ', "\n");
    field(&lines, name).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHM: &str = "\
       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap
     20817          3  1600               1048576   312   312      1     0     0     0     0 1700000000          0 1700000000                  4096                     0
";

    #[test]
    fn what_the_kernel_writes_is_read() {
        let rows = Row::all(SHM);
        assert_eq!((rows.len(), rows[0].get("shmid"), rows[0].get("none")), (1, "3", ""));
        let mut found = Values::new();
        of_shm(&rows[0], &mut Entered { object: "shm 3".to_owned(), found: &mut found });
        let value =
            |state: &State| found.iter().find(|(_, s, _)| s.name == state.name).unwrap().2.as_str();
        assert_eq!((value(&DOOMED), value(&SHM_LOCKED), value(&ATTACHED)), ("yes", "no", "1"));
        assert_eq!(
            field_of("QSIZE:129        NOTIFY:2     SIGNO:0     NOTIFY_PID:8260\n", "NOTIFY"),
            "2"
        );
    }
}
