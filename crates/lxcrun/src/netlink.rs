//! rtnetlink(7): network devices and their addresses, in the network namespace of the calling thread.

use std::io;
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A conversation with the kernel.
pub(crate) struct Netlink(Socket);

impl Netlink {
    /// Begins one, in the thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// The device of this name.
    pub(crate) fn link(&self, name: &str) -> io::Result<LinkMessage> {
        let mut wanted = LinkMessage::default();
        wanted.attributes.push(LinkAttribute::IfName(name.into()));
        let found = self.request(RouteNetlinkMessage::GetLink(wanted), NLM_F_ACK)?;
        let link = found.into_iter().find_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        });
        link.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The indices of those devices that are one end of a pair whose other end is in another network namespace.
    fn ends_of_pairs(&self) -> io::Result<Vec<u32>> {
        let all = self.request(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        let ends = all.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) if is_end_of_pair(&link) => Some(link.header.index),
            _ => None,
        });
        Ok(ends.collect())
    }

    /// Changes a device.
    pub(crate) fn set_link(&self, link: LinkMessage) -> io::Result<()> {
        self.request(RouteNetlinkMessage::SetLink(link), NLM_F_ACK).map(drop)
    }

    /// The addresses of all devices.
    pub(crate) fn addresses(&self) -> io::Result<Vec<AddressMessage>> {
        let all = self.request(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        let addresses = all.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(address) => Some(address),
            _ => None,
        });
        Ok(addresses.collect())
    }

    /// Gives a device one more address.
    pub(crate) fn add_address(&self, address: AddressMessage) -> io::Result<()> {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.request(RouteNetlinkMessage::NewAddress(address), flags).map(drop)
    }

    fn request(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut request = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
        request.header.flags = NLM_F_REQUEST | flags;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (received, _) = self.0.recv_from_full()?;
            let mut rest = received.as_slice();
            while !rest.is_empty() {
                let answer =
                    NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(e) if e.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(e) => return Err(e.to_io()),
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    _ => {}
                }
                // Messages begin at multiples of four bytes.
                let length = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(length.max(4)..).unwrap_or_default();
            }
        }
    }
}

fn is_end_of_pair(link: &LinkMessage) -> bool {
    let is_pair = |info: &LinkInfo| matches!(info, LinkInfo::Kind(InfoKind::Veth));
    let attributes = &link.attributes;
    attributes.iter().any(|a| matches!(a, LinkAttribute::LinkInfo(infos) if infos.iter().any(is_pair)))
        && attributes.iter().any(|a| matches!(a, LinkAttribute::LinkNetNsId(_)))
}

/// The host's ends of pairs (veth(4)) before a container gets its own.
///
/// liblxc removes those of a container that has ended, but not of one that could not be started. The kernel does that, a moment
/// after the end of the network namespace that the other ends are in.
#[derive(Debug)]
pub(crate) struct PairsBefore(Vec<u32>);

impl PairsBefore {
    pub(crate) fn note() -> io::Result<Self> {
        Netlink::open()?.ends_of_pairs().map(Self)
    }

    /// Waits until those are gone that have come since. Some may be of others and stay: it does not wait for long.
    pub(crate) fn until_new_ones_are_gone(&self) -> io::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(1);
        /// `RTNLGRP_LINK`
        const LINKS: u32 = 1;
        let mut changes = Socket::new(NETLINK_ROUTE)?;
        changes.bind_auto()?;
        changes.add_membership(LINKS)?;
        changes.set_non_blocking(true)?;
        let netlink = Netlink::open()?;
        let end = Instant::now() + PATIENCE;
        while netlink.ends_of_pairs()?.iter().any(|index| !self.0.contains(index)) {
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut fds = [PollFd::new(&changes, PollFlags::IN)];
            if rustix::io::retry_on_intr(|| poll(&mut fds, Some(&left)))? == 0 {
                break;
            }
            // What has changed is asked for anew, also when there was too much to be told.
            while changes.recv_from_full().is_ok() {}
        }
        Ok(())
    }
}
