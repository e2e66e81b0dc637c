//! `mounts`, and raw `lxc.mount.entry` after them: the options of each, told apart by who takes them.

use std::path::{Component, Path, PathBuf};

use kernel::MountAttr;
use oci_spec::runtime::{Linux, Mount, Spec};
use protocol::init::{Attributes, Propagation};

use super::labels::{self, Labelling};
use super::namespaces::UserNamespace;
use crate::cgroup::Layout;
use crate::error::refuse;
use crate::{ContainerId, Host, Result};

/// One mount, planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedMount {
    /// For instance `mounts[3]`.
    pub field: String,
    pub destination: PathBuf,
    pub kind: MountKind,
    pub attributes: Attributes,
    pub recursive_attributes: Attributes,
    pub propagation: Vec<(Propagation, bool)>,
    /// `ro` of a mount that others are still to be put into.
    pub readonly_at_last: bool,
    /// The label that the root of a new file system gets as an attribute.
    pub label: Option<String>,
    /// Owners shown through the mappings of a user namespace.
    pub idmap: Option<IdMap>,
}

impl PlannedMount {
    /// If it is one of cgroups, whatever its options say.
    pub(crate) fn make_cgroup_writable(&mut self) {
        if let MountKind::Cgroup { readonly } = &mut self.kind {
            *readonly = false;
        }
    }
}

/// An id-mapped mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMap {
    pub userns: UserNamespace,
    /// For the whole tree (`ridmap`).
    pub recursive: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountKind {
    /// A tree of the host.
    Bind { source: PathBuf, recursive: bool },
    /// A new file system.
    Filesystem { fstype: String, source: Option<String>, options: Vec<String>, copy_up: bool },
    /// A change of what is mounted there already.
    Remount { options: Vec<String> },
    /// The container's cgroups, below the destination or at it.
    Cgroup { readonly: bool },
}

/// The options of one mount, sorted.
#[derive(Debug, Default)]
struct Options {
    /// `bind`, or true for `rbind`.
    bind: Option<bool>,
    /// Those of the mount itself.
    attributes: Attributes,
    /// `rro` and the like: also those of all mounts below.
    recursive: Attributes,
    propagation: Vec<(Propagation, bool)>,
    remount: bool,
    /// `idmap`, or `ridmap` for the whole tree.
    idmap: Option<bool>,
    /// Of the superblock: `sync` and the like. A bind mount has none of its own.
    superblock: Vec<String>,
    /// Fill a tmpfs with what it covers.
    copy_up: bool,
    /// For the type of file system, which alone knows them.
    data: Vec<String>,
}

/// Options that only say what is so anyway: file systems that count changes (`iversion`) always do since Linux 6.1, and what the
/// kernel might say of a mount (`silent`) it says to nobody here.
const DEFAULTS: [&str; 9] =
    ["defaults", "async", "nodirsync", "nolazytime", "nomand", "noiversion", "iversion", "loud", "silent"];

/// Attributes by option, with what each adds and takes away.
fn attribute(option: &str) -> Option<(MountAttr, MountAttr)> {
    let none = MountAttr::empty();
    Some(match option {
        "ro" => (MountAttr::RDONLY, none),
        "rw" => (none, MountAttr::RDONLY),
        "nosuid" => (MountAttr::NOSUID, none),
        "suid" => (none, MountAttr::NOSUID),
        "nodev" => (MountAttr::NODEV, none),
        "dev" => (none, MountAttr::NODEV),
        "noexec" => (MountAttr::NOEXEC, none),
        "exec" => (none, MountAttr::NOEXEC),
        "nodiratime" => (MountAttr::NODIRATIME, none),
        "diratime" => (none, MountAttr::NODIRATIME),
        "nosymfollow" => (MountAttr::NOSYMFOLLOW, none),
        "symfollow" => (none, MountAttr::NOSYMFOLLOW),
        "noatime" => (MountAttr::NOATIME, MountAttr::ATIME),
        "strictatime" => (MountAttr::STRICTATIME, MountAttr::ATIME),
        // Relative updates are the absence of the other two.
        "relatime" | "atime" => (none, MountAttr::ATIME),
        "norelatime" | "nostrictatime" => (none, none),
        _ => return None,
    })
}

fn propagation(option: &str) -> Option<(Propagation, bool)> {
    let (kind, recursive) = match option.strip_prefix('r') {
        Some(kind) => (kind, true),
        None => (option, false),
    };
    let kind = match kind {
        "private" => Propagation::Private,
        "shared" => Propagation::Shared,
        "slave" => Propagation::Slave,
        "unbindable" => Propagation::Unbindable,
        _ => return None,
    };
    Some((kind, recursive))
}

fn merge(attributes: &mut Attributes, (set, clear): (MountAttr, MountAttr)) {
    // The last word counts: what is taken away now was perhaps added before.
    attributes.set = attributes.set & !clear.bits() | set.bits();
    attributes.clear = attributes.clear & !set.bits() | clear.bits();
}

impl Options {
    /// `atime` after `noatime` and the like: nothing is said about access times then.
    fn withdraw_atime(&mut self, chosen: MountAttr) {
        let Attributes { set, clear } = self.attributes;
        if clear & MountAttr::ATIME.bits() != 0 && set & MountAttr::ATIME.bits() == chosen.bits() {
            self.attributes =
                Attributes { set: set & !chosen.bits(), clear: clear & !MountAttr::ATIME.bits() };
        }
    }

    fn parse(options: &[String]) -> Self {
        let mut parsed = Self::default();
        for option in options {
            let recursive = option.strip_prefix('r').and_then(attribute);
            match option.as_str() {
                "bind" => parsed.bind = Some(parsed.bind.unwrap_or(false)),
                "rbind" => parsed.bind = Some(true),
                "tmpcopyup" => parsed.copy_up = true,
                "sync" | "dirsync" | "mand" | "lazytime" => parsed.superblock.push(option.clone()),
                "idmap" => parsed.idmap = Some(parsed.idmap.unwrap_or(false)),
                "ridmap" => parsed.idmap = Some(true),
                "remount" => parsed.remount = true,
                "atime" => parsed.withdraw_atime(MountAttr::NOATIME),
                "nostrictatime" => parsed.withdraw_atime(MountAttr::STRICTATIME),
                "norelatime" => parsed.withdraw_atime(MountAttr::empty()),
                name if DEFAULTS.contains(&name) => {}
                name => match (attribute(name), propagation(name), recursive) {
                    (Some(change), ..) => merge(&mut parsed.attributes, change),
                    (None, Some(change), _) => parsed.propagation.push(change),
                    (None, None, Some(change)) => merge(&mut parsed.recursive, change),
                    (None, None, None) if name.is_empty() => {}
                    (None, None, None) => parsed.data.push(option.clone()),
                },
            }
        }
        parsed
    }
}

/// Whether an option means something to every file system.
pub(crate) fn is_mount_option(option: &str) -> bool {
    Options::parse(&[option.to_owned()]).data.is_empty()
}

/// What a specification and its host say about every mount.
struct Shared<'s> {
    id: &'s ContainerId,
    bundle: &'s Path,
    /// The root as the host sees it.
    rootfs: PathBuf,
    spec: &'s Spec,
    host: &'s Host,
    /// `linux.mountLabel`, on a host that has labels.
    label: Option<String>,
}

/// All mounts in their order.
pub(super) fn mounts(
    id: &ContainerId,
    bundle: &Path,
    spec: &Spec,
    host: &Host,
    raw: &[Mount],
) -> Result<Vec<PlannedMount>> {
    let shared = Shared {
        id,
        bundle,
        rootfs: spec.root().as_ref().map(|root| bundle.join(root.path())).unwrap_or_default(),
        spec,
        host,
        label: labels::mount_label(id, host.security, spec.linux().as_ref())?,
    };
    let listed = spec.mounts().as_deref().unwrap_or_default();
    let listed = listed.iter().enumerate().map(|(index, m)| shared.plan(&format!("mounts[{index}]"), m));
    listed.chain(raw.iter().map(|m| shared.plan("lxc.mount.entry", m))).collect()
}

impl Shared<'_> {
    fn plan(&self, field: &str, mount: &Mount) -> Result<PlannedMount> {
        let mut options = Options::parse(mount.options().as_deref().unwrap_or_default());
        let destination = self.destination(mount);
        let fstype = mount.typ().as_deref().unwrap_or_default();
        let is_bind = options.bind.is_some() || fstype == "bind";
        check_destination(self.id, field, &destination, fstype, is_bind)?;
        let idmap = idmap(self.id, field, mount, options.idmap, self.spec)?;
        if idmap.is_some() && !is_bind {
            return Err(refuse(self.id, format!("{field}.uidMappings"), "id-mapped mounts are bind mounts"));
        }
        let mut attributes = options.attributes;
        let (recursive_attributes, propagation) =
            (options.recursive, std::mem::take(&mut options.propagation));
        let readonly = attributes.set & MountAttr::RDONLY.bits() != 0;
        let (mut label, mut readonly_at_last) = (None, false);
        let kind = if options.remount {
            MountKind::Remount { options: [options.superblock, options.data].concat() }
        } else if is_bind {
            clear_unnamed_flags(&mut attributes, self.spec);
            self.bind(field, mount, &options)?
        } else if fstype == "cgroup" {
            self.cgroups(field, readonly)?
        } else {
            label = self
                .label
                .as_ref()
                .filter(|_| matches!(Labelling::of(fstype), Labelling::Attribute))
                .cloned();
            readonly_at_last = fstype == "tmpfs" && readonly;
            self.filesystem(field, mount, options)?
        };
        Ok(PlannedMount {
            field: field.into(),
            destination,
            kind,
            attributes,
            recursive_attributes,
            propagation,
            readonly_at_last,
            label,
            idmap,
        })
    }

    /// Where it goes, below the container's root. A relative path is relative to that (runtime-spec, config.md, "Mounts"), and
    /// some callers name the place as the host sees it.
    fn destination(&self, mount: &Mount) -> PathBuf {
        let inside = match mount.destination().strip_prefix(&self.rootfs) {
            Ok(inside) if self.rootfs != Path::new("/") => inside,
            _ => mount.destination(),
        };
        Path::new("/").join(inside)
    }

    fn bind(&self, field: &str, mount: &Mount, options: &Options) -> Result<MountKind> {
        let given = options.data.iter().filter(|option| !is_of_every_mount(option));
        if let Some(option) = given.chain(&options.superblock).next() {
            let reason = format!("{option:?} means nothing for a bind mount");
            return Err(refuse(self.id, format!("{field}.options"), reason));
        }
        let Some(source) = mount.source().as_ref().filter(|s| !s.as_os_str().is_empty()) else {
            return Err(refuse(self.id, format!("{field}.source"), "is missing"));
        };
        Ok(MountKind::Bind { source: self.bundle.join(source), recursive: options.bind.unwrap_or(false) })
    }

    fn cgroups(&self, field: &str, readonly: bool) -> Result<MountKind> {
        if self.host.cgroup_layout() == Layout::None {
            return Err(refuse(self.id, field, "this host has no cgroup file system mounted"));
        }
        Ok(MountKind::Cgroup { readonly })
    }

    fn filesystem(&self, field: &str, mount: &Mount, options: Options) -> Result<MountKind> {
        let fstype = mount.typ().as_deref().unwrap_or_default();
        if fstype.is_empty() {
            return Err(refuse(self.id, format!("{field}.type"), "is missing, and no option says bind"));
        }
        let source = mount.source().as_ref().map(|s| s.to_string_lossy().into_owned());
        let Options { attributes, mut superblock, mut data, copy_up, .. } = options;
        if let (Some(label), Labelling::Option) = (&self.label, Labelling::of(fstype)) {
            data.push(format!("context={label}"));
        }
        check_lengths(self.id, field, &data)?;
        // As by mount(2): what lies on a disk is not even to be repaired.
        if attributes.set & MountAttr::RDONLY.bits() != 0 && !VIRTUAL.contains(&fstype) {
            superblock.push("ro".into());
        }
        Ok(MountKind::Filesystem {
            fstype: fstype.into(),
            source: source.filter(|s| !s.is_empty()),
            options: [superblock, data].concat(),
            copy_up: copy_up && fstype == "tmpfs",
        })
    }
}

fn check_lengths(id: &ContainerId, field: &str, options: &[String]) -> Result<()> {
    for option in options {
        if let Some((name, value)) = option.split_once('=')
            && value.len() > 255
        {
            let reason = format!("{name} is longer than the 255 bytes that fsconfig(2) takes");
            return Err(refuse(id, format!("{field}.options"), reason));
        }
    }
    Ok(())
}

/// File systems that lie on nothing which could be written to, and may be shared with the host as a whole.
const VIRTUAL: [&str; 7] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"];

/// Options of tmpfs that generators of specifications (runtime-tools') give all mounts alike. What is bound has a mode and a
/// size already, and no other runtime minds.
fn is_of_every_mount(option: &str) -> bool {
    matches!(option.split_once('='), Some(("mode" | "size", _)))
}

/// What the kernel locks on a mount that comes into a user namespace, besides access times: mount_namespaces(7).
pub(crate) const LOCKED: MountAttr =
    MountAttr::RDONLY.union(MountAttr::NOSUID).union(MountAttr::NODEV).union(MountAttr::NOEXEC);

/// How access times are kept.
pub(crate) const ATIMES: MountAttr = MountAttr::ATIME.union(MountAttr::NODIRATIME);

/// A bind mount that names one flag has no others: those of its source are cleared, as in runc and by mount(2). One that
/// names none keeps them, and in a user namespace those that the kernel would lock stay. Access times are kept as the
/// source says unless one of their flags is named that isn't the absence of another; then they are relative by default.
fn clear_unnamed_flags(attributes: &mut Attributes, spec: &Spec) {
    if *attributes == Attributes::default() {
        return;
    }
    let mut flags = MountAttr::NOSYMFOLLOW;
    if UserNamespace::of_container(spec).is_none() {
        flags |= LOCKED;
    }
    attributes.clear |= flags.bits() & !attributes.set;
    let chosen = attributes.clear & MountAttr::ATIME.bits() | attributes.set & ATIMES.bits();
    if chosen == 0 {
        attributes.clear &= !ATIMES.bits();
    } else {
        attributes.clear |= MountAttr::ATIME.bits() | MountAttr::NODIRATIME.bits() & !attributes.set;
    }
}

/// The attributes of a mount by its options in mountinfo.
pub(crate) fn attributes_of(options: &str) -> u64 {
    let mut attributes = Attributes::default();
    options.split(',').filter_map(attribute).for_each(|change| merge(&mut attributes, change));
    // Strict ones have no word.
    if attributes.clear & MountAttr::ATIME.bits() == 0 {
        attributes.set |= MountAttr::STRICTATIME.bits();
    }
    attributes.set
}

/// The mappings of an id-mapped mount: its own, or with the option alone those of the container. Source: runtime-spec,
/// config.md, "Mounts".
fn idmap(
    id: &ContainerId,
    field: &str,
    mount: &Mount,
    option: Option<bool>,
    spec: &Spec,
) -> Result<Option<IdMap>> {
    let lists = [("uidMappings", mount.uid_mappings()), ("gidMappings", mount.gid_mappings())];
    let [uid, gid] = lists.map(|(_, list)| list.as_deref().filter(|l| !l.is_empty()));
    let userns = match (uid, gid, option) {
        (None, None, None) => return Ok(None),
        (Some(uid), Some(gid), _) => UserNamespace::mapped(uid, gid),
        (None, None, Some(_)) => match UserNamespace::of_container(spec) {
            Some(userns) => userns,
            None => {
                let reason = "idmap needs mappings, or a user namespace of the container's own";
                return Err(refuse(id, format!("{field}.options"), reason));
            }
        },
        _ => {
            let reason = "uidMappings and gidMappings need each other";
            return Err(refuse(id, format!("{field}.uidMappings"), reason));
        }
    };
    Ok(Some(IdMap { userns, recursive: option.unwrap_or(false) }))
}

/// Nothing but a procfs may be put over /proc, and only known files below it may be covered: a program that
/// reads /proc must be able to believe it. Source: runc's checkProcMount. So nothing may be put over the root, either: it would
/// show a /proc of its own, and what is made in the root would be made in it.
fn check_destination(
    id: &ContainerId,
    field: &str,
    destination: &Path,
    fstype: &str,
    bind: bool,
) -> Result<()> {
    const FILES: [&str; 12] = [
        "cpuinfo",
        "diskstats",
        "meminfo",
        "stat",
        "swaps",
        "uptime",
        "loadavg",
        "slabinfo",
        "net/dev",
        "sys/kernel/ns_last_pid",
        "sys/crypto/fips_enabled",
        "sys/net/ipv4/ip_unprivileged_port_start",
    ];
    let plain = normalized(destination);
    if plain == Path::new("/") {
        let reason =
            format!("{} is on the top of rootfs, where it would cover all of it", destination.display());
        return Err(refuse(id, format!("{field}.destination"), reason));
    }
    let Ok(below) = plain.strip_prefix("/proc") else { return Ok(()) };
    let allowed = if below.as_os_str().is_empty() {
        bind || fstype == "proc"
    } else {
        fstype == "proc" && !bind || FILES.iter().any(|file| below == Path::new(file))
    };
    if allowed {
        return Ok(());
    }
    let reason = format!("{} cannot be mounted over: it is inside /proc", destination.display());
    Err(refuse(id, format!("{field}.destination"), reason))
}

/// The path with `.` and `..` taken out, by its text alone.
fn normalized(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::from("/"), |mut plain, component| {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::Normal(name) => plain.push(name),
            _ => {}
        }
        plain
    })
}

/// Whether it is mounted at `place`.
pub(super) fn is_at(mount: &PlannedMount, place: &str) -> bool {
    normalized(&mount.destination) == Path::new(place)
}

/// Whether /dev is the container's own and not a bind mount of somebody else's.
pub(super) fn dev_is_ours(mounts: &[PlannedMount]) -> bool {
    !mounts.iter().any(|m| is_at(m, "/dev") && matches!(m.kind, MountKind::Bind { .. }))
}

/// `linux.rootfsPropagation`
pub(super) fn rootfs_propagation(id: &ContainerId, linux: &Linux) -> Result<Option<(Propagation, bool)>> {
    match linux.rootfs_propagation().as_deref() {
        None | Some("") => Ok(None),
        Some(text) => match propagation(text) {
            Some(found) => Ok(Some(found)),
            None => Err(refuse(id, "linux.rootfsPropagation", format!("{text:?} is no propagation type"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Options {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        Options::parse(&options)
    }

    #[test]
    fn the_last_of_two_opposites_counts() {
        assert_eq!(parse(&["ro", "rw"]).attributes, Attributes { set: 0, clear: MountAttr::RDONLY.bits() });
        let ro = Attributes { set: MountAttr::RDONLY.bits(), clear: 0 };
        assert_eq!(parse(&["rw", "ro"]).attributes, ro);
    }

    #[test]
    fn recursive_options_are_not_taken_for_others() {
        let parsed = parse(&["rbind", "rro", "rprivate", "relatime", "rnosuid"]);
        assert_eq!(parsed.bind, Some(true));
        assert_eq!(parsed.recursive.set, (MountAttr::RDONLY | MountAttr::NOSUID).bits());
        assert_eq!(parsed.propagation, [(Propagation::Private, true)]);
        assert_eq!(parsed.attributes, Attributes { set: 0, clear: MountAttr::ATIME.bits() });
        assert!(parsed.data.is_empty());
    }

    #[test]
    fn what_nobody_knows_is_for_the_file_system() {
        assert_eq!(parse(&["mode=755", "size=64k"]).data, ["mode=755", "size=64k"]);
    }
}
