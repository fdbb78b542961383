//! `ids-PID.img` and `netdev-NETNS.img`: the interfaces of a container.

use std::path::Path;

use prost::Message;

use super::{Error, Head, KobjIdsEntry, NamespaceIds, bytes_of, change, decode, read_one};

const IDS_MAGIC: u32 = 0x5443_2030;
const NETDEV_MAGIC: u32 = 0x5737_3951;

/// `type` of CRIU's `net_device_entry`.
const TYPE_TAG: u32 = 1;
/// `address` of the same.
const ADDRESS_TAG: u32 = 7;
/// `LOOPBACK` of CRIU's `nd_type`: a device that its namespace has already.
const LOOPBACK: u32 = 1;
/// `VETH` of CRIU's `nd_type`.
const VETH: u32 = 2;

#[derive(Clone, PartialEq, Message)]
struct NetDeviceEntry {
    #[prost(uint32, required, tag = "1")]
    kind: u32,
    #[prost(uint32, required, tag = "2")]
    ifindex: u32,
    #[prost(uint32, required, tag = "3")]
    mtu: u32,
    #[prost(uint32, required, tag = "4")]
    flags: u32,
    #[prost(string, required, tag = "5")]
    name: String,
    #[prost(bytes = "vec", optional, tag = "7")]
    address: Option<Vec<u8>>,
    #[prost(uint32, optional, tag = "14")]
    master: Option<u32>,
}

/// An interface of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name in the container.
    pub name: String,
    /// Its index in the container; the images of addresses and routes name it by this.
    pub index: u32,
    /// Whether it is an end of a veth pair.
    pub veth: bool,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// The `IFF_…` that it had (linux/if.h).
    pub flags: u32,
    /// The index of the bridge or bond inside that it was a port of.
    pub master: Option<u32>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its hardware address; none for one that has none of Ethernet's length.
    pub mac: Option<[u8; 6]>,
}

impl NamespaceIds {
    /// CRIU's numbers for the namespaces of a task of a checkpoint.
    pub(crate) fn of_task(dir: &Path, pid: u32) -> Result<NamespaceIds, Error> {
        let ids: KobjIdsEntry =
            read_one(&dir.join(format!("ids-{pid}.img")), Head::Common(IDS_MAGIC))?;
        Ok(ids.into())
    }
}

/// The name of the image that holds the interfaces of a network namespace.
pub(crate) fn file_name(netns: u32) -> String {
    format!("netdev-{netns}.img")
}

/// The interfaces of a network namespace.
pub fn interfaces(dir: &Path, netns: u32) -> Result<Vec<Interface>, Error> {
    let path = dir.join(file_name(netns));
    decode_interfaces(&path, &bytes_of(&path)?)
}

fn decode_interfaces(path: &Path, bytes: &[u8]) -> Result<Vec<Interface>, Error> {
    let entries: Vec<NetDeviceEntry> = decode(path, bytes, Head::Common(NETDEV_MAGIC))?;
    Ok(entries
        .into_iter()
        .map(|e| Interface {
            name: e.name,
            index: e.ifindex,
            veth: e.kind == VETH,
            loopback: e.kind == LOOPBACK,
            flags: e.flags,
            master: e.master,
            mtu: e.mtu,
            mac: e.address.and_then(|a| a.try_into().ok()),
        })
        .collect())
}

/// The image of a network namespace's interfaces, changed so that CRIU finds those that `ready`
/// holds for in the namespace and gives them their settings, instead of making or moving them.
///
/// CRIU's word for such a device is EXTLINK, and the moment at which it must be there is the action
/// `setup-namespaces`. But for an EXTLINK it writes only those settings that differ from the
/// namespace's defaults (criu/net.c, `restore_link`), although the device was made before these;
/// for the loopback device, which is there before them too, it writes all. Apart from that it does
/// the same with both.
pub fn with_ready_made(
    dir: &Path,
    netns: u32,
    ready: impl Fn(&str) -> bool,
) -> Result<Vec<u8>, Error> {
    let path = dir.join(file_name(netns));
    change::each(&path, &bytes_of(&path)?, Head::Common(NETDEV_MAGIC), |message| {
        if !ready(&NetDeviceEntry::decode(message)?.name) {
            return Ok(None);
        }
        let mut changed = message.to_vec();
        change::put_number(TYPE_TAG, LOOPBACK.into(), &mut changed);
        Ok(Some(changed))
    })
}

/// The image with the interfaces that `mac` names under other hardware addresses.
pub fn with_macs(
    path: &Path,
    bytes: &[u8],
    mac: impl Fn(&str) -> Option<[u8; 6]>,
) -> Result<Vec<u8>, Error> {
    change::each(path, bytes, Head::Common(NETDEV_MAGIC), |message| {
        let Some(mac) = mac(&NetDeviceEntry::decode(message)?.name) else { return Ok(None) };
        let mut changed = message.to_vec();
        change::put_bytes(ADDRESS_TAG, &mac, &mut changed);
        Ok(Some(changed))
    })
}

pub(super) fn decode_anything(path: &Path, bytes: &[u8]) {
    let _ = decode::<KobjIdsEntry>(path, bytes, Head::Common(IDS_MAGIC));
    let _ = decode_interfaces(path, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// Images that CRIU 4.2.1 wrote of a container with one veth interface.
    fn real() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/criu-4.2.1/container")
    }

    #[test]
    fn reads_real_interfaces() {
        let dir = real();
        let netns = NamespaceIds::of_task(&dir, 1).unwrap().net.unwrap();
        let found = interfaces(&dir, netns).unwrap();
        let told: Vec<_> =
            found.iter().map(|i| (i.name.as_str(), i.index, i.veth, i.mtu)).collect();
        assert_eq!(told, [("lo", 1, false, 65536), ("eth0", 2, true, 1500)]);
        let macs: Vec<_> = found.iter().map(|i| i.mac).collect();
        assert_eq!(macs, [None, Some([222, 228, 167, 60, 57, 91])]);
    }

    #[test]
    fn only_the_kind_of_what_is_ready_changes() {
        let dir = real();
        let netns = NamespaceIds::of_task(&dir, 1).unwrap().net.unwrap();
        let before = bytes_of(&dir.join(file_name(netns))).unwrap();
        assert_eq!(with_ready_made(&dir, netns, |_| false).unwrap(), before);
        let after = with_ready_made(&dir, netns, |name| name == "eth0").unwrap();
        let after = decode_interfaces(&dir.join(file_name(netns)), &after).unwrap();
        let mut wanted = interfaces(&dir, netns).unwrap();
        (wanted[1].veth, wanted[1].loopback) = (false, true);
        assert_eq!(after, wanted);
    }

    #[test]
    fn an_interface_gets_another_hardware_address() {
        let dir = real();
        let path = dir.join(file_name(NamespaceIds::of_task(&dir, 1).unwrap().net.unwrap()));
        let before = bytes_of(&path).unwrap();
        let mac = [0, 0x16, 0x3e, 1, 2, 3];
        let after = with_macs(&path, &before, |name| (name == "eth0").then_some(mac)).unwrap();
        let after = decode_interfaces(&path, &after).unwrap();
        let mut wanted = decode_interfaces(&path, &before).unwrap();
        wanted[1].mac = Some(mac);
        assert_eq!(after, wanted);
    }
}
