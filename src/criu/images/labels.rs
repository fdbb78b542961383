//! Labels of a security module: in `core-TID.img` that of each thread, in `apparmor.img` the policy
//! namespaces that they name.

use std::collections::BTreeSet;
use std::path::Path;

use prost::Message;

use super::tree::CORE_MAGIC;
use super::{Error, Head, Shown, bytes_of, change, decode};

const APPARMOR_MAGIC: u32 = 0x5942_3047;
/// The image of policy namespaces.
const APPARMOR: &str = "apparmor.img";

/// `core_entry`, with what leads to the label; the rest stays bytes.
#[derive(Clone, PartialEq, Message)]
struct Core {
    #[prost(bytes = "vec", optional, tag = "5")]
    thread: Option<Vec<u8>>,
}
const THREAD: u32 = 5;

/// `thread_core_entry`.
#[derive(Clone, PartialEq, Message)]
struct Thread {
    #[prost(bytes = "vec", optional, tag = "10")]
    creds: Option<Vec<u8>>,
}
const CREDS: u32 = 10;

/// `creds_entry`.
#[derive(Clone, PartialEq, Message)]
struct Creds {
    #[prost(string, optional, tag = "15")]
    label: Option<String>,
}
const LABEL: u32 = 15;

/// `apparmor_entry`; namespaces in namespaces stay bytes.
#[derive(Clone, PartialEq, Message)]
struct Apparmor {
    #[prost(bytes = "vec", repeated, tag = "1")]
    namespaces: Vec<Vec<u8>>,
}
const NAMESPACE: u32 = 1;

/// `aa_namespace`.
#[derive(Clone, PartialEq, Message)]
struct Namespace {
    #[prost(string, required, tag = "1")]
    name: String,
}
const NAME: u32 = 1;

/// The labels of all threads of a checkpoint, each once.
pub(crate) fn labels(dir: &Path) -> Result<BTreeSet<String>, Error> {
    let mut found = BTreeSet::new();
    for name in core_files(dir)? {
        let path = dir.join(&name);
        for core in decode::<Core>(&path, &bytes_of(&path)?, Head::Common(CORE_MAGIC))? {
            found.extend(
                label_of(core).map_err(|source| Error::Damaged { path: path.clone(), source })?,
            );
        }
    }
    Ok(found)
}

/// Shows CRIU other labels and policy namespaces, as `change` makes them of those that are there.
pub(crate) fn relabel(shown: &mut Shown, change: impl Fn(&str) -> String) -> Result<(), Error> {
    for name in core_files(shown.dir())? {
        shown.change(&name, |path, bytes| with_label(path, bytes, &change))?;
    }
    match shown.change(APPARMOR, |path, bytes| with_namespaces(path, bytes, &change)) {
        // Nothing was in a policy namespace.
        Err(e) if e.is_not_found() => Ok(()),
        other => other,
    }
}

/// Those that are there: of a zombie `pstree.img` names any number as its thread.
pub(super) fn core_files(dir: &Path) -> Result<Vec<String>, Error> {
    let io_error = |source| Error::Io { path: dir.to_owned(), source };
    let names = std::fs::read_dir(dir).and_then(|entries| {
        entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<std::io::Result<Vec<_>>>()
    });
    let mut names = names.map_err(io_error)?;
    names.retain(|name| name.starts_with("core-") && name.ends_with(".img"));
    names.sort_unstable();
    Ok(names)
}

fn label_of(core: Core) -> Result<Option<String>, prost::DecodeError> {
    let Some(thread) = core.thread else { return Ok(None) };
    let Some(creds) = Thread::decode(thread.as_slice())?.creds else { return Ok(None) };
    Ok(Creds::decode(creds.as_slice())?.label)
}

fn with_label(
    path: &Path,
    bytes: &[u8],
    change: &impl Fn(&str) -> String,
) -> Result<Vec<u8>, Error> {
    change::each(path, bytes, Head::Common(CORE_MAGIC), |message| {
        let Some(thread) = Core::decode(message)?.thread else { return Ok(None) };
        let Some(creds) = Thread::decode(thread.as_slice())?.creds else { return Ok(None) };
        let Some(label) = Creds::decode(creds.as_slice())?.label else { return Ok(None) };
        let creds = replaced(&creds, LABEL, change(&label).as_bytes())?;
        let thread = replaced(&thread, CREDS, &creds)?;
        replaced(message, THREAD, &thread).map(Some)
    })
}

fn with_namespaces(
    path: &Path,
    bytes: &[u8],
    change: &impl Fn(&str) -> String,
) -> Result<Vec<u8>, Error> {
    change::each(path, bytes, Head::Common(APPARMOR_MAGIC), |message| {
        let mut changed = change::without(message, &[NAMESPACE])?;
        for namespace in Apparmor::decode(message)?.namespaces {
            let name = change(&Namespace::decode(namespace.as_slice())?.name);
            change::put_bytes(
                NAMESPACE,
                &replaced(&namespace, NAME, name.as_bytes())?,
                &mut changed,
            );
        }
        Ok(Some(changed))
    })
}

/// The message with another content of a field. A message within another cannot be put twice:
/// readers merge the two.
fn replaced(message: &[u8], tag: u32, content: &[u8]) -> Result<Vec<u8>, prost::DecodeError> {
    let mut changed = change::without(message, &[tag])?;
    change::put_bytes(tag, content, &mut changed);
    Ok(changed)
}

pub(super) fn decode_anything(path: &Path, bytes: &[u8]) {
    let _ = with_label(path, bytes, &|label| label.to_owned());
    let _ = with_namespaces(path, bytes, &|name| name.to_owned());
}

#[cfg(test)]
mod tests {
    use super::super::{COMMON_MAGIC, tests::real};
    use super::*;

    fn image(magic: u32, message: &[u8]) -> Vec<u8> {
        let mut bytes = [COMMON_MAGIC, magic].map(u32::to_le_bytes).concat();
        bytes.extend((message.len() as u32).to_le_bytes());
        bytes.extend(message);
        bytes
    }

    #[test]
    fn a_kernel_without_such_a_module_gives_no_labels() {
        assert_eq!(labels(&real()).unwrap(), BTreeSet::new());
    }

    #[test]
    fn a_real_image_gets_a_label_and_then_another() {
        let name = core_files(&real()).unwrap().remove(0);
        let path = real().join(&name);
        let bytes = bytes_of(&path).unwrap();
        // Without one it stays as it is, byte for byte.
        assert_eq!(with_label(&path, &bytes, &|_| "x".to_owned()).unwrap(), bytes);

        let head = Head::Common(CORE_MAGIC);
        let label =
            |bytes: &[u8]| label_of(decode::<Core>(&path, bytes, head).unwrap().remove(0)).unwrap();
        let labelled = change::each(&path, &bytes, head, |message| {
            let thread = Core::decode(message)?.thread.unwrap();
            let mut creds = Thread::decode(thread.as_slice())?.creds.unwrap();
            change::put_bytes(LABEL, b"lxc-web", &mut creds);
            replaced(message, THREAD, &replaced(&thread, CREDS, &creds)?).map(Some)
        })
        .unwrap();
        assert_eq!(label(&labelled).as_deref(), Some("lxc-web"));
        let other = with_label(&path, &labelled, &|label| label.replace("web", "copy")).unwrap();
        assert_eq!(label(&other).as_deref(), Some("lxc-copy"));
    }

    #[test]
    fn a_policy_namespace_gets_another_name_and_keeps_its_policies() {
        let mut namespace = Vec::new();
        change::put_bytes(NAME, b"lxc-web", &mut namespace);
        change::put_bytes(2, b"policy", &mut namespace);
        let mut message = Vec::new();
        change::put_bytes(NAMESPACE, &namespace, &mut message);
        let path = Path::new(APPARMOR);
        let bytes = image(APPARMOR_MAGIC, &message);
        let changed = with_namespaces(path, &bytes, &|name| name.replace("web", "copy")).unwrap();
        let entry =
            decode::<Apparmor>(path, &changed, Head::Common(APPARMOR_MAGIC)).unwrap().remove(0);
        let namespace = &entry.namespaces[0];
        assert_eq!(Namespace::decode(namespace.as_slice()).unwrap().name, "lxc-copy");
        assert!(namespace.windows(6).any(|window| window == b"policy"));
    }
}
