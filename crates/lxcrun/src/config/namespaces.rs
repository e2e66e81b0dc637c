//! `linux.namespaces`.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Spec};
use protocol::monitor::Item;

use crate::error::refuse;
use crate::{ContainerId, Result};

/// The container's namespaces: what is not named is the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Namespaces(Vec<(&'static str, Sharing)>);

/// Where one namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// A new one.
    New,
    /// The one at this path.
    Path(PathBuf),
}

/// A user namespace, for an id-mapped mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UserNamespace {
    /// One that has these mappings, as lines of /proc/PID/uid_map and gid_map.
    Mapped { uid: String, gid: String },
    /// The one at this path.
    Path(PathBuf),
}

impl UserNamespace {
    pub(super) fn mapped(uid: &[LinuxIdMapping], gid: &[LinuxIdMapping]) -> Self {
        let lines = |mappings: &[LinuxIdMapping]| {
            let line = |m: &LinuxIdMapping| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size());
            mappings.iter().map(line).collect()
        };
        Self::Mapped { uid: lines(uid), gid: lines(gid) }
    }

    /// The container's own; `None` when it has the host's.
    pub(super) fn of_container(spec: &Spec) -> Option<Self> {
        let linux = spec.linux().as_ref()?;
        let user = linux.namespaces().iter().flatten().find(|n| n.typ() == LinuxNamespaceType::User)?;
        match user.path().as_ref().filter(|p| !p.as_os_str().is_empty()) {
            Some(path) => Some(Self::Path(path.clone())),
            None => Some(Self::mapped(linux.uid_mappings().as_deref()?, linux.gid_mappings().as_deref()?)),
        }
    }
}

/// The specification's name and liblxc's (which is the kernel's, in /proc/PID/ns).
const NAMES: [(LinuxNamespaceType, &str, &str); 8] = [
    (LinuxNamespaceType::User, "user", "user"),
    (LinuxNamespaceType::Mount, "mount", "mnt"),
    (LinuxNamespaceType::Pid, "pid", "pid"),
    (LinuxNamespaceType::Uts, "uts", "uts"),
    (LinuxNamespaceType::Ipc, "ipc", "ipc"),
    (LinuxNamespaceType::Network, "network", "net"),
    (LinuxNamespaceType::Cgroup, "cgroup", "cgroup"),
    (LinuxNamespaceType::Time, "time", "time"),
];

/// The specification's names.
pub(crate) fn namespace_names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().map(|(_, name, _)| name)
}

impl Namespaces {
    pub(crate) fn new(id: &ContainerId, linux: &Linux) -> Result<Self> {
        let mut all = Vec::new();
        for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
            let field = format!("linux.namespaces[{index}]");
            let (_, name, kernel) = NAMES
                .into_iter()
                .find(|(kind, ..)| *kind == namespace.typ())
                .ok_or_else(|| refuse(id, &field, "is of an unknown type"))?;
            if all.iter().any(|(other, _)| *other == name) {
                return Err(refuse(id, field, format!("a second {name} namespace")));
            }
            let sharing = match namespace.path() {
                None => Sharing::New,
                Some(path) if path.as_os_str().is_empty() => Sharing::New,
                Some(path) => {
                    check_path(id, &format!("{field}.path"), path, kernel)?;
                    Sharing::Path(path.clone())
                }
            };
            all.push((name, sharing));
        }
        let mut namespaces = Self(all);
        // The init has one of its own to mount in, and goes on from there.
        if namespaces.get("mount").is_none() {
            namespaces.0.push(("mount", Sharing::Path("/proc/self/ns/mnt".into())));
        }
        if namespaces.has_user() && !namespaces.is_private("mount") {
            let reason =
                "a user namespace needs a mount namespace beside it: it has no rights over that of the host";
            return Err(refuse(id, "linux.namespaces", reason));
        }
        Ok(namespaces)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Sharing> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, sharing)| sharing)
    }

    pub(crate) fn is_new(&self, name: &str) -> bool {
        self.get(name) == Some(&Sharing::New)
    }

    /// Whether it is not the host's: new, or that of somebody else who was named.
    pub(crate) fn is_private(&self, name: &str) -> bool {
        match self.get(name) {
            None => false,
            Some(Sharing::New) => true,
            Some(Sharing::Path(path)) => !is_own(name, path),
        }
    }

    /// Whether root of the container is not root of the host.
    pub(crate) fn has_user(&self) -> bool {
        self.is_private("user")
    }

    /// Whether the init makes the IPC namespace. liblxc makes it together with the user namespace, as the host's root, and so
    /// /dev/mqueue would belong to nobody in there.
    pub(crate) fn ipc_is_for_init(&self) -> bool {
        self.is_new("ipc") && self.has_user()
    }

    /// The mappings of the container's user namespace, each with its field, in LXC's form. liblxc also wants to know
    /// those of a namespace that it joins, or its process stays nobody there.
    pub(crate) fn id_maps(&self, id: &ContainerId, linux: &Linux) -> Result<Vec<(&'static str, String)>> {
        let (uid, gid) = ("linux.uidMappings", "linux.gidMappings");
        let wanted = [(uid, 'u', linux.uid_mappings()), (gid, 'g', linux.gid_mappings())];
        match self.get("user") {
            None => match wanted.iter().find(|(.., list)| list.as_ref().is_some_and(|l| !l.is_empty())) {
                Some((field, ..)) => Err(refuse(id, *field, "needs a user namespace in linux.namespaces")),
                None => Ok(Vec::new()),
            },
            Some(Sharing::New) => {
                let mut all = Vec::new();
                for (field, kind, list) in wanted {
                    let Some(list) = list.as_deref().filter(|l| !l.is_empty()) else {
                        return Err(refuse(id, field, "is empty, and there is a new user namespace"));
                    };
                    let line = |m: &LinuxIdMapping| {
                        format!("{kind} {} {} {}", m.container_id(), m.host_id(), m.size())
                    };
                    all.extend(list.iter().map(|m| (field, line(m))));
                }
                Ok(all)
            }
            Some(Sharing::Path(path)) if is_own("user", path) => Ok(Vec::new()),
            Some(Sharing::Path(path)) => {
                let refused = |e: std::io::Error| {
                    refuse(id, "linux.namespaces", format!("{}: its mappings: {e}", path.display()))
                };
                let file = std::fs::File::open(path).map_err(refused)?;
                let (uids, gids) =
                    kernel::user_namespace_mappings(file.as_fd()).map_err(|e| refused(e.into()))?;
                let lines = |field, kind: char, map: &str| {
                    let line = |l: &str| {
                        (field, format!("{kind} {}", l.split_whitespace().collect::<Vec<_>>().join(" ")))
                    };
                    map.lines().map(line).collect::<Vec<_>>()
                };
                Ok([lines(uid, 'u', &uids), lines(gid, 'g', &gids)].concat())
            }
        }
    }

    /// A namespace for the init to join: of cgroups, because liblxc (5.0.2) takes the setting and does nothing, of
    /// mounts, because its own preparations need the host's, and of time, because the kernel wants a process that shares
    /// its memory with nobody (EUSERS), and liblxc's does.
    pub(crate) fn to_join(&self, name: &str) -> Option<&Path> {
        match self.get(name) {
            Some(Sharing::Path(path)) => Some(path),
            _ => None,
        }
    }

    /// The offsets of a new time namespace, in the kernel's form (time_namespaces(7)); the init makes that one. Raw settings
    /// come with one, as in LXC.
    pub(crate) fn time_offsets(
        &self,
        id: &ContainerId,
        linux: &Linux,
        raw: &BTreeMap<&'static str, (i64, u32, String)>,
    ) -> Result<Option<String>> {
        let field = "linux.timeOffsets";
        let wanted = linux.time_offsets().clone().unwrap_or_default();
        if !self.is_new("time") && !wanted.is_empty() {
            return Err(refuse(id, field, "needs a new time namespace in linux.namespaces"));
        }
        if let (Some(Sharing::Path(_)), Some((.., field))) = (self.get("time"), raw.values().next()) {
            let reason = "lxc.time.offset needs a new time namespace, and linux.namespaces has one to join";
            return Err(refuse(id, field, reason));
        }
        if !self.is_new("time") && raw.is_empty() {
            return Ok(None);
        }
        let mut offsets = BTreeMap::new();
        for (clock, offset) in &wanted {
            if !matches!(clock.as_str(), "monotonic" | "boottime") {
                return Err(refuse(id, field, format!("{clock:?} is not monotonic or boottime")));
            }
            let nanoseconds = offset.nanosecs().unwrap_or(0);
            if nanoseconds > 999_999_999 {
                let reason = format!("{clock}: {nanoseconds} nanoseconds are more than a second");
                return Err(refuse(id, field, reason));
            }
            offsets.insert(clock.as_str(), (offset.secs().unwrap_or(0), nanoseconds));
        }
        offsets
            .extend(raw.iter().map(|(clock, (seconds, nanoseconds, _))| (*clock, (*seconds, *nanoseconds))));
        let line = |(clock, (seconds, nanoseconds))| format!("{clock} {seconds} {nanoseconds}\n");
        Ok(Some(offsets.into_iter().map(line).collect()))
    }

    /// liblxc's names of the new ones, and name and path of those that it joins, but for those that are not its own.
    pub(crate) fn for_lxc(&self, others: &[&str]) -> (Vec<&'static str>, Vec<(&'static str, &Path)>) {
        let kernel = |name: &str| NAMES.iter().find(|(_, n, _)| *n == name).map_or("", |(.., k)| *k);
        let ours = self.0.iter().filter(|(n, _)| !others.contains(n));
        let new = ours.clone().filter(|(n, s)| match *n {
            "time" => false,
            // The init goes on from there to one that it joins.
            "mount" => true,
            _ => *s == Sharing::New,
        });
        let new = new.map(|(n, _)| kernel(n)).collect();
        let joined = ours
            .filter_map(|(n, s)| match s {
                Sharing::Path(path) if !matches!(*n, "cgroup" | "mount" | "time") => {
                    Some((kernel(n), path.as_path()))
                }
                _ => None,
            })
            .collect();
        (new, joined)
    }

    /// A name for the host itself is not the container's to set.
    pub(crate) fn check_host_names(&self, id: &ContainerId, spec: &Spec) -> Result<()> {
        for (field, value) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
            let Some(value) = value.as_deref().filter(|v| !v.is_empty()) else { continue };
            if !self.is_private("uts") {
                return Err(refuse(id, field, "needs a uts namespace of the container's own"));
            }
            check_name(id, field, value)?;
        }
        Ok(())
    }

    /// The name of a new UTS namespace, and its field: that of the raw settings, else the specification's.
    pub(crate) fn uts_name(
        &self,
        id: &ContainerId,
        spec: &Spec,
        raw: Option<&Item>,
    ) -> Result<Option<(String, String)>> {
        let Some(Item { key, value, field }) = raw else {
            let name = spec.hostname().clone().filter(|name| !name.is_empty() && self.is_new("uts"));
            return Ok(name.map(|name| ("hostname".into(), name)));
        };
        // liblxc would name whatever host it is in.
        if !self.is_new("uts") {
            return Err(refuse(id, field, format!("{key} needs a new uts namespace in linux.namespaces")));
        }
        check_name(id, &format!("{field}: {key}"), value)?;
        Ok(Some((field.clone(), value.clone())))
    }
}

/// What the kernel takes for a name, and a line of a configuration can hold.
fn check_name(id: &ContainerId, field: &str, value: &str) -> Result<()> {
    if value.contains(|c: char| c.is_control()) {
        return Err(refuse(id, field, format!("{value:?} has a control character")));
    }
    if value.len() > 64 {
        return Err(refuse(id, field, "is longer than 64 bytes"));
    }
    Ok(())
}

/// Whether `path` is the namespace that lxcrun itself is in.
fn is_own(name: &str, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let kernel = NAMES.iter().find(|(_, n, _)| *n == name).map_or("", |(.., k)| *k);
    match (std::fs::metadata(path), std::fs::metadata(format!("/proc/self/ns/{kernel}"))) {
        (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
        _ => false,
    }
}

/// Fails unless `path` is a namespace of the right kind: nsfs files show their type as a link's target.
fn check_path(id: &ContainerId, field: &str, path: &Path, kernel: &str) -> Result<()> {
    let wrong = |reason: String| Err(refuse(id, field, format!("{}: {reason}", path.display())));
    if !path.is_absolute() {
        return wrong("is not absolute".into());
    }
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) => return wrong(e.to_string()),
    };
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    let shown = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    let shown = shown.to_string_lossy();
    // A namespace that is bind-mounted to a file shows that file; the file system's type tells it apart.
    let is_nsfs = rustix::fs::fstatfs(&file).is_ok_and(|s| s.f_type == libc::NSFS_MAGIC);
    let kind = shown.split_once(":[").map(|(kind, _)| kind.to_owned());
    match kind {
        _ if !is_nsfs => wrong("is not a namespace".into()),
        Some(kind) if kind != kernel => wrong(format!("is a {kind} namespace, not a {kernel} one")),
        _ => Ok(()),
    }
}
