//! `linux.netDevices`.

use oci_spec::runtime::Linux;

use super::Namespaces;
use crate::error::refuse;
use crate::{ContainerId, Result};

/// A network device of the host and its name in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetDevice {
    pub host_name: String,
    pub container_name: String,
}

/// All devices, in the order of their names.
pub(super) fn net_devices(
    id: &ContainerId,
    linux: &Linux,
    namespaces: &Namespaces,
) -> Result<Vec<NetDevice>> {
    let mut all = Vec::new();
    for (host_name, device) in linux.net_devices().iter().flatten() {
        let field = format!("linux.netDevices.{host_name}");
        let container_name = device.name().clone().filter(|n| !n.is_empty()).unwrap_or(host_name.clone());
        for name in [host_name, &container_name] {
            check_name(name).map_err(|reason| refuse(id, &field, format!("{name:?} {reason}")))?;
        }
        if !namespaces.is_private("network") {
            // The words are runc's.
            return Err(refuse(id, field, "unable to move network devices without a NET namespace"));
        }
        all.push(NetDevice { host_name: host_name.clone(), container_name });
    }
    all.sort_by(|a, b| a.host_name.cmp(&b.host_name));
    Ok(all)
}

/// The kernel's rules: `dev_valid_name`.
fn check_name(name: &str) -> std::result::Result<(), &'static str> {
    match name {
        "" | "." | ".." => Err("is no name of a device"),
        _ if name.len() > 15 => Err("is longer than 15 bytes"),
        _ if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) => {
            Err("has a character that names of devices don't have")
        }
        _ => Ok(()),
    }
}
