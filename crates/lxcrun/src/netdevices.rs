//! `linux.netDevices`: network devices of the host that move into the container's network namespace.
//!
//! A device keeps its permanent global addresses and comes up (runtime-spec, config-linux.md, "Network Devices").
//! When the namespace goes away, the kernel takes physical devices back to the host and removes the others.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::{fs, io};

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::config::NetDevice;
use crate::error::{Context, refuse};
use crate::netlink::Netlink;
use crate::{ContainerId, Result};

/// Devices in the container's namespace. Dropped before [`Self::keep`] they go back to the host.
#[derive(Default)]
pub(crate) struct MovedDevices {
    moved: Vec<Moved>,
}

struct Moved {
    device: NetDevice,
    container: OwnedFd,
    host: OwnedFd,
    addresses: Vec<AddressMessage>,
    was_up: bool,
}

/// `linux.netDevices`, into the namespace that the init is in now.
pub(crate) fn move_into(id: &ContainerId, devices: &[NetDevice], init: Pid) -> Result<MovedDevices> {
    if devices.is_empty() {
        return Ok(MovedDevices::default());
    }
    let path = format!("/proc/{}/ns/net", init.as_raw_nonzero());
    let namespace = fs::File::open(&path).at(id, path)?;
    MovedDevices::new(id, devices, &namespace.into())
}

impl MovedDevices {
    /// Moves all `devices` into the namespace `container`.
    pub(crate) fn new(id: &ContainerId, devices: &[NetDevice], container: &OwnedFd) -> Result<Self> {
        let mut all = Self::default();
        for device in devices {
            let field = format!("linux.netDevices.{}", device.host_name);
            let moved = Moved::prepare(device, container)
                .map_err(|e| refuse(id, &field, format!("no such device to move: {e}")))?;
            moved
                .enter()
                .map_err(|e| refuse(id, &field, format!("cannot be moved into the container: {e}")))?;
            // From here on it goes back when anything fails.
            all.moved.push(moved);
            let moved = all.moved.last().map_or(Ok(()), Moved::set_up);
            moved.map_err(|e| refuse(id, &field, format!("cannot be set up in the container: {e}")))?;
        }
        Ok(all)
    }

    /// The container has them now.
    pub(crate) fn keep(&mut self) {
        self.moved.clear();
    }
}

impl Drop for MovedDevices {
    fn drop(&mut self) {
        for moved in self.moved.drain(..).rev() {
            if let Err(e) = moved.give_back() {
                tracing::warn!("network device {}: cannot be given back: {e}", moved.device.host_name);
            }
        }
    }
}

impl Moved {
    fn prepare(device: &NetDevice, container: &OwnedFd) -> io::Result<Self> {
        let netlink = Netlink::open()?;
        let link = netlink.link(&device.host_name)?;
        let mut addresses = netlink.addresses()?;
        addresses.retain(|a| a.header.index == link.header.index && is_kept(a));
        Ok(Self {
            device: device.clone(),
            container: container.try_clone()?,
            host: std::fs::File::open("/proc/thread-self/ns/net")?.into(),
            addresses,
            was_up: link.header.flags.contains(LinkFlags::Up),
        })
    }

    fn enter(&self) -> io::Result<()> {
        send_away(&self.device.host_name, &self.device.container_name, self.container.as_fd())
    }

    fn set_up(&self) -> io::Result<()> {
        in_namespace(&self.container, || set_up(&self.device.container_name, &self.addresses, true))
    }

    fn give_back(&self) -> io::Result<()> {
        in_namespace(&self.container, || {
            send_away(&self.device.container_name, &self.device.host_name, self.host.as_fd())
        })?;
        set_up(&self.device.host_name, &self.addresses, self.was_up)
    }
}

/// Brings the loopback device of a namespace up, as liblxc does at `create`.
pub(crate) fn bring_loopback_up(namespace: &OwnedFd) -> io::Result<()> {
    in_namespace(namespace, || set_up("lo", &[], true))
}

/// Those that somebody has set for good, and that mean the same elsewhere.
fn is_kept(address: &AddressMessage) -> bool {
    let permanent = address
        .attributes
        .iter()
        .any(|a| matches!(a, AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Permanent)));
    permanent && address.header.scope == AddressScope::Universe
}

/// Moves a device of this thread's namespace to another one, under a new name at the same moment.
fn send_away(name: &str, new_name: &str, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let netlink = Netlink::open()?;
    let mut change = LinkMessage::default();
    change.header.index = netlink.link(name)?.header.index;
    change.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    change.attributes.push(LinkAttribute::IfName(new_name.into()));
    netlink.set_link(change)
}

/// Gives a device of this thread's namespace the addresses that a move has taken from it.
fn set_up(name: &str, addresses: &[AddressMessage], up: bool) -> io::Result<()> {
    let netlink = Netlink::open()?;
    let index = netlink.link(name)?.header.index;
    for address in addresses {
        netlink.add_address(moved_address(address, index))?;
    }
    if up {
        let mut change = LinkMessage::default();
        change.header.index = index;
        change.header.flags = LinkFlags::Up;
        change.header.change_mask = LinkFlags::Up;
        netlink.set_link(change)?;
    }
    Ok(())
}

/// The same address for the device `index`, without what the kernel says about it.
fn moved_address(address: &AddressMessage, index: u32) -> AddressMessage {
    let mut new = AddressMessage::default();
    new.header = address.header.clone();
    new.header.index = index;
    let is_own = |attribute: &&AddressAttribute| {
        use AddressAttribute::{Address, Anycast, Broadcast, Local, RoutePriority};
        matches!(attribute, Address(_) | Local(_) | Broadcast(_) | Anycast(_) | RoutePriority(_))
    };
    new.attributes = address.attributes.iter().filter(is_own).cloned().collect();
    new
}

/// Does `work` in another network namespace: on a thread of its own, which ends with it.
fn in_namespace(namespace: &OwnedFd, work: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace has failed")))
    })
}
