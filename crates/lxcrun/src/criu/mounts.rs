//! Mounts that come from the host: CRIU keeps a name for each, and is told what the name stands for at a restore.
//!
//! The names are runc's (the specification's destination, `/dev/null` for a masked path), so that each runtime restores
//! what the other has checkpointed.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use kernel::unescaped;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, makedev, openat2, statx};
use rustix::io::Errno;
use rustix::process::Pid;

use super::rpc::ExternalMount;
use crate::cgroup::{Cgroup, Layout};
use crate::config::{MountKind, Plan, PlannedMount};
use crate::error::{Context, refuse};
use crate::{ContainerId, Result};

/// The name of what covers masked files.
const NULL: &str = "/dev/null";

/// A line of mountinfo: proc_pid_mountinfo(5).
struct Mount {
    id: u64,
    parent: u64,
    point: PathBuf,
}

/// The mounts of a process, as it sees them; those of this one for `self`. Not by `MountInfo`, which wants text: a container calls
/// its directories what it likes.
fn mounts_of(process: &str) -> std::io::Result<Vec<Mount>> {
    let text = fs::read(format!("/proc/{process}/mountinfo"))?;
    let parse = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
        let (id, parent) = (number()?, number()?);
        Some(Mount { id, parent, point: unescaped(fields.nth(2)?) })
    };
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// One that the plan has at its destination, and the host's path for it where there is one.
struct Planned<'p> {
    destination: PathBuf,
    source: Source<'p>,
}

enum Source<'p> {
    /// A tree of the host; whether with what is mounted in it.
    Tree { path: PathBuf, recursive: bool },
    /// A node of the host, where none could be made.
    Node(&'p Path),
    /// Covered by the null device.
    Mask,
    /// Made in the container's namespaces: CRIU's to save.
    Own,
}

/// Everything that may be a mount of its own in the container, whatever it is.
fn planned<'p>(plan: &'p Plan, cgroup: &Cgroup) -> Vec<Planned<'p>> {
    let mut all = vec![Planned {
        destination: "/".into(),
        source: Source::Tree { path: plan.rootfs.clone(), recursive: true },
    }];
    for mount in &plan.mounts {
        let source = match &mount.kind {
            MountKind::Bind { source, recursive } => {
                Source::Tree { path: source.clone(), recursive: *recursive }
            }
            MountKind::Filesystem { .. } => Source::Own,
            MountKind::Remount { .. } => continue,
            MountKind::Cgroup { .. } => {
                all.extend(cgroups(plan, &mount.destination, cgroup));
                continue;
            }
        };
        all.push(Planned { destination: mount.destination.clone(), source });
    }
    let nodes =
        plan.devices.iter().map(|d| Planned { destination: d.path.clone(), source: Source::Node(&d.path) });
    let masks = plan.masked_paths.iter().map(|p| Planned { destination: p.clone(), source: Source::Mask });
    all.into_iter().chain(nodes).chain(masks).collect()
}

/// A cgroup mount: on version 1 one for each hierarchy, below a tmpfs. Only version 2 in a cgroup namespace of the
/// container is one that CRIU can make again.
fn cgroups<'p>(plan: &Plan, destination: &Path, cgroup: &Cgroup) -> Vec<Planned<'p>> {
    let own = plan.namespaces.is_new("cgroup");
    let tree = |path| Source::Tree { path, recursive: false };
    let hierarchies = cgroup.hierarchies();
    if cgroup.layout() == Layout::Unified {
        let path = hierarchies.unified().map(|h| h.mountpoint.join(cgroup.path())).unwrap_or_default();
        let source = if own { Source::Own } else { tree(path) };
        return vec![Planned { destination: destination.into(), source }];
    }
    let each = hierarchies.legacy().filter_map(|h| {
        let destination = destination.join(h.mountpoint.file_name()?);
        Some(Planned { destination, source: tree(h.mountpoint.join(cgroup.path())) })
    });
    std::iter::once(Planned { destination: destination.into(), source: Source::Own }).chain(each).collect()
}

/// For a dump: the mount points of process `init` that are the host's, and their names.
pub(crate) fn of_container(
    id: &ContainerId,
    plan: &Plan,
    cgroup: &Cgroup,
    init: Pid,
) -> Result<Vec<ExternalMount>> {
    let init = init.as_raw_nonzero().to_string();
    let mounts = mounts_of(&init).at(id, "cannot read the container's mounts")?;
    let root = format!("/proc/{init}/root");
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let root = root.at(id, "cannot open the container's root")?;
    let mut known = BTreeMap::new();
    let mut trees = Vec::new();
    for planned in planned(plan, cgroup) {
        let place = match resolve(&root, &planned.destination) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            place => place.at(id, format!("the mount at {}", planned.destination.display()))?,
        };
        let stat = statx(&place, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID | StatxFlags::BASIC_STATS)
            .at(id, format!("the mount at {}", planned.destination.display()))?;
        let Some(mount) = mounts.iter().find(|m| m.id == stat.stx_mnt_id) else { continue };
        let shown = shown_path(&place);
        let is_mount = shown == mount.point;
        match planned.source {
            Source::Own if is_mount => drop(known.insert(mount.id, None)),
            Source::Tree { recursive, .. } if is_mount => {
                let name = (planned.destination != Path::new("/")).then(|| planned.destination.clone());
                known.insert(mount.id, name);
                if recursive {
                    trees.push((mount.id, mount.point.clone(), planned.destination));
                }
            }
            Source::Node(node) if is_mount => drop(known.insert(mount.id, Some(node.into()))),
            // A directory has an empty file system over it, which is the container's own.
            Source::Mask if is_mount && is_null(&stat) => drop(known.insert(mount.id, Some(NULL.into()))),
            _ => {}
        }
    }
    // What was mounted in a tree of the host came along with it.
    while let Some((tree, point, destination)) = trees.pop() {
        for below in mounts.iter().filter(|m| m.parent == tree) {
            let Ok(rest) = below.point.strip_prefix(&point) else { continue };
            if rest.as_os_str().is_empty()
                || known.contains_key(&below.id)
                || !is_from_host(plan, &destination, rest)
            {
                continue;
            }
            known.insert(below.id, Some(destination.join(rest)));
            trees.push((below.id, point.clone(), destination.clone()));
        }
    }
    let named = mounts.iter().filter_map(|m| Some((m, known.get(&m.id)?.as_ref()?)));
    named.map(|(mount, name)| external(id, &mount.point, name)).collect()
}

/// Whether the host has a mount at this place of a tree, too: else somebody in the container has made it.
fn is_from_host(plan: &Plan, destination: &Path, rest: &Path) -> bool {
    let Some(source) = tree_source(plan, destination) else { return false };
    let at = fs::canonicalize(source).unwrap_or_default().join(rest);
    mounts_of("self").is_ok_and(|all| all.iter().any(|m| m.point == at))
}

fn tree_source<'p>(plan: &'p Plan, destination: &Path) -> Option<&'p Path> {
    if destination == Path::new("/") {
        return Some(&plan.rootfs);
    }
    plan.mounts.iter().rev().find_map(|m| match &m.kind {
        MountKind::Bind { source, .. } if m.destination == destination => Some(source.as_path()),
        _ => None,
    })
}

/// For a restore: every name that the images may have, and the host's path for it.
pub(crate) fn on_host(id: &ContainerId, plan: &Plan, cgroup: &Cgroup) -> Result<Vec<ExternalMount>> {
    let host = mounts_of("self").at(id, "cannot read this host's mounts")?;
    let mut names: BTreeMap<PathBuf, PathBuf> = BTreeMap::from([(NULL.into(), NULL.into())]);
    for planned in planned(plan, cgroup) {
        match planned.source {
            Source::Tree { path, recursive } => {
                // CRIU binds what it finds there: links must lead to where they led for `create`.
                let path = fs::canonicalize(&path)
                    .map_err(|e| refuse(id, "mounts", format!("{}: {e}", path.display())))?;
                let below = host.iter().filter(|_| recursive).filter_map(|m| {
                    let rest =
                        m.point.strip_prefix(&path).ok().filter(|rest| !rest.as_os_str().is_empty())?;
                    Some((planned.destination.join(rest), m.point.clone()))
                });
                names.extend(below);
                names.insert(planned.destination, path);
            }
            Source::Node(node) => drop(names.insert(node.into(), node.into())),
            Source::Mask | Source::Own => {}
        }
    }
    names.remove(Path::new("/"));
    names.iter().map(|(name, path)| external(id, name, path)).collect()
}

/// Makes the mount points that have got lost, as when only the container's own files were carried here: in the root, and in
/// the host's trees that are mounted. What lies in another file system is in that one's images.
pub(crate) fn make_places(id: &ContainerId, plan: &Plan, root: &OwnedFd) -> Result<()> {
    for mount in &plan.mounts {
        let below = |other: &&PlannedMount| {
            other.destination != mount.destination && mount.destination.starts_with(&other.destination)
        };
        let covering = plan.mounts.iter().filter(below).max_by_key(|m| m.destination.components().count());
        let opened;
        let (top, path) = match covering.map(|other| (&other.destination, &other.kind)) {
            None => (root, mount.destination.as_path()),
            Some((destination, MountKind::Bind { source, .. })) => {
                opened = openat2(
                    CWD,
                    source,
                    OFlags::PATH | OFlags::CLOEXEC,
                    Mode::empty(),
                    ResolveFlags::empty(),
                )
                .at(id, format!("{}: cannot open {}", mount.field, source.display()))?;
                (&opened, mount.destination.strip_prefix(destination).unwrap_or(Path::new("")))
            }
            Some(_) => continue,
        };
        let directory = match &mount.kind {
            MountKind::Bind { source, .. } => source.is_dir(),
            _ => true,
        };
        make_place(top, path, directory)
            .at(id, format!("{}: cannot make {}", mount.field, mount.destination.display()))?;
    }
    Ok(())
}

fn make_place(root: &OwnedFd, path: &Path, directory: bool) -> rustix::io::Result<()> {
    let mut parent = PathBuf::from("/");
    let mut names = path
        .components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name),
            Component::ParentDir => Some(std::ffi::OsStr::new("..")),
            _ => None,
        })
        .peekable();
    while let Some(name) = names.next() {
        let here = parent.join(name);
        match resolve(root, &here) {
            Err(Errno::NOENT) => {
                let parent = resolve(root, &parent)?;
                if names.peek().is_some() || directory {
                    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                } else {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o755))?;
                }
            }
            found => drop(found?),
        }
        parent = here;
    }
    Ok(())
}

/// Opens a path in the container's root, where its links lead to.
fn resolve(root: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
}

/// The path of an open file, as it is called in its own mount namespace.
fn shown_path(place: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd;
    fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd())).unwrap_or_default()
}

fn is_null(stat: &rustix::fs::Statx) -> bool {
    FileType::from_raw_mode(stat.stx_mode.into()) == FileType::CharacterDevice
        && makedev(stat.stx_rdev_major, stat.stx_rdev_minor) == makedev(1, 3)
}

fn external(id: &ContainerId, key: &Path, value: &Path) -> Result<ExternalMount> {
    let text = |path: &Path| match std::str::from_utf8(path.as_os_str().as_bytes()) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(refuse(id, "mounts", format!("{}: criu takes no such name", path.display()))),
    };
    Ok(ExternalMount { key: text(key)?, value: text(value)? })
}
