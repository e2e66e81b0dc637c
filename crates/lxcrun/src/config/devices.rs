//! `linux.devices`, and the devices that every container has.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};
use protocol::init::{Device, DeviceKind};

use crate::error::refuse;
use crate::{ContainerId, Result};

/// Path and numbers of the devices that the specification gives to every container. Source: runtime-spec,
/// config-linux.md, "Default Devices" (console and ptmx are made with the terminal).
pub(crate) const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The default devices and the listed ones; a listed one of the same path wins. /dev/ptmx is none with `links`: the init makes
/// that a link to the one of /dev/pts, as runc does.
pub(super) fn devices(id: &ContainerId, linux: &Linux, bind: bool, links: bool) -> Result<Vec<Device>> {
    let mut all: Vec<Device> = DEFAULT
        .iter()
        .map(|(path, major, minor)| Device {
            field: "default devices".into(),
            path: PathBuf::from(path),
            kind: DeviceKind::Character(*major, *minor),
            mode: 0o666,
            uid: 0,
            gid: 0,
            listed: false,
            bind,
        })
        .collect();
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        let device = listed(id, &format!("linux.devices[{index}]"), device, bind)?;
        all.retain(|other| other.path != device.path);
        all.push(device);
    }
    all.retain(|device| !links || device.path != Path::new("/dev/ptmx"));
    Ok(all)
}

fn listed(id: &ContainerId, field: &str, device: &LinuxDevice, bind: bool) -> Result<Device> {
    let path = device.path();
    if !path.is_absolute() || path == Path::new("/") {
        return Err(refuse(id, format!("{field}.path"), format!("{:?} is no absolute path of a file", path)));
    }
    let number = |name: &str, value: i64| {
        u32::try_from(value)
            .map_err(|_| refuse(id, format!("{field}.{name}"), format!("{value} is no device number")))
    };
    let kind = match device.typ() {
        LinuxDeviceType::B => {
            DeviceKind::Block(number("major", device.major())?, number("minor", device.minor())?)
        }
        LinuxDeviceType::C | LinuxDeviceType::U => {
            DeviceKind::Character(number("major", device.major())?, number("minor", device.minor())?)
        }
        LinuxDeviceType::P => DeviceKind::Fifo,
        LinuxDeviceType::A => {
            return Err(refuse(
                id,
                format!("{field}.type"),
                "\"a\" is no type of a node: it is b, c, u or p",
            ));
        }
    };
    Ok(Device {
        field: field.into(),
        path: path.clone(),
        kind,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        listed: true,
        bind,
    })
}
