//! `tty-info.img` and `files.img`: what is open of terminals.
//!
//! A shell keeps `/dev/tty` open, which is whatever terminal controls its session. CRIU dumps it
//! when that is a pty of the container's own; when it is an external one, `/dev/tty` has to be
//! dumped as external, too. All that are open have the same device numbers, so a restore could give
//! all of them one terminal only. Here each becomes the terminal that it stood for.

use std::path::Path;

use prost::Message;

use super::{Error, Head, bytes_of, decode, messages};

const INFO_MAGIC: u32 = 0x5945_3036;
const FILES_MAGIC: u32 = 0x5630_3138;
/// `TTY` of CRIU's `fd_types`.
const TTY: u32 = 11;
/// `PTY` of CRIU's `TtyType`.
const PTY: u32 = 1;
/// `EXT_TTY` of CRIU's `TtyType`.
const EXTERNAL: u32 = 5;
/// `/dev/tty`, character device 5:0.
const DEV_TTY: u32 = 0x500;

/// One terminal as one file of it was found (`tty_info_entry`).
#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(uint32, required, tag = "1")]
    id: u32,
    #[prost(uint32, required, tag = "2")]
    kind: u32,
    #[prost(uint32, required, tag = "6")]
    session: u32,
    #[prost(uint32, required, tag = "8")]
    rdev: u32,
    #[prost(uint32, optional, tag = "13")]
    dev: Option<u32>,
    #[prost(uint32, optional, tag = "14")]
    uid: Option<u32>,
    #[prost(uint32, optional, tag = "15")]
    gid: Option<u32>,
}

/// What is changed of an [`Info`]: appended to a message, these fields take the place of the first
/// ones.
#[derive(Clone, PartialEq, Message)]
struct InfoChange {
    #[prost(uint32, optional, tag = "6")]
    session: Option<u32>,
    #[prost(uint32, optional, tag = "7")]
    foreground: Option<u32>,
    #[prost(uint32, optional, tag = "8")]
    rdev: Option<u32>,
    #[prost(uint32, optional, tag = "13")]
    dev: Option<u32>,
    #[prost(uint32, optional, tag = "14")]
    uid: Option<u32>,
    #[prost(uint32, optional, tag = "15")]
    gid: Option<u32>,
}

/// An open file (`file_entry`).
#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(uint32, required, tag = "1")]
    kind: u32,
    #[prost(message, optional, tag = "19")]
    tty: Option<TtyFile>,
}

/// An open file of a terminal (`tty_file_entry`).
#[derive(Clone, PartialEq, Message)]
struct TtyFile {
    #[prost(uint32, required, tag = "1")]
    id: u32,
    #[prost(uint32, required, tag = "2")]
    info: u32,
    #[prost(uint32, required, tag = "3")]
    flags: u32,
    /// A message, passed on as it is.
    #[prost(bytes = "vec", required, tag = "4")]
    owner: Vec<u8>,
    #[prost(uint32, optional, tag = "6")]
    regular: Option<u32>,
}

/// A terminal as part of a [`File`], to be appended to one.
#[derive(Clone, PartialEq, Message)]
struct FileChange {
    #[prost(message, required, tag = "19")]
    tty: TtyFile,
}

/// An external terminal that controls a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Controlling {
    /// The terminal's device numbers.
    pub rdev: u64,
    /// Those of the file system that it is in.
    pub dev: u64,
    /// The session, as the container counts.
    pub session: u32,
    /// The process group in the foreground, as the container counts.
    pub foreground: u32,
}

/// What is to be changed of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// The images that CRIU has to be shown in place of the checkpoint's own, by their names.
    pub images: Vec<(String, Vec<u8>)>,
    /// Sessions, as the container counts, with an external `/dev/tty` of which nothing tells which
    /// terminal it is; 0 where it is not even known whose it is. CRIU cannot restore them.
    pub unknown: Vec<u32>,
}

/// Makes each external `/dev/tty` the terminal that it stood for, and has each terminal control the
/// session that it did (CRIU does not see that when the first process with a file of it belongs to
/// another session).
///
/// # Errors
/// When an image cannot be read.
pub(crate) fn controlling_resolved(
    dir: &Path,
    controlling: &[Controlling],
) -> Result<Resolved, Error> {
    let (info_path, files_path) = (dir.join("tty-info.img"), dir.join("files.img"));
    let info_bytes = match bytes_of(&info_path) {
        Ok(bytes) => bytes,
        Err(e) if e.is_not_found() => return Ok(Resolved::default()),
        Err(e) => return Err(e),
    };
    let infos: Vec<Info> = decode(&info_path, &info_bytes, Head::Common(INFO_MAGIC))?;
    let mut changes: Vec<InfoChange> = vec![InfoChange::default(); infos.len()];
    let mut moved: Vec<(u32, u32)> = Vec::new();
    let mut unknown = Vec::new();

    for (info, change) in infos.iter().zip(&mut changes).filter(|(info, _)| is_dev_tty(info)) {
        let other = match controlling.iter().find(|c| c.session == info.session) {
            Some(c) => infos.iter().find(|i| is_device(i, c)),
            None => infos
                .iter()
                .find(|i| i.session == info.session && info.session != 0 && stands_for(i)),
        };
        match other {
            // The owner, too: CRIU gives the terminal to it.
            Some(other) if other.kind == EXTERNAL => {
                (change.rdev, change.dev) = (Some(other.rdev), other.dev);
                (change.uid, change.gid) = (other.uid, other.gid);
            }
            Some(other) => moved.push((info.id, other.id)),
            None => unknown.push(info.session),
        }
    }
    for terminal in controlling.iter().filter(|c| !infos.iter().any(|i| i.session == c.session)) {
        let found = infos.iter().zip(&mut changes).find(|(i, _)| is_device(i, terminal));
        if let Some((_, change)) = found {
            (change.session, change.foreground) =
                (Some(terminal.session), Some(terminal.foreground));
        }
    }

    let mut images = Vec::new();
    if changes.iter().any(|c| *c != InfoChange::default()) {
        let changes = changes.iter().map(Message::encode_to_vec);
        images.push(("tty-info.img".to_owned(), appended(&info_bytes, INFO_MAGIC, changes)));
    }
    if !moved.is_empty() {
        let bytes = bytes_of(&files_path)?;
        let files: Vec<File> = decode(&files_path, &bytes, Head::Common(FILES_MAGIC))?;
        images.push((
            "files.img".to_owned(),
            appended(&bytes, FILES_MAGIC, file_changes(&files, &moved)),
        ));
    }
    Ok(Resolved { images, unknown })
}

/// Files of a terminal of the first number become files of the terminal of the second.
fn file_changes(files: &[File], moved: &[(u32, u32)]) -> impl Iterator<Item = Vec<u8>> {
    let ttys = || files.iter().filter(|f| f.kind == TTY).filter_map(|f| f.tty.as_ref());
    files.iter().map(move |file| {
        let change = file.tty.as_ref().filter(|_| file.kind == TTY).and_then(|tty| {
            let (_, to) = moved.iter().find(|(from, _)| *from == tty.info)?;
            let regular = ttys().find(|other| other.info == *to)?.regular?;
            Some(FileChange { tty: TtyFile { info: *to, regular: Some(regular), ..tty.clone() } })
        });
        change.map(|c| c.encode_to_vec()).unwrap_or_default()
    })
}

fn is_dev_tty(info: &Info) -> bool {
    info.kind == EXTERNAL && info.rdev == DEV_TTY
}

/// Whether it is a terminal by its own name. (Slaves of ptys have even numbers.)
fn stands_for(info: &Info) -> bool {
    info.rdev != DEV_TTY
        && (info.kind == EXTERNAL || (info.kind == PTY && info.id.is_multiple_of(2)))
}

fn is_device(info: &Info, terminal: &Controlling) -> bool {
    info.kind == EXTERNAL
        && (info.rdev, info.dev) == (number(terminal.rdev), Some(number(terminal.dev)))
}

/// Device numbers as the images have them.
fn number(device: u64) -> u32 {
    device as u32
}

/// An image with fields appended to its messages.
fn appended(bytes: &[u8], magic: u32, more: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    // It was decoded before.
    let found = messages(bytes, Head::Common(magic)).unwrap_or_default();
    let head = bytes.len() - found.iter().map(|m| 4 + m.len()).sum::<usize>();
    let mut image = bytes.get(..head).unwrap_or_default().to_vec();
    for (message, more) in found.into_iter().zip(more) {
        // Both are parts of an image, which is smaller than 4 GiB.
        image.extend(((message.len() + more.len()) as u32).to_le_bytes());
        image.extend(message);
        image.extend(more);
    }
    image
}

pub(super) fn decode_anything(path: &Path, bytes: &[u8]) {
    let _ = decode::<Info>(path, bytes, Head::Common(INFO_MAGIC));
    let _ = decode::<File>(path, bytes, Head::Common(FILES_MAGIC));
    let _ = appended(bytes, INFO_MAGIC, std::iter::empty());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::images::COMMON_MAGIC;
    use std::fs;

    fn image(magic: u32, messages: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = [COMMON_MAGIC.to_le_bytes(), magic.to_le_bytes()].concat();
        for message in messages {
            bytes.extend((message.len() as u32).to_le_bytes());
            bytes.extend(message);
        }
        bytes
    }

    fn info(id: u32, kind: u32, session: u32, rdev: u32, dev: u32) -> Vec<u8> {
        Info { id, kind, session, rdev, dev: Some(dev), uid: Some(id), gid: Some(5) }
            .encode_to_vec()
    }

    fn file(id: u32, info: u32, regular: Option<u32>) -> Vec<u8> {
        let tty = TtyFile { id, info, flags: 2, owner: vec![8, 0], regular };
        File { kind: TTY, tty: Some(tty) }.encode_to_vec()
    }

    /// The console (held by init, of another session), tty1 with a shell, and a login on a pty of
    /// the container's own.
    fn checkpoint() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let infos = [
            info(2026, EXTERNAL, 0, 0x8800, 51),
            info(2028, EXTERNAL, 9, 0x8801, 51),
            info(2030, EXTERNAL, 9, DEV_TTY, 6),
            info(2032, EXTERNAL, 8, DEV_TTY, 6),
            info(2034, EXTERNAL, 20, DEV_TTY, 6),
            info(10, PTY, 20, 0x8805, 60),
            info(11, PTY, 20, 0x502, 60),
        ];
        fs::write(dir.path().join("tty-info.img"), image(INFO_MAGIC, &infos)).unwrap();
        let files =
            [file(1, 2028, None), file(2, 2030, None), file(3, 10, Some(77)), file(4, 2034, None)];
        fs::write(dir.path().join("files.img"), image(FILES_MAGIC, &files)).unwrap();
        dir
    }

    #[test]
    fn each_dev_tty_becomes_the_terminal_that_it_stood_for() {
        let dir = checkpoint();
        let console = Controlling { rdev: 0x8800, dev: 51, session: 8, foreground: 12 };
        let Resolved { images: shown, unknown } =
            controlling_resolved(dir.path(), &[console]).unwrap();
        assert!(unknown.is_empty());
        assert_eq!(
            shown.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["tty-info.img", "files.img"]
        );
        let infos: Vec<Info> = decode(dir.path(), &shown[0].1, Head::Common(INFO_MAGIC)).unwrap();
        let devices: Vec<_> = infos.iter().map(|i| (i.session, i.rdev, i.dev)).collect();
        assert_eq!(
            infos.iter().map(|i| i.uid.unwrap()).collect::<Vec<_>>()[..5],
            [2026, 2028, 2028, 2026, 2034]
        );
        assert_eq!(
            devices[..5],
            [
                (0, 0x8800, Some(51)),
                (9, 0x8801, Some(51)),
                (9, 0x8801, Some(51)),
                (8, 0x8800, Some(51)),
                (20, DEV_TTY, Some(6)),
            ]
        );
        let files: Vec<File> = decode(dir.path(), &shown[1].1, Head::Common(FILES_MAGIC)).unwrap();
        let ttys: Vec<_> = files
            .iter()
            .filter_map(|f| f.tty.as_ref())
            .map(|t| (t.id, t.info, t.regular))
            .collect();
        assert_eq!(ttys, [(1, 2028, None), (2, 2030, None), (3, 10, Some(77)), (4, 10, Some(77))]);
    }

    #[test]
    fn a_session_that_criu_did_not_see_is_added() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = image(INFO_MAGIC, &[info(2026, EXTERNAL, 0, 0x8800, 51)]);
        fs::write(dir.path().join("tty-info.img"), bytes).unwrap();
        let console = Controlling { rdev: 0x8800, dev: 51, session: 8, foreground: 12 };
        let shown = controlling_resolved(dir.path(), &[console]).unwrap().images;
        let infos: Vec<Info> = decode(dir.path(), &shown[0].1, Head::Common(INFO_MAGIC)).unwrap();
        assert_eq!((infos[0].session, infos[0].rdev), (8, 0x8800));
        assert_eq!(controlling_resolved(dir.path(), &[]).unwrap(), Resolved::default());
    }

    #[test]
    fn what_cannot_be_found_out_is_told() {
        let dir = checkpoint();
        assert_eq!(controlling_resolved(dir.path(), &[]).unwrap().unknown, [8]);
        let bytes = image(
            INFO_MAGIC,
            &[info(2026, EXTERNAL, 0, DEV_TTY, 6), info(2028, EXTERNAL, 0, 0x8801, 51)],
        );
        fs::write(dir.path().join("tty-info.img"), bytes).unwrap();
        assert_eq!(controlling_resolved(dir.path(), &[]).unwrap().unknown, [0]);
    }
}
