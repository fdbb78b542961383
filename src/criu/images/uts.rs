//! `utsns-UTSNS.img`: the host name of a container.

use std::path::Path;

use prost::Message;

use super::{Error, Head, change, decode};

const UTSNS_MAGIC: u32 = 0x5447_3203;
const NODENAME_TAG: u32 = 1;

#[derive(Clone, PartialEq, Message)]
struct UtsnsEntry {
    #[prost(bytes = "vec", required, tag = "1")]
    nodename: Vec<u8>,
    #[prost(bytes = "vec", required, tag = "2")]
    domainname: Vec<u8>,
}

/// The name of the image of a uts namespace.
pub(crate) fn file_name(utsns: u32) -> String {
    format!("utsns-{utsns}.img")
}

/// The image with another host name. (The kernel takes it as a sysctl, and CRIU writes it without a
/// look at its length.)
pub(crate) fn with_hostname(path: &Path, bytes: &[u8], name: &str) -> Result<Vec<u8>, Error> {
    change::each(path, bytes, Head::Common(UTSNS_MAGIC), |message| {
        let mut changed = message.to_vec();
        change::put_bytes(NODENAME_TAG, name.as_bytes(), &mut changed);
        Ok(Some(changed))
    })
}

pub(super) fn decode_anything(path: &Path, bytes: &[u8]) {
    let _ = decode::<UtsnsEntry>(path, bytes, Head::Common(UTSNS_MAGIC));
    let _ = with_hostname(path, bytes, "name");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_name_changes() {
        let before = UtsnsEntry { nodename: b"web".to_vec(), domainname: b"(none)".to_vec() };
        let mut bytes = [super::super::COMMON_MAGIC, UTSNS_MAGIC].map(u32::to_le_bytes).concat();
        bytes.extend((before.encoded_len() as u32).to_le_bytes());
        bytes.extend(before.encode_to_vec());
        let path = Path::new("utsns-11.img");
        let after = with_hostname(path, &bytes, "web-copy").unwrap();
        let after: Vec<UtsnsEntry> = decode(path, &after, Head::Common(UTSNS_MAGIC)).unwrap();
        assert_eq!(after, [UtsnsEntry { nodename: b"web-copy".to_vec(), ..before }]);
    }
}
