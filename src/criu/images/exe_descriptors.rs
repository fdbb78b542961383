//! The executables of processes, where another process holds the same file by an `O_PATH`
//! descriptor.
//!
//! CRIU dumps a file once for all that refer to the same one (criu/file-ids.c), and so takes such a
//! descriptor for the executable, too. At the restore the kernel does not accept it
//! (`PR_SET_MM_MAP`, EBADF): of `O_PATH` there is nothing to execute. systemd holds its own
//! `systemd-executor` so, which a user's `(sd-pam)` runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::files::FILES_MAGIC;
use super::memory::MM_MAGIC;
use super::{Error, Head, bytes_of, decode, messages};

const FILES: &str = "files.img";
/// Of `reg_file_entry`.
const REG_ID_TAG: u32 = 1;
const REG_FLAGS_TAG: u32 = 2;
/// Of `mm_entry`.
const EXE_TAG: u32 = 12;

/// `file_entry`, as far as it is one of a regular file.
#[derive(Clone, PartialEq, Message)]
struct FileEntry {
    #[prost(uint32, required, tag = "1")]
    kind: u32,
    #[prost(uint32, required, tag = "2")]
    id: u32,
    /// `reg_file_entry`, encoded.
    #[prost(bytes = "vec", optional, tag = "3")]
    reg: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct RegFileEntry {
    #[prost(uint32, required, tag = "2")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct MmEntry {
    #[prost(uint32, required, tag = "12")]
    exe_file_id: u32,
}

/// The images as CRIU can restore them, by name; only those that have to differ. Such an executable
/// gets an entry of its own, opened for reading.
pub fn with_openable_executables(dir: &Path) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let path = dir.join(FILES);
    let files = bytes_of(&path)?;
    let entries: Vec<FileEntry> = decode(&path, &files, Head::Common(FILES_MAGIC))?;
    let is_path = |e: &&FileEntry| {
        let reg = e.reg.as_ref().and_then(|reg| RegFileEntry::decode(reg.as_slice()).ok());
        reg.is_some_and(|reg| reg.flags & libc::O_PATH as u32 != 0)
    };
    let unopened: Vec<u32> = entries.iter().filter(is_path).map(|e| e.id).collect();
    let taken: BTreeSet<u32> = entries.iter().map(|e| e.id).collect();
    let mut free = (1..).filter(|id| !taken.contains(id));
    let mut made: BTreeMap<u32, u32> = BTreeMap::new();
    let mut changed = Vec::new();
    let list = fs::read_dir(dir).map_err(|source| Error::Io { path: dir.to_owned(), source })?;
    for entry in list {
        let name = entry.map_err(|source| Error::Io { path: dir.to_owned(), source })?.file_name();
        let Some(name) = name.to_str().filter(|n| n.starts_with("mm-") && n.ends_with(".img"))
        else {
            continue;
        };
        let path = dir.join(name);
        let bytes = bytes_of(&path)?;
        let mms: Vec<MmEntry> = decode(&path, &bytes, Head::Common(MM_MAGIC))?;
        let Some(exe) = mms.first().map(|mm| mm.exe_file_id).filter(|id| unopened.contains(id))
        else {
            continue;
        };
        let Some(id) = made.get(&exe).copied().or_else(|| free.next()) else { continue };
        made.insert(exe, id);
        let mut extra = Vec::new();
        put_number(EXE_TAG, id.into(), &mut extra);
        changed.push((name.to_owned(), with_appended(&bytes, &extra)));
    }
    if !made.is_empty() {
        let mut image = files.clone();
        for (old, new) in &made {
            if let Some(entry) = entries.iter().find(|e| e.id == *old) {
                let entry = with_flags(entry, *new, libc::O_RDONLY).encode_to_vec();
                image.extend((entry.len() as u32).to_le_bytes());
                image.extend(entry);
            }
        }
        changed.push((FILES.to_owned(), image));
    }
    Ok(changed)
}

/// A file's entry under another number, opened in another way.
fn with_flags(entry: &FileEntry, id: u32, flags: i32) -> FileEntry {
    let mut reg = entry.reg.clone().unwrap_or_default();
    // What comes last counts.
    put_number(REG_ID_TAG, id.into(), &mut reg);
    put_number(REG_FLAGS_TAG, flags as u64, &mut reg);
    FileEntry { kind: entry.kind, id, reg: Some(reg) }
}

fn put_number(tag: u32, number: u64, to: &mut Vec<u8>) {
    encode_key(tag, WireType::Varint, to);
    encode_varint(number, to);
}

/// An image of a single message, to which something is added.
fn with_appended(image: &[u8], extra: &[u8]) -> Vec<u8> {
    let Some(message) =
        messages(image, Head::Common(MM_MAGIC)).unwrap_or_default().first().copied()
    else {
        return image.to_vec();
    };
    let start = message.as_ptr().addr() - image.as_ptr().addr() - size_of::<u32>();
    let mut changed = image[..start].to_vec();
    changed.extend(((message.len() + extra.len()) as u32).to_le_bytes());
    changed.extend(message);
    changed.extend(extra);
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::images::{FileKind, open_files};
    use std::path::PathBuf;

    /// Images of the recipe's container.
    fn real() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/criu-4.2.1/suspended")
    }

    fn exe_of(dir: &Path, pid: u32) -> u32 {
        let path = dir.join(format!("mm-{pid}.img"));
        decode::<MmEntry>(&path, &bytes_of(&path).unwrap(), Head::Common(MM_MAGIC)).unwrap()[0]
            .exe_file_id
    }

    #[test]
    fn an_executable_held_by_its_path_alone_gets_an_entry_of_its_own() {
        assert_eq!(with_openable_executables(&real()).unwrap(), []);

        // The same with init's executable opened with O_PATH.
        let dir = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(real()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
        let exe = exe_of(dir.path(), 1);
        let files = bytes_of(&dir.path().join(FILES)).unwrap();
        let mut image = files[..8].to_vec();
        for message in messages(&files, Head::Common(FILES_MAGIC)).unwrap() {
            let mut message = message.to_vec();
            let entry = FileEntry::decode(message.as_slice()).unwrap();
            if entry.id == exe {
                message = with_flags(&entry, exe, libc::O_PATH).encode_to_vec();
            }
            image.extend((message.len() as u32).to_le_bytes());
            image.extend(message);
        }
        fs::write(dir.path().join(FILES), image).unwrap();
        let before = open_files(dir.path()).unwrap();

        for (name, content) in with_openable_executables(dir.path()).unwrap() {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let after = open_files(dir.path()).unwrap();
        assert_eq!(after[..before.len()], before);
        assert_eq!(after.len(), before.len() + 1);
        let new = exe_of(dir.path(), 1);
        assert_eq!(new, after.last().unwrap().id);
        let old = before.iter().find(|f| f.id == exe).unwrap();
        let (FileKind::Path(new), FileKind::Path(old)) = (&after.last().unwrap().kind, &old.kind)
        else {
            panic!()
        };
        assert_eq!((&new.path, new.mount, new.size), (&old.path, old.mount, old.size));
        assert_eq!(with_openable_executables(dir.path()).unwrap(), []);
    }
}
