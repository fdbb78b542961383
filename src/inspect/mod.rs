//! What the kernel says about a container that stands still.
//!
//! A [`Snapshot`] holds every state that can be read from outside of one container: its tasks and
//! threads, descriptors, sockets, timers, mounts, network, IPC objects, keys and cgroups. Two
//! snapshots, one of the container and one of its restored twin (or of the container after the
//! restore), are [compared](mod@compare) and every difference is named. Each kind of state is one
//! row of the [table](state::all): its name, what is done to bring it back, and what its loss
//! means.
//!
//! Nothing here changes the container, and nothing here knows why the question is asked: `rehearse`
//! compares and decides, `preflight` warns, `resources` puts back.

pub(crate) mod areas;
pub(crate) mod asked;
pub(crate) mod cgroups;
pub mod compare;
pub(crate) mod descriptors;
mod distinct;
pub(crate) mod family;
mod fdinfo;
pub(crate) mod ipc;
pub(crate) mod keys;
pub(crate) mod memory_files;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod network;
mod open;
mod proc;
pub(crate) mod snapshot;
pub(crate) mod sockets;
pub(crate) mod state;
pub(crate) mod tasks;
mod terminals;
pub(crate) mod threads;
pub(crate) mod timers;

pub use compare::{Difference, compare};
pub use family::Family;
pub use snapshot::{Snapshot, Standing, Subject};
pub use state::{Class, PutBack, State};

/// The families of states. A new one is a module with a `FAMILY` and a line here.
pub static FAMILIES: &[Family] = &[
    tasks::FAMILY,
    threads::FAMILY,
    descriptors::FAMILY,
    sockets::FAMILY,
    timers::FAMILY,
    areas::FAMILY,
    ipc::FAMILY,
    mounts::FAMILY,
    memory_files::FAMILY,
    network::FAMILY,
    namespaces::FAMILY,
    cgroups::FAMILY,
    asked::FAMILY,
];

impl Snapshot {
    /// Reads every family. What cannot be read is noted in the snapshot, so this cannot fail.
    pub fn of(standing: &Standing) -> Snapshot {
        let mut snapshot = Snapshot::new();
        for family in FAMILIES {
            (family.read)(standing, &mut snapshot);
        }
        snapshot
    }
}
