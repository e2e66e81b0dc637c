//! systemd as the keeper of a container's cgroup (`--systemd-cgroup`): it makes a scope, a transient unit, that the
//! container's cgroup lies in. Nothing here runs, or is connected to, without that option.

mod dbus;
mod properties;
mod variant;

use std::io;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use oci_spec::runtime::Spec;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use zvariant::{OwnedObjectPath, OwnedValue, Value};

use crate::error::refuse;
use crate::{ContainerId, Error, Result, rootless};
use dbus::{Connection, Object};
use properties::{Property, of_annotations, property};
pub(crate) use properties::{of_devices, of_files, rounded_quota};

const FIELD: &str = "linux.cgroupsPath";
const MANAGER: Object<'_> = Object {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

/// A container's scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unit {
    /// For instance `docker-0123.scope`.
    name: String,
    /// For instance `system.slice`.
    slice: String,
    /// Its cgroup, below the root of the hierarchy.
    cgroup: String,
    /// Whether it is the user's systemd that has it.
    user: bool,
}

impl Unit {
    /// The unit that `linux.cgroupsPath` names: `slice:prefix:name`.
    pub(crate) fn new(id: &ContainerId, wanted: Option<&Path>) -> Result<Self> {
        if !Path::new("/run/systemd/system").is_dir() {
            return Err(refuse(
                id,
                FIELD,
                "systemd not running on this host, cannot use systemd cgroups manager",
            ));
        }
        let user = is_of_user();
        let (slice, name) = names(id.as_str(), wanted, user).map_err(|reason| refuse(id, FIELD, reason))?;
        let expanded = expand(&slice).map_err(|reason| refuse(id, FIELD, reason))?;
        let mut unit = Self { name, slice, cgroup: String::new(), user };
        // The user's systemd has a part of the hierarchy.
        let mut path = if user { unit.manager_cgroup(id)? } else { String::new() };
        for part in expanded.iter().chain([&unit.name]) {
            path += "/";
            path += part;
        }
        unit.cgroup = path.trim_start_matches('/').to_owned();
        Ok(unit)
    }

    /// Its cgroup, below the root of the hierarchy.
    pub(crate) fn cgroup(&self) -> &str {
        &self.cgroup
    }

    fn manager_cgroup(&self, id: &ContainerId) -> Result<String> {
        let get = || -> Result<String, dbus::Error> {
            let value = self.connect()?.manager_property("ControlGroup")?;
            Ok(String::try_from(value)?)
        };
        get().map_err(|e| self.failed(id, "tell its cgroup for", &e))
    }

    /// Has systemd make the scope, with process `pid` in it, and waits until that is done.
    pub(crate) fn start(&self, id: &ContainerId, spec: &Spec, pid: u32) -> Result<()> {
        let mut all = vec![
            property("Description", format!("lxcrun container {id}")),
            property("Slice", self.slice.clone()),
            property("Delegate", true),
            property("PIDs", vec![pid]),
            property("MemoryAccounting", true),
            property("CPUAccounting", true),
            property("IOAccounting", true),
            property("TasksAccounting", true),
            property("DefaultDependencies", false),
        ];
        all.extend(
            of_annotations(spec.annotations().iter().flatten())
                .map_err(|(field, reason)| refuse(id, field, reason))?,
        );
        self.start_with(&all).map_err(|e| self.failed(id, "start", &e))
    }

    fn start_with(&self, properties: &[Property]) -> Result<(), dbus::Error> {
        let mut systemd = self.connect()?;
        let arguments = (&self.name, "replace", properties, Vec::<(String, Vec<Property>)>::new());
        let job = match systemd.0.call(MANAGER, "StartTransientUnit", &arguments) {
            // One of an earlier container that failed: systemd keeps those to be looked at.
            Err(e) if e.is("UnitExists") => {
                systemd.reset_failed(&self.name)?;
                systemd.0.call(MANAGER, "StartTransientUnit", &arguments)?
            }
            started => started?,
        };
        match systemd.wait(&job)?.as_str() {
            "done" => Ok(()),
            result => {
                let _ = systemd.reset_failed(&self.name);
                Err(io::Error::other(format!("its job ended with {result:?}")).into())
            }
        }
    }

    /// Has systemd move a process of our user into the unit's cgroup, or into one below.
    pub(crate) fn take_in(&self, id: &ContainerId, pid: Pid, below: &Path) -> Result<()> {
        let pids = [pid.as_raw_nonzero().get().unsigned_abs()];
        let below = format!("/{}", below.display());
        let arguments = (&self.name, below, pids.as_slice());
        let take = || self.connect()?.0.call(MANAGER, "AttachProcessesToUnit", &arguments).map(drop);
        take().map_err(|e| self.failed(id, &format!("take process {} into", pids[0]), &e))
    }

    /// Sets properties of the running unit, until it ends.
    pub(crate) fn set(&self, id: &ContainerId, all: &[(String, Value<'static>)]) -> Result<()> {
        if all.is_empty() {
            return Ok(());
        }
        let set = || self.connect()?.0.call(MANAGER, "SetUnitProperties", &(&self.name, true, all)).map(drop);
        set().map_err(|e| self.failed(id, "change", &e))
    }

    /// Has systemd take the scope away, and waits until that is done. One that is not there is no failure.
    pub(crate) fn stop(&self, id: &ContainerId) -> Result<()> {
        let stop = || -> Result<(), dbus::Error> {
            let mut systemd = self.connect()?;
            match systemd.0.call(MANAGER, "StopUnit", &(&self.name, "replace")) {
                Err(e) if e.is("NoSuchUnit") => return Ok(()),
                job => drop(systemd.wait(&job?)?),
            }
            systemd.reset_failed(&self.name)
        };
        stop().map_err(|e| self.failed(id, "stop", &e))
    }

    fn failed(&self, id: &ContainerId, what: &str, e: &dbus::Error) -> Error {
        Error::Systemd { id: id.clone(), reason: format!("it does not {what} {}: {e}", self.name) }
    }

    fn connect(&self) -> Result<Systemd, dbus::Error> {
        let mut connection = if self.user { connect_to_user()? } else { connect_to_host()? };
        connection.call(MANAGER, "Subscribe", &())?;
        Ok(Systemd(connection))
    }
}

/// Whether it is the systemd of a user that can make units for this process. A root who has not all users is that of a
/// system of its own, as in an unprivileged LXC container, or an ordinary user in their own user namespace: then what
/// they have at run time is not root's.
fn is_of_user() -> bool {
    let of_others = || std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|dir| dir != "/run/user/0");
    rootless::is_ordinary_user() && (!rustix::process::geteuid().is_root() || of_others())
}

/// A conversation with systemd.
struct Systemd(Connection);

impl Systemd {
    /// Waits for the end of the job that a call has begun, and returns its result.
    fn wait(&mut self, begun: &dbus::Message) -> Result<String, dbus::Error> {
        let (job,): (OwnedObjectPath,) = begun.arguments()?;
        // However much it says of others' jobs meanwhile.
        let end = Instant::now() + dbus::PATIENCE;
        loop {
            let signal = self.0.signal_until(end)?;
            if signal.is_signal("JobRemoved") {
                let (_, removed, _, result): (u32, OwnedObjectPath, String, String) = signal.arguments()?;
                if removed == job {
                    return Ok(result);
                }
            }
        }
    }

    /// Lets systemd forget a unit that failed.
    fn reset_failed(&mut self, name: &str) -> Result<(), dbus::Error> {
        match self.0.call(MANAGER, "ResetFailedUnit", &(name,)) {
            Err(e) if e.is("NoSuchUnit") => Ok(()),
            reset => reset.map(drop),
        }
    }

    fn manager_property(&mut self, name: &str) -> Result<OwnedValue, dbus::Error> {
        let properties = Object { interface: "org.freedesktop.DBus.Properties", ..MANAGER };
        let (value,) = self.0.call(properties, "Get", &(MANAGER.interface, name))?.arguments()?;
        Ok(value)
    }
}

const JOBS: &str = "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

fn connect_to_bus(address: &SocketAddr) -> Result<Connection, dbus::Error> {
    let mut connection = Connection::to_bus(address)?;
    connection.listen(JOBS)?;
    Ok(connection)
}

/// The system's bus; root may also speak to systemd directly, where there is none.
fn connect_to_host() -> Result<Connection, dbus::Error> {
    let given = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_default();
    let bus =
        dbus::parse_address(&given).or_else(|| dbus::socket_at(Path::new("/run/dbus/system_bus_socket")));
    connect(bus, Path::new("/run/systemd/private"))
}

/// The user's bus, or their systemd directly.
fn connect_to_user() -> Result<Connection, dbus::Error> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).unwrap_or_default();
    let given = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
    let bus = dbus::parse_address(&given).or_else(|| dbus::socket_at(&runtime.join("bus")));
    connect(bus, &runtime.join("systemd/private")).map_err(|e| {
        let hint = "the user's systemd cannot be reached by DBUS_SESSION_BUS_ADDRESS or XDG_RUNTIME_DIR";
        io::Error::other(format!("{hint}: {e}")).into()
    })
}

fn connect(bus: Option<SocketAddr>, private: &Path) -> Result<Connection, dbus::Error> {
    let failed = match bus.map(|address| connect_to_bus(&address)) {
        Some(Ok(connection)) => return Ok(connection),
        Some(Err(e)) => e,
        None => io::Error::from(io::ErrorKind::NotFound).into(),
    };
    match dbus::socket_at(private).map(|address| Connection::direct(&address)) {
        Some(Ok(connection)) => Ok(connection),
        _ => Err(failed),
    }
}

/// Slice and unit of a path. Without one as runc has it, under our own name.
fn names(id: &str, wanted: Option<&Path>, user: bool) -> Result<(String, String), String> {
    let wanted = wanted.filter(|p| !p.as_os_str().is_empty());
    let default = format!(":lxcrun:{id}");
    let text = wanted.map_or(Some(default.as_str()), Path::to_str).ok_or("is no UTF-8")?;
    let parts: Vec<&str> = text.split(':').collect();
    let [slice, prefix, name] = parts[..] else {
        return Err(format!(
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {text:?} instead"
        ));
    };
    let slice = match slice {
        "" if user => "user.slice",
        "" => "system.slice",
        // As runc's users may write the root.
        "-" => "-.slice",
        slice => slice,
    };
    if name.is_empty() || name.ends_with(".slice") {
        return Err(format!("{text:?} names no scope"));
    }
    let unit = format!("{prefix}-{name}.scope");
    let known = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if unit.len() > 255 || !unit.chars().all(known) {
        return Err(format!("{unit:?} is no name of a unit"));
    }
    Ok((slice.into(), unit))
}

/// The slices that a slice lies in, from the root on, and itself: `a-b.slice` is in `a.slice`.
fn expand(slice: &str) -> Result<Vec<String>, String> {
    let invalid = || format!("invalid slice name: {slice}");
    let stem =
        slice.strip_suffix(".slice").filter(|s| !s.is_empty() && !s.contains('/')).ok_or_else(invalid)?;
    if stem == "-" {
        return Ok(Vec::new());
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    if stem.split('-').any(str::is_empty) {
        return Err(invalid());
    }
    Ok(ends.map(|end| format!("{}.slice", &stem[..end])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_lies_in_those_that_its_name_begins_with() {
        assert_eq!(expand("a-b-c.slice").unwrap(), ["a.slice", "a-b.slice", "a-b-c.slice"]);
        assert_eq!(expand("system.slice").unwrap(), ["system.slice"]);
        assert!(expand("-.slice").unwrap().is_empty());
        for wrong in ["", ".slice", "a", "-a.slice", "a-.slice", "a--b.slice", "a/b.slice"] {
            assert!(expand(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_path_names_slice_and_scope() {
        let of = |path: &str, user| names("x", Some(Path::new(path)), user);
        let pair = |slice: &str, unit: &str| Ok((slice.to_owned(), unit.to_owned()));
        assert_eq!(of("machine.slice:libpod:abc", false), pair("machine.slice", "libpod-abc.scope"));
        assert_eq!(of(":docker:abc", false), pair("system.slice", "docker-abc.scope"));
        assert_eq!(of(":docker:abc", true), pair("user.slice", "docker-abc.scope"));
        assert_eq!(of("-:p:n", false), pair("-.slice", "p-n.scope"));
        assert_eq!(of("", false), pair("system.slice", "lxcrun-x.scope"));
        assert_eq!(names("x", None, true), pair("user.slice", "lxcrun-x.scope"));
        for wrong in ["/a/b", "a:b", "a:b:c:d", "a:b:", "a.slice:b:c.slice", "a.slice:b:c/d", "a.slice:b:c d"]
        {
            assert!(of(wrong, false).is_err(), "{wrong}");
        }
    }
}
