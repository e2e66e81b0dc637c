//! Mounts: each one is made detached, dressed with its attributes, and attached to a place in the root that
//! was found without following anything out of it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path};

use kernel::{MountAttr, set_mount_attributes};
use protocol::Channel;
use protocol::init::{Attributes, FromInit, Mount, Propagation, Source, Tree};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, StatxAttributes, StatxFlags, XattrFlags, fstat, openat, setxattr,
    statx, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, move_mount,
    open_tree,
};

use crate::failure::{Result, fail, refuse};
use crate::may_proceed;
use crate::root::{Missing, Root};

/// Attaches one mount below `root`, and returns it. `control` is the runtime, which maps owners.
pub fn attach(root: &Root, mount: &Mount, fds: &[OwnedFd], control: &Channel) -> Result<OwnedFd> {
    let detached = match &mount.source {
        Source::Mounted { options } => return change(root, mount, options).map_err(|e| fail(name(mount), e)),
        Source::Tree { tree } => open_tree_of(root, mount, tree, fds, control)?,
        Source::Filesystem { fstype, source, options, .. } => {
            let options = with_mode(root, mount, fstype, options);
            new_filesystem(fstype, source.as_deref(), &options).map_err(|e| fail(name(mount), e))?
        }
    };
    let target = find_place(root, mount, &detached)?;
    check_below_root(root, mount, &target)?;
    check_proc(root, mount, &detached, &target)?;
    fill(mount, &detached, &target)?;
    dress(mount, &detached)?;
    move_to(&detached, &target).map_err(|e| {
        // Engines explain those words.
        let mixed = e == Errno::INVAL
            && matches!((is_directory(&detached), is_directory(&target)), (Ok(one), Ok(other)) if one != other);
        let e = if mixed { Errno::NOTDIR } else { e };
        fail(format!("{}: cannot be attached", name(mount)), e)
    })?;
    for (propagation, recursive) in &mount.propagation {
        propagate(&detached, *propagation, *recursive)
            .map_err(|e| fail(format!("{}: propagation", name(mount)), e))?;
    }
    for (link, to) in &mount.links {
        symlinkat(to, &detached, link).map_err(|e| fail(format!("{}: the link {link}", name(mount)), e))?;
    }
    Ok(detached)
}

/// What errors call a mount: the words are runc's, which engines look for, and the field is ours.
fn name(mount: &Mount) -> String {
    let (source, destination) = (&mount.shown_source, mount.destination.display());
    format!("error mounting {source:?} to rootfs at \"{destination}\": {}", mount.field)
}

/// The tree of a bind mount, with its owners mapped, attached nowhere.
fn open_tree_of(
    root: &Root,
    mount: &Mount,
    tree: &Tree,
    fds: &[OwnedFd],
    control: &Channel,
) -> Result<OwnedFd> {
    let Tree::InRoot { path, recursive, owners } = tree else {
        return open(tree, fds).map_err(|e| fail(name(mount), e));
    };
    let part = clone_part(root, path, *recursive).map_err(|e| fail(name(mount), e))?;
    if let Some(index) = owners {
        map_owners(control, *index, &part)?;
    }
    Ok(part)
}

/// Opens the place in the root where a mount is to be attached, and makes it where there is none.
fn find_place(root: &Root, mount: &Mount, detached: &OwnedFd) -> Result<OwnedFd> {
    let directory = match mount.source {
        Source::Filesystem { .. } => true,
        _ => is_directory(detached).map_err(|e| fail(name(mount), e))?,
    };
    let missing = if directory { Missing::Directory } else { Missing::File };
    // Masked and read-only paths are looked for at /proc and /sys: an image must not have them end up elsewhere
    // (CVE-2019-19921).
    if matches!(&mount.source, Source::Filesystem { fstype, .. } if matches!(fstype.as_str(), "proc" | "sysfs"))
    {
        return root
            .resolve_plain(&mount.destination, missing)
            .map_err(|e| fail(format!("{}: must be mounted on ordinary directory", name(mount)), e));
    }
    root.resolve(&mount.destination, missing).map_err(|e| fail(name(mount), e))
}

/// Fails where a link of the image leads to the root itself, which nothing may cover. The plan has checked the text.
fn check_below_root(root: &Root, mount: &Mount, target: &OwnedFd) -> Result<()> {
    match is_root(root, target) {
        Ok(false) => Ok(()),
        Ok(true) => {
            Err(refuse(format!("{}: is on the top of rootfs, where it would cover all of it", name(mount))))
        }
        Err(e) => Err(fail(name(mount), e)),
    }
}

/// Whether this is the root itself, not the same directory bound somewhere below it. Both facts are told unasked; who asks FUSE for
/// more may be refused.
fn is_root(root: &Root, target: &OwnedFd) -> rustix::io::Result<bool> {
    let target = statx(target, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    let root = statx(root.as_fd(), "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok(target.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) && target.stx_mnt_id == root.stx_mnt_id)
}

/// Fails for what would have programs believe a /proc that is none. The plan has checked what is below /proc by its text; here
/// it is about where the image's links lead.
fn check_proc(root: &Root, mount: &Mount, detached: &OwnedFd, target: &OwnedFd) -> Result<()> {
    if !is_below_proc(&mount.destination) && is_in_procs_procfs(root, target) {
        return Err(refuse(format!("{}: cannot be mounted: it is inside /proc", name(mount))));
    }
    if is_proc(&mount.destination) && !is_procfs(detached) {
        return Err(refuse(format!("{}: cannot be mounted over /proc: it is not of type proc", name(mount))));
    }
    Ok(())
}

/// Puts into a new file system what it has from the start.
fn fill(mount: &Mount, detached: &OwnedFd, target: &OwnedFd) -> Result<()> {
    if let Source::Filesystem { copy_up: true, .. } = mount.source {
        copy_up(target, detached).map_err(|e| fail(format!("{}: tmpcopyup", name(mount)), e))?;
    }
    if let Some(label) = &mount.label {
        let path = format!("/proc/self/fd/{}", detached.as_raw_fd());
        setxattr(path, "security.selinux", label.as_bytes(), XattrFlags::empty())
            .map_err(|e| fail(format!("{}: linux.mountLabel ({label})", name(mount)), e))?;
    }
    Ok(())
}

/// Gives a mount its attributes, as long as nobody sees it.
fn dress(mount: &Mount, detached: &OwnedFd) -> Result<()> {
    let mut attributes = mount.attributes;
    if mount.readonly_at_last {
        attributes.set &= !MountAttr::RDONLY.bits();
    }
    set(detached, false, attributes).map_err(|e| fail(format!("{}: its options", name(mount)), e))?;
    set(detached, true, mount.recursive_attributes)
        .map_err(|e| fail(format!("{}: its recursive options", name(mount)), e))
}

fn is_directory(fd: impl AsFd) -> rustix::io::Result<bool> {
    match fstat(&fd) {
        Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode).is_dir()),
        // FUSE tells nothing to others than who has mounted it, and so not to a user namespace. The kernel itself knows that
        // nothing is below a file, and says so before it asks whether one may look there.
        Err(Errno::ACCESS) => match openat(&fd, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(_) | Err(Errno::ACCESS) => Ok(true),
            Err(Errno::NOTDIR) => Ok(false),
            Err(e) => Err(e),
        },
        Err(e) => Err(e),
    }
}

/// A tree of the host, attached nowhere.
pub fn open(tree: &Tree, fds: &[OwnedFd]) -> std::io::Result<OwnedFd> {
    match tree {
        Tree::Cloned(fd) => fds[*fd].try_clone(),
        Tree::Path { path, recursive } => {
            let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            flags.set(OpenTreeFlags::AT_RECURSIVE, *recursive);
            let clone = open_tree(CWD, path, flags)?;
            propagate(&clone, Propagation::Slave, true)?;
            Ok(clone)
        }
        // There is no root yet.
        Tree::InRoot { .. } => Err(std::io::ErrorKind::InvalidInput.into()),
    }
}

/// A part of the container's root as a tree of its own.
fn clone_part(root: &Root, path: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let part = root.resolve(path, Missing::Fail)?;
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    let clone = open_tree(&part, "", flags)?;
    propagate(&clone, Propagation::Slave, true)?;
    Ok(clone)
}

/// Has the runtime map the owners of a detached tree. One that refuses closes the channel, and knows why.
fn map_owners(control: &Channel, index: usize, tree: &OwnedFd) -> Result<()> {
    control
        .send(&FromInit::MapOwners(index), &[tree.as_fd()])
        .map_err(|e| fail("the runtime does not listen", e))?;
    if may_proceed(control) { Ok(()) } else { Err(refuse("the runtime is gone")) }
}

/// `remount`
fn change(root: &Root, mount: &Mount, options: &[String]) -> std::result::Result<OwnedFd, String> {
    let text = |e: Errno| e.to_string();
    let mounted = root.resolve(&mount.destination, Missing::Fail).map_err(text)?;
    let stat = statx(&mounted, "", AtFlags::EMPTY_PATH, StatxFlags::empty()).map_err(text)?;
    if !stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err("remount: nothing is mounted there".into());
    }
    if !options.is_empty() {
        let context = fspick(&mounted, "", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH)
            .map_err(|e| format!("remount: {e}"))?;
        set_options(&context, options)?;
        fsconfig_reconfigure(&context).map_err(|e| format!("remount: {e}"))?;
    }
    set(&mounted, false, mount.attributes).map_err(|e| format!("remount: {e}"))?;
    set(&mounted, true, mount.recursive_attributes).map_err(|e| format!("remount: {e}"))?;
    for (propagation, recursive) in &mount.propagation {
        propagate(&mounted, *propagation, *recursive).map_err(|e| format!("propagation: {e}"))?;
    }
    Ok(mounted)
}

/// A tmpfs that says nothing else has the permissions of the directory that it covers, if there is one, as in runc.
fn with_mode(root: &Root, mount: &Mount, fstype: &str, options: &[String]) -> Vec<String> {
    let mut options = options.to_vec();
    if fstype == "tmpfs"
        && !options.iter().any(|option| option.starts_with("mode="))
        && let Ok(covered) = root.resolve(&mount.destination, Missing::Fail)
        && let Ok(stat) = rustix::fs::fstat(&covered)
    {
        options.push(format!("mode={:o}", stat.st_mode & 0o7777));
    }
    options
}

fn is_procfs(fd: &OwnedFd) -> bool {
    rustix::fs::fstatfs(fd).is_ok_and(|s| s.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

fn is_below_proc(path: &Path) -> bool {
    path.starts_with("/proc") && !path.components().any(|part| part == Component::ParentDir)
}

fn is_proc(path: &Path) -> bool {
    is_below_proc(path) && path.components().count() == Path::new("/proc").components().count()
}

/// Whether a link of the image has led into the procfs that the container's programs believe. Others, as of a host whose
/// root is shown somewhere, are nobody's /proc.
fn is_in_procs_procfs(root: &Root, target: &OwnedFd) -> bool {
    let device = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| stat.st_dev);
    is_procfs(target)
        && match root.resolve(Path::new("/proc"), Missing::Fail) {
            Ok(proc) => is_procfs(&proc) && device(&proc) == device(target),
            Err(e) => e != Errno::NOENT,
        }
}

/// Makes read-only what could not be before everything was in it.
pub fn finish(mounts: &[(&Mount, OwnedFd)]) -> Result<()> {
    for (mount, attached) in mounts.iter().filter(|(m, _)| m.readonly_at_last) {
        set_mount_attributes(attached, false, MountAttr::RDONLY, MountAttr::empty(), None, None)
            .map_err(|e| fail(format!("{} ({}): ro", mount.field, mount.destination.display()), e))?;
    }
    Ok(())
}

/// A file system of its own, mounted nowhere yet.
fn new_filesystem(
    fstype: &str,
    source: Option<&str>,
    options: &[String],
) -> std::result::Result<OwnedFd, String> {
    let refused = |what: &str| {
        let what = what.to_owned();
        move |e: Errno| format!("{what}: {e}")
    };
    let context =
        fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).map_err(refused(&format!("file system {fstype}")))?;
    if let Some(source) = source {
        fsconfig_set_string(&context, "source", source).map_err(refused(&format!("source {source}")))?;
    }
    set_options(&context, options)?;
    fsconfig_create(&context).map_err(refused(&format!("file system {fstype}")))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(refused(&format!("file system {fstype}")))
}

fn set_options(context: &OwnedFd, options: &[String]) -> std::result::Result<(), String> {
    for option in options {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(context, key, value),
            None => fsconfig_set_flag(context, option.as_str()),
        }
        .map_err(|e| format!("option {option}: {e}"))?;
    }
    Ok(())
}

/// Copies what the image has at `target` into the new file system, which is still ours alone.
fn copy_up(target: &OwnedFd, detached: &OwnedFd) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = openat(target, ".", flags, Mode::empty())?;
    kernel::copy_tree(from, detached)
}

/// Sets and clears attributes; nothing to change is nothing to do.
pub fn set(mount: impl AsFd, recursive: bool, attributes: Attributes) -> rustix::io::Result<()> {
    if attributes == Attributes::default() {
        return Ok(());
    }
    let bits = MountAttr::from_bits_retain;
    set_mount_attributes(mount, recursive, bits(attributes.set), bits(attributes.clear), None, None)
}

/// Changes the propagation type.
pub fn propagate(mount: impl AsFd, propagation: Propagation, recursive: bool) -> rustix::io::Result<()> {
    let kind = match propagation {
        Propagation::Private => kernel::Propagation::Private,
        Propagation::Shared => kernel::Propagation::Shared,
        Propagation::Slave => kernel::Propagation::Slave,
        Propagation::Unbindable => kernel::Propagation::Unbindable,
    };
    set_mount_attributes(mount, recursive, MountAttr::empty(), MountAttr::empty(), Some(kind), None)
}

/// Attaches a detached mount to an open place.
pub fn move_to(detached: impl AsFd, target: impl AsFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(detached, "", target, "", flags)
}

/// `linux.readonlyPaths`: what is not there needs no protection.
pub fn make_readonly(root: &Root, path: &Path) -> rustix::io::Result<()> {
    let Some(target) = find(root, path)? else { return Ok(()) };
    if same_file(&target, root.as_fd()) {
        // Nobody would look at what is on top of it.
        return set_mount_attributes(&target, false, MountAttr::RDONLY, MountAttr::empty(), None, None);
    }
    let tree = clone_all(&target)?;
    set_mount_attributes(&tree, true, MountAttr::RDONLY, MountAttr::empty(), None, None)?;
    move_to(&tree, &target)
}

/// `linux.maskedPaths`: a file becomes the null device, a directory an empty one that stays empty: the same for all,
/// kept in `empty`. To be called while `/dev/null` is still the host's.
pub fn mask(root: &Root, path: &Path, empty: &mut Option<OwnedFd>) -> std::result::Result<(), String> {
    let Some(target) = find(root, path).map_err(|e| e.to_string())? else { return Ok(()) };
    if !is_directory(&target).map_err(|e| e.to_string())? {
        let null = null_device(root).map_err(|e| format!("/dev/null: {e}"))?;
        return move_to(&null, &target).map_err(|e| e.to_string());
    }
    let cover = match empty {
        Some(attached) => clone_mount(attached).map_err(|e| e.to_string())?,
        None => empty_directory()?,
    };
    move_to(&cover, &target).map_err(|e| e.to_string())?;
    // Only what is attached can be cloned (before Linux 6.15).
    empty.get_or_insert(cover);
    Ok(())
}

/// A detached mount of the null device: the container's own, whose mode its root may change. One without has the host's, which
/// it may not change.
fn null_device(root: &Root) -> rustix::io::Result<OwnedFd> {
    let path = Path::new("/dev/null");
    let own = find(root, path)?.filter(|own| rustix::fs::fstat(own).is_ok_and(|stat| is_null(&stat)));
    if let Some(own) = own {
        return clone_mount(&own);
    }
    let host = clone_host_file(path)?;
    set_mount_attributes(&host, false, MountAttr::RDONLY, MountAttr::empty(), None, None)?;
    Ok(host)
}

fn is_null(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(1, 3)
}

/// A detached directory with nothing in it.
pub fn empty_directory() -> std::result::Result<OwnedFd, String> {
    let empty = new_filesystem("tmpfs", Some("tmpfs"), &["nr_inodes=1".into(), "nr_blocks=1".into()])?;
    set_mount_attributes(&empty, false, MountAttr::RDONLY, MountAttr::empty(), None, None)
        .map_err(|e| e.to_string())?;
    Ok(empty)
}

/// A detached copy of a mount and of all below it.
pub fn clone_all(attached: impl AsFd) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(attached, "", flags)
}

/// A detached mount of what is open in an attached one.
fn clone_mount(attached: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(attached, "", flags)
}

/// A detached mount of one file of the host, while its paths are still ours.
pub fn clone_host_file(path: &Path) -> rustix::io::Result<OwnedFd> {
    open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
}

fn find(root: &Root, path: &Path) -> rustix::io::Result<Option<OwnedFd>> {
    match root.resolve(path, Missing::Fail) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Puts `tree` over a path of the host's view in this mount namespace.
pub fn move_to_path(tree: impl AsFd, path: &Path) -> rustix::io::Result<()> {
    move_mount(tree, OsStr::new(""), CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Moves the mount of the working directory over the host's root: what `--no-pivot` does instead of pivot_root(2).
pub fn move_to_path_from_cwd() -> rustix::io::Result<()> {
    move_mount(CWD, ".", CWD, "/", MoveMountFlags::empty())
}

fn same_file(a: impl AsFd, b: impl AsFd) -> bool {
    match (rustix::fs::fstat(a), rustix::fs::fstat(b)) {
        (Ok(a), Ok(b)) => a.st_dev == b.st_dev && a.st_ino == b.st_ino,
        _ => false,
    }
}
