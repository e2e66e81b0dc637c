//! Mounts on their way from the plan to the init: the host's trees are opened here, where the host's paths mean
//! something, and handed over as detached clones.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use kernel::{MountAttr, MountInfo, set_mount_attributes};
use protocol::init::{Attributes, Failure, FailureKind, Mount, Propagation, Source, Tree};
use protocol::monitor::CGROUPS;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::cgroup::{Cgroup, Layout};
use crate::config::{
    ATIMES, IdMap, LOCKED, MountKind, Plan, PlannedMount, Sharing, UserNamespace, attributes_of,
};
use crate::create::FdTable;
use crate::error::{refuse, unable};
use crate::{ContainerId, Error, Result};

/// Places that the init does not see as the host has them: liblxc mounts a procfs and takes the terminals away, and `create` may
/// hide the cgroups.
const DIFFERENT_FOR_INIT: [&str; 3] = ["/proc", "/dev/pts", CGROUPS];

/// A detached clone of a tree of the host.
fn clone_tree(path: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags)
}

/// Everything of the host that the container is to see.
pub(crate) struct Sources {
    pub rootfs: HostTree,
    /// One for each bind mount, in their order.
    pub binds: Vec<HostTree>,
}

/// A tree of the host.
pub(crate) enum HostTree {
    /// Cloned.
    Cloned(OwnedFd),
    /// For the init to clone.
    Path { path: PathBuf, recursive: bool },
    /// For the init to clone from the container's root, where earlier mounts may have put it.
    /// `owners` is the planned mount whose owners are mapped then.
    InRoot { path: PathBuf, recursive: bool, owners: Option<usize> },
}

impl HostTree {
    /// Clones a tree, or leaves that to the init of a container with a user namespace: an ordinary user has no right to,
    /// but in there.
    pub(crate) fn open(plan: &Plan, path: &Path, recursive: bool) -> io::Result<Self> {
        match clone_tree(path, recursive) {
            Err(Errno::PERM) if plan.namespaces.has_user() => {
                std::fs::metadata(path)?;
                Ok(Self::Path { path: path.into(), recursive })
            }
            cloned => Ok(Self::Cloned(cloned?)),
        }
    }

    /// The source of a bind mount: cloned by the init in its turn where that finds the same there.
    fn open_bind(plan: &Plan, path: &Path, recursive: bool, mount: &PlannedMount) -> io::Result<Self> {
        // A user namespace may not go where the runtime may, and a mount namespace by path is another host.
        let same_host = plan.namespaces.is_new("mount") && !plan.namespaces.has_user();
        // The init's mounts only follow the host's.
        let follows = follows_host(plan);
        let real = std::fs::canonicalize(path)?;
        let different = |place: &Path| place.starts_with(&real) || real.starts_with(place);
        let same = !DIFFERENT_FOR_INIT.iter().any(|place| different(Path::new(place)))
            && !plan.rootfs.starts_with(&real);
        if same_host && follows && same && mount.idmap.is_none() && is_same_place(path, &real)? {
            return Ok(Self::Path { path: real, recursive });
        }
        Self::open(plan, path, recursive)
    }

    /// As the init gets it.
    pub(crate) fn for_init(self, fds: &mut FdTable) -> Tree {
        match self {
            Self::Cloned(fd) => Tree::Cloned(fds.push(fd)),
            Self::Path { path, recursive } => Tree::Path { path, recursive },
            Self::InRoot { path, recursive, owners } => Tree::InRoot { path, recursive, owners },
        }
    }
}

/// Whether a path without its links leads to the same: one through /proc/PID/root or /proc/PID/fd may lead into another mount
/// namespace.
fn is_same_place(path: &Path, real: &Path) -> io::Result<bool> {
    let place = |path: &Path| statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::MNT_ID);
    let (one, other) = (place(path)?, place(real)?);
    Ok((one.stx_mnt_id, one.stx_ino) == (other.stx_mnt_id, other.stx_ino))
}

/// Clones the root file system's tree.
pub(crate) fn open_rootfs(id: &ContainerId, plan: &Plan) -> Result<HostTree> {
    let rootfs = HostTree::open(plan, &plan.rootfs, true)
        .map_err(|e| refuse(id, "root.path", format!("{}: {e}", plan.rootfs.display())))?;
    // Never shared at this moment: pivot_root(2) refuses it. The init makes the root's own mount private, and sets
    // `linux.rootfsPropagation` at the end.
    if let HostTree::Cloned(tree) = &rootfs {
        make_slave(id, tree, "root.path")?;
    }
    Ok(rootfs)
}

/// Lets programs be executed in a copy of a root file system: it is in the state root, and /run is mounted with `noexec` and
/// `nosuid` on many hosts.
pub(crate) fn allow_programs(id: &ContainerId, rootfs: &HostTree) -> Result<()> {
    let HostTree::Cloned(tree) = rootfs else { return Ok(()) };
    let (none, denied) = (MountAttr::empty(), MountAttr::NOEXEC | MountAttr::NOSUID);
    set_mount_attributes(tree, false, none, denied, None, None)
        .map_err(|e| refuse(id, "root.path", format!("noexec and nosuid of the state root: {e}")))
}

/// Clones the sources of all bind mounts.
pub(crate) fn open_binds(id: &ContainerId, plan: &Plan) -> Result<Vec<HostTree>> {
    let mut binds = Vec::new();
    for (index, mount) in plan.mounts.iter().enumerate() {
        let MountKind::Bind { source, recursive } = &mount.kind else { continue };
        let field = format!("{}.source", mount.field);
        if let Ok(path) = source.strip_prefix(&plan.rootfs) {
            let owners = mount.idmap.is_some().then_some(index);
            binds.push(HostTree::InRoot { path: Path::new("/").join(path), recursive: *recursive, owners });
            continue;
        }
        if plan.namespaces.has_user() {
            check_locked(id, mount, source)?;
        }
        let opened = HostTree::open_bind(plan, source, *recursive, mount)
            .map_err(|e| refuse(id, &field, format!("{}: {e}", source.display())))?;
        match (&opened, &mount.idmap) {
            (HostTree::Cloned(tree), idmap) => {
                follow_host(id, plan, tree, &field)?;
                if let Some(idmap) = idmap {
                    map_owners(id, tree, idmap, &mount.field)?;
                }
            }
            (HostTree::Path { .. }, Some(_)) => {
                let reason = "an ordinary user can't map the owners of a mount";
                return Err(refuse(id, format!("{}.uidMappings", mount.field), reason));
            }
            (HostTree::Path { .. } | HostTree::InRoot { .. }, _) => {}
        }
        binds.push(opened);
    }
    Ok(binds)
}

/// In a user namespace nobody takes away from a mount what the host has set, although its tree is cloned outside.
fn check_locked(id: &ContainerId, mount: &PlannedMount, source: &Path) -> Result<()> {
    let Attributes { set, clear } = mount.attributes;
    if clear & (LOCKED | ATIMES).bits() == 0 {
        return Ok(());
    }
    let field =
        |e: io::Error| refuse(id, format!("{}.source", mount.field), format!("{}: {e}", source.display()));
    let known = statx(CWD, source, AtFlags::empty(), StatxFlags::MNT_ID).map_err(|e| field(e.into()))?;
    let table = crate::host::read("/proc/self/mountinfo").map_err(field)?;
    let source_mount = MountInfo::all(&table).find(|mount| mount.id() == Some(known.stx_mnt_id));
    // One that another mount namespace has shows nothing, and has nothing to lose here.
    let Some(now) = source_mount.and_then(MountInfo::options).map(attributes_of) else { return Ok(()) };
    let atimes = clear & ATIMES.bits() != 0 && now & ATIMES.bits() != set & ATIMES.bits();
    if now & clear & LOCKED.bits() == 0 && !atimes {
        return Ok(());
    }
    let (from, to) = (source.display(), mount.destination.display());
    let reason = "the source's flags are locked in a user namespace";
    let message = format!(
        "error mounting {:?} to rootfs at \"{to}\": {}.options: operation not permitted: {reason}",
        from.to_string(),
        mount.field
    );
    Err(Error::Init { id: id.clone(), failure: Failure { kind: FailureKind::Other, message } })
}

/// Maps the owners of a part of the root that the init has cloned.
pub(crate) fn map_part(id: &ContainerId, plan: &Plan, index: usize, tree: &OwnedFd) -> Result<()> {
    match plan.mounts.get(index).map(|mount| (mount, &mount.idmap)) {
        Some((mount, Some(idmap))) => map_owners(id, tree, idmap, &mount.field),
        _ => Err(unable(id, "mounts", format!("the init asks to map mount {index}, which is not to be"))),
    }
}

/// Shows the owners of a detached tree through the mappings of a user namespace: mount_setattr(2), "ID-mapped mounts".
fn map_owners(id: &ContainerId, tree: &OwnedFd, idmap: &IdMap, field: &str) -> Result<()> {
    let refused =
        |what: &str, reason: String| refuse(id, format!("{field}.uidMappings"), format!("{what}: {reason}"));
    let userns = match &idmap.userns {
        UserNamespace::Mapped { uid, gid } => kernel::user_namespace(uid, gid).map_err(|e| {
            refused("a user namespace with these mappings", std::io::Error::from(e).to_string())
        })?,
        UserNamespace::Path(path) => {
            std::fs::File::open(path).map_err(|e| refused(&path.display().to_string(), e.to_string()))?.into()
        }
    };
    let (mapped, none) = (MountAttr::IDMAP, MountAttr::empty());
    set_mount_attributes(tree, idmap.recursive, mapped, none, None, Some(userns.as_fd())).map_err(|e| {
        refused("this file system can't be mapped, or is mapped already", std::io::Error::from(e).to_string())
    })
}

/// Unless `linux.rootfsPropagation` says so, a container sees in a bind mount what the host mounts later, but not the other way
/// round. As in runc a mount's own option does not change that: `shared` alone is about those in the container.
fn follow_host(id: &ContainerId, plan: &Plan, tree: &OwnedFd, field: &str) -> Result<()> {
    if follows_host(plan) { make_slave(id, tree, field) } else { Ok(()) }
}

fn follows_host(plan: &Plan) -> bool {
    !matches!(plan.rootfs_propagation, Some((Propagation::Shared, _)))
}

fn make_slave(id: &ContainerId, tree: &OwnedFd, field: &str) -> Result<()> {
    let none = MountAttr::empty();
    set_mount_attributes(tree, true, none, none, Some(kernel::Propagation::Slave), None)
        .map_err(|e| refuse(id, field, format!("propagation: {e}")))
}

/// The mounts as the init gets them.
pub(crate) fn for_init(
    id: &ContainerId,
    plan: &Plan,
    binds: Vec<HostTree>,
    cgroup: &Cgroup,
    fds: &mut FdTable,
) -> Result<Vec<Mount>> {
    let mut binds = binds.into_iter();
    let mut mounts = Vec::new();
    for planned in &plan.mounts {
        match &planned.kind {
            MountKind::Bind { .. } => {
                let Some(tree) = binds.next() else {
                    return Err(refuse(id, &planned.field, "was not opened"));
                };
                mounts.push(of_planned(planned, Source::Tree { tree: tree.for_init(fds) }));
            }
            MountKind::Filesystem { fstype, source, options, copy_up } => {
                let source = Source::Filesystem {
                    fstype: fstype.clone(),
                    source: source.clone(),
                    options: options.clone(),
                    copy_up: *copy_up,
                };
                mounts.push(of_planned(planned, source));
            }
            MountKind::Remount { options } => {
                mounts.push(of_planned(planned, Source::Mounted { options: options.clone() }));
            }
            MountKind::Cgroup { readonly } => {
                mounts.extend(cgroup_mounts(id, plan, planned, *readonly, cgroup, fds)?);
            }
        }
    }
    Ok(mounts)
}

fn of_planned(planned: &PlannedMount, source: Source) -> Mount {
    let shown_source = match &planned.kind {
        MountKind::Bind { source, .. } => source.display().to_string(),
        MountKind::Filesystem { fstype, source, .. } => source.as_ref().unwrap_or(fstype).clone(),
        MountKind::Remount { .. } => String::new(),
        MountKind::Cgroup { .. } => "cgroup".into(),
    };
    Mount {
        field: planned.field.clone(),
        shown_source,
        destination: planned.destination.clone(),
        source,
        attributes: planned.attributes,
        recursive_attributes: planned.recursive_attributes,
        propagation: planned.propagation.clone(),
        readonly_at_last: planned.readonly_at_last,
        label: planned.label.clone(),
        links: Vec::new(),
    }
}

/// `type: cgroup`: the container's own part of every hierarchy. With a cgroup namespace of its own the container
/// mounts the hierarchies itself, and the namespace shows only its part; otherwise its directories are bound. But cgroup v2
/// is shown as a whole then, as by runc, so that the paths in /proc/PID/cgroup are there.
fn cgroup_mounts(
    id: &ContainerId,
    plan: &Plan,
    planned: &PlannedMount,
    readonly: bool,
    cgroup: &Cgroup,
    fds: &mut FdTable,
) -> Result<Vec<Mount>> {
    let own_namespace = matches!(plan.namespaces.get("cgroup"), Some(Sharing::New));
    let hardened = MountAttr::NOSUID | MountAttr::NODEV | MountAttr::NOEXEC;
    let bits = if readonly { hardened | MountAttr::RDONLY } else { hardened };
    let mut one =
        |mountpoint: &Path, destination: &Path, fstype: &str, option: Option<&str>| -> Result<Mount> {
            let source = if own_namespace {
                Source::Filesystem {
                    fstype: fstype.into(),
                    source: Some("cgroup".into()),
                    options: option.map(str::to_owned).into_iter().collect(),
                    copy_up: false,
                }
            } else {
                let tree = open_hierarchy(id, plan, &planned.field, mountpoint, cgroup, fstype == "cgroup2")?;
                Source::Tree { tree: tree.for_init(fds) }
            };
            let mut mount = of_planned(planned, source);
            mount.destination = destination.into();
            mount.attributes = Attributes { set: bits.bits(), clear: 0 };
            Ok(mount)
        };
    if cgroup.layout() == Layout::Unified {
        let unified = cgroup.hierarchies().unified().map(|h| h.mountpoint.clone()).unwrap_or_default();
        return Ok(vec![one(&unified, &planned.destination, "cgroup2", None)?]);
    }
    let tmpfs = Source::Filesystem {
        fstype: "tmpfs".into(),
        source: Some("tmpfs".into()),
        options: vec!["mode=755".into()],
        copy_up: false,
    };
    let mut top = of_planned(planned, tmpfs);
    top.attributes = Attributes { set: bits.bits(), clear: 0 };
    top.readonly_at_last = readonly;
    let mut below = Vec::new();
    for hierarchy in cgroup.hierarchies().legacy() {
        let Some(name) = hierarchy.mountpoint.file_name().and_then(|n| n.to_str()) else { continue };
        let option = hierarchy.controllers.join(",");
        below.push(one(&hierarchy.mountpoint, &planned.destination.join(name), "cgroup", Some(&option))?);
        // cpu,cpuacct is also called cpu, and cpuacct.
        let others = hierarchy.controllers.iter().filter(|c| *c != name && !c.contains('='));
        top.links.extend(others.map(|c| (c.clone(), name.to_owned())));
    }
    Ok(std::iter::once(top).chain(below).collect())
}

/// What a container without a cgroup namespace of its own sees of a hierarchy: its part of version 1, and all of version 2. One
/// without a cgroup has only the host's to see, with what is mounted below.
fn open_hierarchy(
    id: &ContainerId,
    plan: &Plan,
    field: &str,
    mountpoint: &Path,
    cgroup: &Cgroup,
    unified: bool,
) -> Result<HostTree> {
    let whole = cgroup.is_none() || unified;
    let path = if whole { mountpoint.to_owned() } else { mountpoint.join(cgroup.path()) };
    let tree = HostTree::open(plan, &path, cgroup.is_none())
        .map_err(|e| refuse(id, field, format!("{}: {e}", path.display())))?;
    if let HostTree::Cloned(tree) = &tree {
        // What the container mounts there is never the host's.
        make_slave(id, tree, field)?;
    }
    Ok(tree)
}
