//! Links: what there is, and making, changing and deleting them.

use std::os::fd::{AsRawFd, BorrowedFd};

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoMacVlan, InfoPortData, InfoVeth, LinkAttribute, LinkExtentMask,
    LinkFlags, LinkInfo, LinkMessage, LinkXdp, State,
};
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::{Error, Mac, Netlink, PortSettings};

/// How often another index is tried for the outer end of a pair when someone takes it first.
const INDEX_TRIES: u32 = 16;

/// A link as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index in this namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its kind (`veth`, `bridge`, …); hardware has none.
    pub kind: Option<String>,
    /// Its hardware address, if it has one of Ethernet's length.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: u32,
    /// Whether it is set up (not whether it has a carrier).
    pub up: bool,
    /// Whether it can carry packets: up, with a carrier, and its queue at work (IFLA_OPERSTATE up,
    /// or a kind of link that knows no such state).
    pub running: bool,
    /// Whether there is a carrier (IFF_LOWER_UP): the kernel has then begun to set its queue to
    /// work.
    pub carrier: bool,
    /// The index of the bridge (bond, VRF, …) that it is a port of.
    pub controller: Option<u32>,
    /// IFLA_LINK: the index of a veth's other end, or of the link that a macvlan sits on.
    pub peer_index: Option<u32>,
    /// IFLA_LINK_NETNSID: the namespace that `peer_index` counts in; none when it is this one.
    pub peer_netns: Option<i32>,
    /// The alias that an administrator gave it.
    pub alias: Option<String>,
    /// The length of its transmit queue.
    pub txqueuelen: Option<u32>,
    /// How many queues it sends and receives with.
    pub queues: Option<(u32, u32)>,
    /// How a macvlan gets on with others upon the same link (IFLA_MACVLAN_MODE).
    pub macvlan_mode: Option<u32>,
    /// Its settings as a port, if its controller is a Linux bridge.
    pub port: Option<PortSettings>,
}

/// A veth pair to be made.
#[derive(Clone, Debug, Default)]
pub struct NewVeth<'a> {
    /// The name of the end that stays in this namespace.
    pub host_name: String,
    /// The name of the other end.
    pub inner_name: String,
    /// The MTU of both ends; the kernel's 1500 when not given.
    pub mtu: Option<u32>,
    /// The hardware address of the host's end; random when not given.
    pub host_mac: Option<Mac>,
    /// The hardware address of the inner end; random when not given.
    pub inner_mac: Option<Mac>,
    /// The transmit queue length of the host's end.
    pub host_txqueuelen: Option<u32>,
    /// The transmit queue length of the inner end.
    pub inner_txqueuelen: Option<u32>,
    /// How many queues the host's end sends and receives with.
    pub host_queues: Option<(u32, u32)>,
    /// The same of the inner end.
    pub inner_queues: Option<(u32, u32)>,
    /// The index of the inner end in its namespace.
    pub inner_index: Option<u32>,
    /// The namespace in which the inner end is born; this one when not given.
    pub inner_netns: Option<BorrowedFd<'a>>,
    /// Sets the host's end up at once. (The inner end cannot be: when the kernel would open it the
    /// pair is not joined yet, and it says ENOTCONN; drivers/net/veth.c, `veth_open`.)
    pub host_up: bool,
    /// Makes the host's end a port of this bridge at once.
    pub controller: Option<u32>,
}

/// A macvlan to be made in another namespace.
#[derive(Clone, Debug)]
pub struct NewMacvlan<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its index there; any when not given.
    pub index: Option<u32>,
    /// Its hardware address; random when not given.
    pub mac: Option<Mac>,
    /// The index of the link here that it sits on.
    pub parent: u32,
    /// How it gets on with others there.
    pub mode: u32,
    /// The namespace in which it is born.
    pub netns: BorrowedFd<'a>,
}

/// `XDP_FLAGS_SKB_MODE`, include/uapi/linux/if_link.h: by the kernel's own means, which each kind
/// of link has.
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;

impl Netlink {
    /// All links of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let answer = self.dump(RouteNetlinkMessage::GetLink(lean_query()))?;
        Ok(answer.into_iter().filter_map(link_of).collect())
    }

    /// The link of this name (or alternative name).
    pub fn link(&mut self, name: &str) -> Result<Link, Error> {
        let mut query = lean_query();
        query.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(query)
    }

    /// The link with this index.
    pub fn link_by_index(&mut self, index: u32) -> Result<Link, Error> {
        let mut query = lean_query();
        query.header.index = index;
        self.one_link(query)
    }

    fn one_link(&mut self, query: LinkMessage) -> Result<Link, Error> {
        let answer = self.request(RouteNetlinkMessage::GetLink(query), 0)?;
        answer.messages.into_iter().find_map(link_of).ok_or(Error::Incomplete("link"))
    }

    /// The id by which this namespace knows another one; none if nothing here refers to it.
    ///
    /// The kernel gives a namespace an id when it first describes a link whose other end lies
    /// there: list the links first, then ask.
    pub fn netns_id(&mut self, netns: BorrowedFd<'_>) -> Result<Option<i32>, Error> {
        let mut query = NsidMessage::default();
        // A file descriptor is never negative.
        query.attributes.push(NsidAttribute::Fd(netns.as_raw_fd().unsigned_abs()));
        let answer = self.request(RouteNetlinkMessage::GetNsId(query), 0)?;
        for message in answer.messages {
            if let RouteNetlinkMessage::NewNsId(message) = message {
                let id = message.attributes.iter().find_map(|a| match a {
                    NsidAttribute::Id(id) => Some(*id),
                    _ => None,
                });
                // NETNSA_NSID_NOT_ASSIGNED is -1.
                return Ok(id.filter(|id| *id >= 0));
            }
        }
        Err(Error::Incomplete("namespace id"))
    }

    /// Makes a link a port of a bridge, or takes it off the one it is on.
    pub fn set_controller(&mut self, index: u32, controller: Option<u32>) -> Result<(), Error> {
        // 0 is the kernel's word for "none".
        self.set(LinkUnspec::new_with_index(index).controller(controller.unwrap_or(0)))
    }

    /// As [`Netlink::set_controller`], and gives the link this hardware address in the same step:
    /// the kernel sets it before the controller (net/core/rtnetlink.c, do_setlink).
    pub fn set_mac_and_controller(
        &mut self,
        index: u32,
        mac: Mac,
        controller: Option<u32>,
    ) -> Result<(), Error> {
        self.set(
            LinkUnspec::new_with_index(index)
                .address(mac.0.to_vec())
                .controller(controller.unwrap_or(0)),
        )
    }

    /// Gives a link this hardware address.
    pub fn set_mac(&mut self, index: u32, mac: Mac) -> Result<(), Error> {
        self.set(LinkUnspec::new_with_index(index).address(mac.0.to_vec()))
    }

    /// Sets a link up or down.
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), Error> {
        let link = LinkUnspec::new_with_index(index);
        self.set(if up { link.up() } else { link.down() })
    }

    /// Gives a link these `IFF_…` flags, as far as they can be set, and this MTU.
    pub fn set_flags_and_mtu(&mut self, index: u32, flags: u32, mtu: u32) -> Result<(), Error> {
        let mut message = LinkUnspec::new_with_index(index).mtu(mtu).build();
        // A mask of none means all (net/core/rtnetlink.c, rtnl_dev_get_flags).
        message.header.flags = LinkFlags::from_bits_retain(flags);
        message.header.change_mask = LinkFlags::empty();
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Gives a link another name. Older kernels want it to be down.
    pub fn rename(&mut self, index: u32, name: &str) -> Result<(), Error> {
        self.set(LinkUnspec::new_with_index(index).name(name))
    }

    /// Sets a link's MTU.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), Error> {
        self.set(LinkUnspec::new_with_index(index).mtu(mtu))
    }

    /// Has a program decide on what arrives at a link ([`crate::sys::bpf::load_drop_all`]), or
    /// nobody.
    pub fn set_gate(&mut self, index: u32, program: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        // -1 is the kernel's word for "none".
        let fd = program.map_or(-1, |p| p.as_raw_fd());
        let gate = LinkAttribute::Xdp(vec![LinkXdp::Fd(fd), LinkXdp::Flags(XDP_FLAGS_SKB_MODE)]);
        self.set(LinkUnspec::new_with_index(index).append_extra_attribute(gate))
    }

    /// Makes a macvlan; it is down.
    pub fn create_macvlan(&mut self, new: &NewMacvlan<'_>) -> Result<(), Error> {
        let mut link = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::MacVlan)
            .name(new.name)
            .link(new.parent)
            .setns_by_fd(new.netns.as_raw_fd());
        if let Some(index) = new.index {
            link = link.index(index);
        }
        if let Some(mac) = new.mac {
            link = link.address(mac.0.to_vec());
        }
        let mode = InfoData::MacVlan(vec![InfoMacVlan::Mode(new.mode.into())]);
        self.create(link.set_info_data(mode).build())
    }

    /// Moves a link into another namespace under this name, and there gives it this index, if it is
    /// told.
    pub fn move_link(
        &mut self,
        index: u32,
        netns: BorrowedFd<'_>,
        name: &str,
        new_index: Option<u32>,
    ) -> Result<(), Error> {
        let mut link = LinkUnspec::new_with_index(index).name(name).setns_by_fd(netns.as_raw_fd());
        if let Some(new) = new_index {
            link = link.append_extra_attribute(LinkAttribute::NewIfIndex(new.cast_signed()));
        }
        self.set(link)
    }

    fn set(&mut self, link: LinkMessageBuilder<LinkUnspec>) -> Result<(), Error> {
        self.change(RouteNetlinkMessage::SetLink(link.build()), 0)
    }

    /// Deletes a link; of a veth pair, both ends.
    pub fn delete_link(&mut self, index: u32) -> Result<(), Error> {
        self.change(RouteNetlinkMessage::DelLink(LinkUnspec::new_with_index(index).build()), 0)
    }

    /// Makes a bridge and sets it up; gives its index.
    pub fn create_bridge(&mut self, name: &str) -> Result<u32, Error> {
        let bridge =
            LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Bridge).name(name).up();
        self.create(bridge.build())?;
        Ok(self.link(name)?.index)
    }

    /// Makes a veth pair by one message: all of it, or nothing. Gives the index of the host's end.
    pub fn create_veth(&mut self, new: &NewVeth<'_>) -> Result<u32, Error> {
        if new.inner_index.is_none() {
            self.create(veth_message(new, None))?;
            return Ok(self.link(&new.host_name)?.index);
        }
        // The kernel heeds the index of the inner end only if the outer end's is given too
        // (drivers/net/veth.c, veth_newlink), so one must be found that is free.
        let highest = self.links()?.iter().map(|l| l.index).max().unwrap_or(0);
        let mut outcome = Err(Error::Exists);
        for step in 1..=INDEX_TRIES {
            let index = highest.saturating_add(step);
            outcome = self.create(veth_message(new, Some(index))).map(|()| index);
            match &outcome {
                Err(e) if e.errno() == Some(libc::EBUSY) => {}
                Err(Error::Exists) if self.link(&new.host_name).is_err() => {}
                _ => break,
            }
        }
        outcome
    }

    fn create(&mut self, message: LinkMessage) -> Result<(), Error> {
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }
}

/// A query without the statistics, which are half of each answer and cost the most to gather.
fn lean_query() -> LinkMessage {
    let mut query = LinkMessage::default();
    query.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    query
}

fn veth_message(new: &NewVeth<'_>, host_index: Option<u32>) -> LinkMessage {
    let mut inner = LinkUnspec::new_with_name(&new.inner_name);
    let mut host =
        LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth).name(&*new.host_name);
    if let Some(mtu) = new.mtu {
        inner = inner.mtu(mtu);
        host = host.mtu(mtu);
    }
    if let Some(mac) = new.inner_mac {
        inner = inner.address(mac.0.to_vec());
    }
    if let Some(mac) = new.host_mac {
        host = host.address(mac.0.to_vec());
    }
    if let Some(length) = new.inner_txqueuelen {
        inner = inner.txqueuelen(length);
    }
    if let Some(length) = new.host_txqueuelen {
        host = host.txqueuelen(length);
    }
    if let Some((send, receive)) = new.inner_queues {
        inner = inner.append_extra_attribute(LinkAttribute::NumTxQueues(send));
        inner = inner.append_extra_attribute(LinkAttribute::NumRxQueues(receive));
    }
    if let Some((send, receive)) = new.host_queues {
        host = host.append_extra_attribute(LinkAttribute::NumTxQueues(send));
        host = host.append_extra_attribute(LinkAttribute::NumRxQueues(receive));
    }
    if let Some(index) = new.inner_index {
        inner = inner.index(index);
    }
    if let Some(index) = host_index {
        host = host.index(index);
    }
    if let Some(netns) = new.inner_netns {
        inner = inner.setns_by_fd(netns.as_raw_fd());
    }
    if new.host_up {
        host = host.up();
    }
    if let Some(controller) = new.controller {
        host = host.controller(controller);
    }
    host.set_info_data(InfoData::Veth(InfoVeth::Peer(inner.build()))).build()
}

fn link_of(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::OperState(state) => {
                link.running = matches!(state, State::Up | State::Unknown)
            }
            LinkAttribute::Controller(index) => link.controller = Some(index).filter(|i| *i != 0),
            // 0 says that the other end is in a namespace that we may not know.
            LinkAttribute::Link(index) => link.peer_index = Some(index).filter(|i| *i != 0),
            LinkAttribute::LinkNetNsId(id) => link.peer_netns = Some(id).filter(|id| *id >= 0),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::TxQueueLen(length) => link.txqueuelen = Some(length),
            LinkAttribute::NumTxQueues(send) => {
                link.queues = Some((send, link.queues.map_or(1, |(_, r)| r)))
            }
            LinkAttribute::NumRxQueues(receive) => {
                link.queues = Some((link.queues.map_or(1, |(s, _)| s), receive))
            }
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
                        LinkInfo::Data(InfoData::MacVlan(data)) => {
                            let mode = |i: &InfoMacVlan| {
                                if let InfoMacVlan::Mode(m) = i { Some((*m).into()) } else { None }
                            };
                            link.macvlan_mode = data.iter().find_map(mode);
                        }
                        LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
                            link.port = Some(PortSettings::read(&port))
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(link)
}
