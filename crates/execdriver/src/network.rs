//! A container's network.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use lxcrun::ContainerId;
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use serde::{Deserialize, Serialize};

use crate::namespace::Joined;

/// Where a container's network comes from.
///
/// ```
/// use execdriver::{Interface, Network};
///
/// let veth = Interface::veth("br0").address("10.0.3.7/24".parse()?).gateway("10.0.3.1".parse()?);
/// let network = Network::Interfaces(vec![veth]);
/// let json = r#"{"interfaces":[{"type":"veth","link":"br0","addresses":["10.0.3.7/24"],"gateway":"10.0.3.1"}]}"#;
/// assert_eq!(serde_json::from_str::<Network>(json)?, network);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A namespace of its own with nothing but a loopback interface.
    #[default]
    None,
    /// That of the driver's process.
    Host,
    /// That of another container of this driver, which must be running.
    Container(ContainerId),
    /// The network namespace at this path.
    Path(PathBuf),
    /// A namespace of its own with interfaces that LXC makes, and that go away with the container.
    Interfaces(Vec<Interface>),
}

impl Network {
    pub(crate) fn joined(&self) -> Option<Joined<'_>> {
        match self {
            Self::Container(id) => Some(Joined::Container(id)),
            Self::Path(path) => Some(Joined::Path(path)),
            Self::None | Self::Host | Self::Interfaces(_) => None,
        }
    }
}

/// A kind of interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InterfaceKind {
    /// A pair of interfaces, one of them on the host, at the bridge `link`.
    Veth,
    /// A second address of the host's interface `link`.
    Macvlan,
    /// A second address of the host's interface `link`, with its MAC.
    Ipvlan,
    /// A VLAN on the host's interface `link`.
    Vlan,
    /// The host's interface `link` itself.
    Phys,
}

impl InterfaceKind {
    fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Vlan => "vlan",
            Self::Phys => "phys",
        }
    }
}

/// An interface that LXC makes for a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: InterfaceKind,
    /// The interface of the host that it belongs to; a bridge for [`InterfaceKind::Veth`], which may have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Its name in the container: `eth0`, `eth1`, … by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The name of a veth pair's other end on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_name: Option<String>,
    /// Its addresses, of either family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    /// Where packets for everybody else go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// The same for version 6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<Ipv6Addr>,
    /// Its hardware address; each `x` becomes a digit by chance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The largest packet, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Mode of a macvlan (`private`, `vepa`, `bridge`, `passthru`), ipvlan (`l2`, `l3`, `l3s`) or veth (`bridge`,
    /// `router`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Number of a VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan_id: Option<u16>,
}

impl Interface {
    fn of(kind: InterfaceKind, link: impl Into<String>) -> Self {
        Self {
            kind,
            link: Some(link.into()),
            name: None,
            host_name: None,
            addresses: Vec::new(),
            gateway: None,
            gateway6: None,
            mac: None,
            mtu: None,
            mode: None,
            vlan_id: None,
        }
    }

    /// A pair of interfaces with one end at `bridge`.
    #[must_use]
    pub fn veth(bridge: impl Into<String>) -> Self {
        Self::of(InterfaceKind::Veth, bridge)
    }

    /// A pair of interfaces with one end on the host, at no bridge: somebody routes to it, or takes it by its
    /// [`host_name`](Self::host_name).
    ///
    /// ```
    /// use execdriver::Interface;
    ///
    /// let veth = Interface::veth_pair().host_name("web0").mode("router").address("10.0.3.7/24".parse()?);
    /// assert_eq!((veth.link, veth.mode.as_deref()), (None, Some("router")));
    /// # Ok::<(), String>(())
    /// ```
    #[must_use]
    pub fn veth_pair() -> Self {
        Self { link: None, ..Self::of(InterfaceKind::Veth, "") }
    }

    /// A second address of `link` that sees its siblings.
    #[must_use]
    pub fn macvlan(link: impl Into<String>) -> Self {
        Self { mode: Some("bridge".into()), ..Self::of(InterfaceKind::Macvlan, link) }
    }

    /// VLAN `id` on `link`.
    #[must_use]
    pub fn vlan(link: impl Into<String>, id: u16) -> Self {
        Self { vlan_id: Some(id), ..Self::of(InterfaceKind::Vlan, link) }
    }

    /// `link` itself: it is the container's until that ends.
    #[must_use]
    pub fn phys(link: impl Into<String>) -> Self {
        Self::of(InterfaceKind::Phys, link)
    }

    /// A second address of `link` with its MAC.
    #[must_use]
    pub fn ipvlan(link: impl Into<String>) -> Self {
        Self { mode: Some("l2".into()), ..Self::of(InterfaceKind::Ipvlan, link) }
    }

    /// The same with one more address.
    #[must_use]
    pub fn address(mut self, address: Address) -> Self {
        self.addresses.push(address);
        self
    }

    /// The same with a gateway.
    #[must_use]
    pub fn gateway(mut self, gateway: IpAddr) -> Self {
        match gateway {
            IpAddr::V4(gateway) => self.gateway = Some(gateway),
            IpAddr::V6(gateway) => self.gateway6 = Some(gateway),
        }
        self
    }

    /// The same with a name in the container.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The same with a name of a veth pair's other end on the host; by default LXC finds one.
    #[must_use]
    pub fn host_name(mut self, name: impl Into<String>) -> Self {
        self.host_name = Some(name.into());
        self
    }

    /// The same with another mode: what there is depends on the kind, see the field [`mode`](Self#structfield.mode).
    #[must_use]
    pub fn mode(mut self, mode: impl Into<String>) -> Self {
        self.mode = Some(mode.into());
        self
    }

    /// The same with a hardware address.
    #[must_use]
    pub fn mac(mut self, mac: impl Into<String>) -> Self {
        self.mac = Some(mac.into());
        self
    }

    /// The same with a largest packet, in bytes.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Why it can't be had, if it can't: the member and the reason.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let kind = self.kind.name();
        if self.link.is_none() && self.kind != InterfaceKind::Veth {
            return Err(("link", format!("{kind} needs a link, an interface of the host")));
        }
        if self.vlan_id.is_some() != (self.kind == InterfaceKind::Vlan) {
            return Err(("vlan_id", format!("a vlan_id is for vlan, which needs it; this is {kind}")));
        }
        if self.host_name.is_some() && self.kind != InterfaceKind::Veth {
            return Err(("host_name", format!("a host_name is for veth; this is {kind}")));
        }
        for (field, name) in [("link", &self.link), ("name", &self.name), ("host_name", &self.host_name)] {
            let Some(name) = name else { continue };
            let fits = (1..16).contains(&name.len()) && !matches!(name.as_str(), "." | "..");
            if !fits
                || name
                    .bytes()
                    .any(|b| b"/:%".contains(&b) || b.is_ascii_whitespace() || b.is_ascii_control())
            {
                return Err((field, format!("{name:?} is no name of an interface")));
            }
        }
        match &self.mac {
            Some(mac) if !is_mac(mac) => Err(("mac", format!("{mac:?} is not like 02:00:00:00:00:01"))),
            _ if self.mtu == Some(0) => Err(("mtu", "0 bytes are no packet".into())),
            _ => Ok(()),
        }
    }

    /// The keys for LXC, as interface number `index`.
    fn keys(&self, index: usize) -> Vec<(String, String)> {
        let kind = self.kind.name();
        let mut keys = Vec::new();
        let mut set = |key: &str, value: Option<String>| {
            keys.extend(value.map(|value| (format!("lxc.net.{index}.{key}"), value)));
        };
        set("type", Some(kind.into()));
        set("flags", Some("up".into()));
        set("link", self.link.clone());
        set("name", Some(self.name.clone().unwrap_or_else(|| format!("eth{index}"))));
        set("hwaddr", self.mac.clone());
        set("mtu", self.mtu.map(|mtu| mtu.to_string()));
        set(&format!("{kind}.mode"), self.mode.clone());
        set("veth.pair", self.host_name.clone());
        set("vlan.id", self.vlan_id.map(|id| id.to_string()));
        for address in &self.addresses {
            set(if address.ip.is_ipv4() { "ipv4.address" } else { "ipv6.address" }, Some(address.for_lxc()));
        }
        set("ipv4.gateway", self.gateway.map(|gateway| gateway.to_string()));
        set("ipv6.gateway", self.gateway6.map(|gateway| gateway.to_string()));
        keys
    }
}

/// Looks for the interfaces of the host that those of a container belong to. The error is field and reason.
///
/// The host's are those of the calling thread's network namespace, which LXC's monitor has from it.
pub(crate) fn find_links(network: &Network) -> Result<(), (String, String)> {
    let Network::Interfaces(all) = network else { return Ok(()) };
    for (index, interface) in all.iter().enumerate() {
        let Some(link) = &interface.link else { continue };
        let flags = SocketFlags::CLOEXEC;
        let found = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)
            .and_then(|socket| name_to_index(&socket, link));
        found.map_err(|e| {
            let reason = match e {
                Errno::NODEV => format!("this host has no interface {link:?}"),
                other => format!("cannot look for {link:?}: {other}"),
            };
            (format!("network.interfaces[{index}].link"), reason)
        })?;
    }
    Ok(())
}

/// The keys for LXC of all interfaces.
pub(crate) fn keys(network: &Network) -> Vec<(String, String)> {
    let Network::Interfaces(all) = network else { return Vec::new() };
    all.iter().enumerate().flat_map(|(index, interface)| interface.keys(index)).collect()
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let is_digit = |c: char| c.is_ascii_hexdigit() || matches!(c, 'x' | 'X');
    parts.len() == 6 && parts.iter().all(|part| part.len() == 2 && part.chars().all(is_digit))
}

/// An address with the length of its network's part.
///
/// ```
/// use execdriver::Address;
///
/// let address: Address = "10.0.3.7/24".parse()?;
/// assert_eq!((address.ip.to_string(), address.prefix), ("10.0.3.7".to_owned(), 24));
/// assert!("10.0.3.7/33".parse::<Address>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// How many of its bits are the network's.
    pub prefix: u8,
}

impl Address {
    /// With the broadcast address after it, which liblxc 5.0.2 gets wrong; none in a network of one or two: RFC 3021.
    fn for_lxc(self) -> String {
        match self.ip {
            IpAddr::V4(ip) if self.prefix < 31 => {
                let broadcast = Ipv4Addr::from_bits(ip.to_bits() | (u32::MAX >> self.prefix));
                format!("{self} {broadcast}")
            }
            _ => self.to_string(),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (ip, prefix) = text.split_once('/')?;
            let (ip, prefix): (IpAddr, u8) = (ip.parse().ok()?, prefix.parse().ok()?);
            (prefix <= if ip.is_ipv4() { 32 } else { 128 }).then_some(Self { ip, prefix })
        };
        parse().ok_or_else(|| format!("address {text:?} is not like 10.0.3.7/24"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_become_keys() {
        let veth = Interface::veth("br0").address("10.1.0.2/24".parse().unwrap()).host_name("web0");
        let veth = veth.gateway("10.1.0.1".parse().unwrap()).mac("02:00:00:00:00:01").mtu(1400).name("lan");
        let macvlan = Interface::macvlan("uplink").address("fd00::2/64".parse().unwrap());
        let all = Network::Interfaces(vec![
            veth,
            macvlan.gateway("fd00::1".parse().unwrap()),
            Interface::vlan("eth9", 7),
        ]);
        let text: Vec<String> =
            keys(&all).into_iter().map(|(key, value)| format!("{key} = {value}")).collect();
        insta::assert_snapshot!(text.join("\n"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let reason = |interface: Interface| {
            let (member, reason) = interface.check().unwrap_err();
            format!("{member}: {reason}")
        };
        assert!(reason(Interface::veth("br0").name("a%d")).contains("name"));
        assert!(reason(Interface::veth("br0").mtu(0)).contains("mtu"));
        assert!(reason(Interface::veth("")).contains("no name of an interface"));
        assert!(reason(Interface::veth("br 0")).contains("link"));
        assert!(reason(Interface::veth("br0").mac("02:00")).contains("02:00"));
        assert!(reason(Interface { link: None, ..Interface::phys("x") }).contains("needs a link"));
        assert!(reason(Interface { vlan_id: Some(1), ..Interface::veth("x") }).contains("vlan_id"));
    }
}
