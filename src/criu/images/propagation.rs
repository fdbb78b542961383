//! `mountpoints-MNTNS.img` once more: where mounts propagate, so that CRIU can restore it.
//!
//! A *group* is to CRIU what has one pair of peer group and master. It makes the first mount of a
//! group a slave of its master and copies that to the others, which the kernel allows only below
//! the first one's root (criu/mount-v2.c, `restore_one_sharing_group`). For all groups with one
//! master outside of the container it takes one source, the external's or the root's of any of them
//! (`resolve_shared_mounts_v2`). Both go wrong where the roots have nothing in common:
//!
//! * systemd makes slaves of one mount in the container with roots of their own:
//!   `/run/systemd/incoming` of each service that has a mount namespace is a slave of `/run`. A
//!   slave that is the only one in a peer group, too, is a group by itself: it still receives what
//!   is mounted at its master, and sends it to nobody.
//! * On a host whose mounts are shared, `/` and a directory bound from the same file system are
//!   slaves of one mount of the host. With numbers of masters that differ, each is a group by
//!   itself with a source of its own.
//!
//! From a source whose mount the host has made private since there is nothing to copy, which is an
//! error: what had it for its master has none. And an external that was deleted on the host is made
//! again by CRIU, in the place of whatever is there now: it is to CRIU as if it had not been
//! deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use prost::encoding::{WireType, encode_key, encode_varint};

use super::mounts::{MNTS_MAGIC, MntEntry, all_entries, path};
use super::{Error, Head, messages};

/// The numbers of fields of [`MntEntry`].
const SHARED_ID_TAG: u32 = 10;
const MASTER_ID_TAG: u32 = 11;
const DELETED_TAG: u32 = 16;

/// The images of mounts as CRIU can restore them, by name; only those that have to differ.
/// `is_private` says whether the mount is private that an external's source is in now, given its
/// key; without one, whether the root's is.
pub fn with_groups_apart(
    dir: &Path,
    is_private: &dyn Fn(Option<&str>) -> bool,
) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let images = all_entries(dir)?;
    let all: Vec<&MntEntry> = images.iter().flat_map(|(_, _, entries)| entries).collect();
    let changes = changes(&all, is_private);
    let mut changed = Vec::new();
    for (name, bytes, entries) in &images {
        let Ok(found) = messages(bytes, Head::Common(MNTS_MAGIC)) else { continue };
        if !entries.iter().any(|e| changes.contains_key(&e.mnt_id)) {
            continue;
        }
        let first = found
            .first()
            .map_or(bytes.len(), |m| m.as_ptr().addr() - bytes.as_ptr().addr() - size_of::<u32>());
        let mut image = bytes[..first].to_vec();
        for (entry, message) in entries.iter().zip(found) {
            let mut message = message.to_vec();
            for (tag, value) in changes.get(&entry.mnt_id).into_iter().flatten() {
                // What comes last counts.
                encode_key(*tag, WireType::Varint, &mut message);
                encode_varint((*value).into(), &mut message);
            }
            image.extend((message.len() as u32).to_le_bytes());
            image.extend(message);
        }
        changed.push((name.clone(), image));
    }
    Ok(changed)
}

/// A field of a mount and its new value.
type Change = (u32, u32);

/// The new numbers of peer groups and masters, by mount; pure.
fn changes(
    all: &[&MntEntry],
    is_private: &dyn Fn(Option<&str>) -> bool,
) -> BTreeMap<u32, Vec<Change>> {
    let taken: BTreeSet<u32> =
        all.iter().flat_map(|e| [e.shared_id, e.master_id]).flatten().collect();
    let mut free = (1_u32..).filter(|id| !taken.contains(id));
    let apart = masters_of_unlike(all);
    let mut changes: BTreeMap<u32, Vec<Change>> = BTreeMap::new();
    let mut change =
        |entry: &MntEntry, tag, value| changes.entry(entry.mnt_id).or_default().push((tag, value));
    for entry in all.iter().filter(|e| e.deleted == Some(true) && e.ext_key.is_some()) {
        change(entry, DELETED_TAG, 0);
    }
    for entry in all.iter().filter(|e| is_mere_slave(e) && apart.contains(&master(e))) {
        if let Some(id) = free.next() {
            change(entry, SHARED_ID_TAG, id);
        }
    }
    let mut outside = Vec::new();
    for entry in all.iter().filter(|e| has_master_outside(e, all)) {
        let source = source(entry, all);
        match is_private(
            source.and_then(|s| s.ext_key.as_deref()).and_then(|key| std::str::from_utf8(key).ok()),
        ) {
            true => change(entry, MASTER_ID_TAG, 0),
            false => outside.push((*entry, source.map(|source| named(entry, source)))),
        }
    }
    let mut masters: BTreeMap<(u32, Named), u32> = BTreeMap::new();
    for (entry, group) in &outside {
        let alone = outside
            .iter()
            .all(|(other, of_other)| master(other) != master(entry) || of_other == group);
        let Some(group) = group.filter(|_| !alone) else { continue };
        let known = masters.get(&(master(entry), group)).copied();
        let Some(id) = known.or_else(|| free.next()) else { continue };
        masters.insert((master(entry), group), id);
        change(entry, MASTER_ID_TAG, id);
    }
    changes
}

/// What a group with a source of its own is known by: its peer group, or the external that gives
/// the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    Peers(u32),
    Mount(u32),
}

/// The external that a slave of the host's gets its master from; none where that is the root.
fn source<'a>(entry: &MntEntry, all: &[&'a MntEntry]) -> Option<&'a MntEntry> {
    let gives = |e: &&&MntEntry| {
        e.ext_key.is_some()
            && e.root_dev == entry.root_dev
            && master(e) == master(entry)
            && path(&entry.root).starts_with(path(&e.root))
    };
    all.iter().filter(gives).max_by_key(|e| (e.mnt_id == entry.mnt_id, e.root.len())).copied()
}

fn named(entry: &MntEntry, source: &MntEntry) -> Named {
    if shared(entry) == 0 { Named::Mount(source.mnt_id) } else { Named::Peers(shared(entry)) }
}

fn shared(entry: &MntEntry) -> u32 {
    entry.shared_id.unwrap_or(0)
}

fn master(entry: &MntEntry) -> u32 {
    entry.master_id.unwrap_or(0)
}

/// Whether it receives what is mounted elsewhere, and sends nothing.
fn is_mere_slave(entry: &MntEntry) -> bool {
    shared(entry) == 0 && master(entry) != 0
}

fn has_master_outside(entry: &MntEntry, all: &[&MntEntry]) -> bool {
    master(entry) != 0 && !all.iter().any(|e| shared(e) == master(entry))
}

/// The masters in the container of which there are slaves whose roots have nothing in common.
fn masters_of_unlike(all: &[&MntEntry]) -> BTreeSet<u32> {
    let masters: BTreeSet<u32> = all.iter().map(|e| shared(e)).filter(|id| *id != 0).collect();
    let unlike = |id: &u32| {
        let mut roots =
            all.iter().filter(|e| is_mere_slave(e) && master(e) == *id).map(|e| path(&e.root));
        let Some(first) = roots.next() else { return false };
        roots.any(|root| !root.starts_with(&first) && !first.starts_with(&root))
    };
    masters.into_iter().filter(unlike).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use prost::Message;

    use super::*;
    use crate::criu::images::decode;

    fn entry(id: u32, root: &str, shared: u32, master: u32) -> MntEntry {
        MntEntry {
            mnt_id: id,
            root: root.into(),
            mountpoint: "/x".into(),
            shared_id: (shared > 0).then_some(shared),
            master_id: (master > 0).then_some(master),
            ..MntEntry::default()
        }
    }

    fn write(path: &Path, entries: &[MntEntry]) {
        let mut bytes = [super::super::COMMON_MAGIC, MNTS_MAGIC].map(u32::to_le_bytes).concat();
        for entry in entries {
            bytes.extend((entry.encoded_len() as u32).to_le_bytes());
            bytes.extend(entry.encode_to_vec());
        }
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn slaves_with_nothing_in_common_become_groups_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let main = [entry(1, "/", 0, 0), entry(2, "/", 25, 0), entry(3, "/", 26, 0)];
        let of_one =
            [entry(4, "/propagate/one", 0, 25), entry(5, "/", 0, 26), entry(6, "/", 9, 25)];
        let of_two = [entry(7, "/propagate/two", 0, 25), entry(8, "/below", 0, 26)];
        write(&at("mountpoints-1.img"), &main);
        write(&at("mountpoints-2.img"), &of_one);
        assert_eq!(with_groups_apart(dir.path(), &|_| false).unwrap(), []);
        write(&at("mountpoints-3.img"), &of_two);
        let mut changed = with_groups_apart(dir.path(), &|_| false).unwrap();
        changed.sort();
        let names: Vec<&str> = changed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["mountpoints-2.img", "mountpoints-3.img"]);
        let mut fresh = BTreeSet::new();
        for ((name, bytes), before) in changed.iter().zip([&of_one[..], &of_two[..]]) {
            let after: Vec<MntEntry> = decode(&at(name), bytes, Head::Common(MNTS_MAGIC)).unwrap();
            for (after, before) in after.iter().zip(before) {
                let is_one = before.root.starts_with(b"/propagate");
                assert_eq!(is_one, after.shared_id != before.shared_id, "{after:?}");
                assert_eq!(MntEntry { shared_id: before.shared_id, ..after.clone() }, *before);
                if is_one {
                    assert!(
                        after
                            .shared_id
                            .is_some_and(|id| ![9, 25, 26].contains(&id) && fresh.insert(id)),
                        "{after:?}"
                    );
                }
            }
        }
        assert_eq!(fresh.len(), 2);
    }

    #[test]
    fn slaves_of_the_hosts_have_each_a_source_of_their_own() {
        let external = |entry: MntEntry| MntEntry { ext_key: Some("key".into()), ..entry };
        let root = entry(1, "/var/lib/lxc/x/rootfs", 40, 7);
        let piece = entry(2, "/var/lib/lxc/x/rootfs/etc", 41, 7);
        let data = external(entry(3, "/srv/data", 42, 7));
        let peer = entry(4, "/srv/data/deep", 42, 7);
        let one = external(entry(5, "/null", 0, 8));
        let two = external(entry(6, "/zero", 0, 8));
        let copy = entry(7, "/zero", 0, 8);
        let inner = entry(8, "/srv/data", 0, 42);
        let all = [&root, &piece, &data, &peer, &one, &two, &copy, &inner];
        let changed = changes(&all, &|_| false);
        let master = |entry: &MntEntry| match changed.get(&entry.mnt_id).map(Vec::as_slice) {
            Some([(MASTER_ID_TAG, id)]) => *id,
            Some(other) => panic!("{other:?}"),
            None => entry.master_id.unwrap(),
        };
        assert_eq!([&root, &piece, &inner].map(master), [7, 7, 42]);
        assert_eq!((master(&data), master(&two)), (master(&peer), master(&copy)));
        let masters = BTreeSet::from([&root, &data, &one, &two].map(master));
        assert_eq!(masters.len(), 4);
        assert!(!masters.contains(&8) && !masters.contains(&42));
        assert!(changes(&[&root, &piece], &|_| false).is_empty());
        let without = changes(&all, &|key| key.is_none());
        assert_eq!([&without[&1], &without[&2]], [&[(MASTER_ID_TAG, 0)]; 2]);
        assert_eq!(without.values().flatten().filter(|(_, id)| *id == 0).count(), 2);
        let deleted = MntEntry { deleted: Some(true), ..external(entry(9, "/srv/file", 0, 0)) };
        assert_eq!(changes(&[&root, &deleted], &|_| false)[&9], [(DELETED_TAG, 0)]);
    }
}
