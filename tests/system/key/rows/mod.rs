//! The rows, by subject.

mod cgroups;
mod hooks;
mod life;
mod mounts;
mod namespaces;
mod network;
mod processes;
mod terminals;

use super::Row;

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Row> {
    let of_all = [
        processes::ROWS,
        namespaces::ROWS,
        cgroups::ROWS,
        mounts::ROWS,
        terminals::ROWS,
        network::ROWS,
        hooks::ROWS,
        life::ROWS,
    ];
    of_all.into_iter().flatten()
}
