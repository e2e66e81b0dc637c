//! The mounts that make up a container's root, in the bundle.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use containerd_shim_protos::types::mount::Mount;
use kernel::LoopOptions;
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};
use rustix::param::page_size;

use crate::owners;

/// Options of mount(2) that set a flag or take it away again, by their names in fstab.
const FLAGS: [(&str, MountFlags, bool); 25] = [
    ("ro", MountFlags::RDONLY, true),
    ("rw", MountFlags::RDONLY, false),
    ("nosuid", MountFlags::NOSUID, true),
    ("suid", MountFlags::NOSUID, false),
    ("nodev", MountFlags::NODEV, true),
    ("dev", MountFlags::NODEV, false),
    ("noexec", MountFlags::NOEXEC, true),
    ("exec", MountFlags::NOEXEC, false),
    ("sync", MountFlags::SYNCHRONOUS, true),
    ("async", MountFlags::SYNCHRONOUS, false),
    ("dirsync", MountFlags::DIRSYNC, true),
    ("mand", MountFlags::PERMIT_MANDATORY_FILE_LOCKING, true),
    ("nomand", MountFlags::PERMIT_MANDATORY_FILE_LOCKING, false),
    ("noatime", MountFlags::NOATIME, true),
    ("atime", MountFlags::NOATIME, false),
    ("nodiratime", MountFlags::NODIRATIME, true),
    ("diratime", MountFlags::NODIRATIME, false),
    ("relatime", MountFlags::RELATIME, true),
    ("norelatime", MountFlags::RELATIME, false),
    ("strictatime", MountFlags::STRICTATIME, true),
    ("nostrictatime", MountFlags::STRICTATIME, false),
    ("lazytime", MountFlags::LAZYTIME, true),
    ("nolazytime", MountFlags::LAZYTIME, false),
    ("silent", MountFlags::SILENT, true),
    ("loud", MountFlags::SILENT, false),
];
/// With `loop`: past the page cache of the file.
const DIRECT_IO: &str = "direct-io";
/// Types whose file systems are programs: how they begin, and who starts those programs.
const HELPERS: [(&str, &str); 2] = [("fuse.", "mount.fuse"), ("fuse3.", "mount.fuse3")];

/// What is mounted at the bundle's root. Dropped, it is unmounted.
#[derive(Debug, Default)]
pub struct Rootfs(Option<PathBuf>);

impl Rootfs {
    /// Mounts all at `BUNDLE/rootfs`.
    pub fn mount(bundle: &Path, mounts: &[Mount]) -> anyhow::Result<Self> {
        if mounts.is_empty() {
            return Ok(Self::default());
        }
        let root = bundle.join("rootfs");
        fs::create_dir_all(&root).with_context(|| root.display().to_string())?;
        let rootfs = Self(Some(root.clone()));
        for wanted in mounts {
            let target = root.join(wanted.target.trim_start_matches('/'));
            mount_one(wanted, &target).with_context(|| {
                format!("cannot mount {} of the type {} at {}", wanted.source, wanted.type_, target.display())
            })?;
        }
        Ok(rootfs)
    }

    /// It stays when this process ends.
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Rootfs {
    fn drop(&mut self) {
        if let Some(root) = &self.0 {
            unmount_all(root);
        }
    }
}

/// Unmounts everything at the bundle's root, however often something was mounted there.
pub fn unmount_root(bundle: &Path) {
    unmount_all(&bundle.join("rootfs"));
}

fn unmount_all(root: &Path) {
    while unmount(root, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
}

/// The options of a mount, sorted.
struct Options<'m> {
    flags: MountFlags,
    bind: bool,
    recursive: bool,
    /// Something is mounted there, and gets other options.
    remount: bool,
    /// The source is a file, which becomes a device.
    loops: bool,
    propagation: MountPropagationFlags,
    /// The user namespace through which its owners are shown.
    users: Option<OwnedFd>,
    /// What the file system understands.
    data: Vec<&'m str>,
}

impl<'m> Options<'m> {
    fn of(wanted: &'m Mount) -> anyhow::Result<Self> {
        let mut options = Self {
            flags: MountFlags::empty(),
            bind: matches!(&*wanted.type_, "bind" | "rbind"),
            recursive: wanted.type_ == "rbind",
            remount: false,
            loops: false,
            propagation: MountPropagationFlags::empty(),
            users: None,
            data: Vec::new(),
        };
        let (mut uids, mut gids) = (None, None);
        for option in &wanted.options {
            match &**option {
                "bind" => options.bind = true,
                "rbind" => (options.bind, options.recursive) = (true, true),
                "private" | "rprivate" => options.propagation |= MountPropagationFlags::PRIVATE,
                "slave" | "rslave" => options.propagation |= MountPropagationFlags::DOWNSTREAM,
                "shared" | "rshared" => options.propagation |= MountPropagationFlags::SHARED,
                "remount" => options.remount = true,
                "loop" => options.loops = true,
                "defaults" => {}
                other => match (other.split_once('='), FLAGS.iter().find(|(name, ..)| *name == other)) {
                    (Some(("uidmap", map)), _) => uids = Some(map),
                    (Some(("gidmap", map)), _) => gids = Some(map),
                    (_, Some((_, flag, set))) => options.flags.set(*flag, *set),
                    (_, None) => options.data.push(other),
                },
            }
        }
        options.users = match (uids, gids) {
            (None, None) => None,
            (Some(uids), Some(gids)) => Some(owners::user_namespace(uids, gids)?),
            _ => bail!("uidmap and gidmap belong together"),
        };
        ensure!(!(options.loops && options.bind), "what is bound is no loop device");
        ensure!(!options.remount || options.users.is_none(), "what is mounted keeps its owners");
        Ok(options)
    }

    /// Mounts it, with the owners that its files have.
    fn mount(&self, wanted: &Mount, target: &Path) -> anyhow::Result<()> {
        if self.bind && self.remount {
            return Ok(mount_remount(target, MountFlags::BIND | self.flags, "")?);
        }
        if self.bind {
            let kind = if self.recursive { MountFlags::REC } else { MountFlags::empty() };
            mount(&*wanted.source, target, "", MountFlags::BIND | kind, None)?;
            if !self.flags.is_empty() {
                mount_remount(target, MountFlags::BIND | self.flags, "")?;
            }
            return Ok(());
        }
        // A device is one as long as it is open or mounted.
        let new = self.loops && !self.remount;
        let device = new.then(|| self.loop_device(&wanted.source)).transpose()?;
        let options: Vec<&str> =
            self.data.iter().copied().filter(|option| !(self.loops && *option == DIRECT_IO)).collect();
        let (data, _layers) = short(&options)?;
        ensure!(data.as_bytes().len() < page_size(), "its options are longer than the kernel takes");
        if self.remount {
            return Ok(mount_remount(target, self.flags, data.as_c_str())?);
        }
        let source = device.as_ref().map_or(Path::new(&wanted.source), |(_, path)| path);
        Ok(mount(source, target, &*wanted.type_, self.flags, Some(data.as_c_str()))?)
    }

    fn loop_device(&self, file: &str) -> anyhow::Result<(OwnedFd, PathBuf)> {
        let read_only = self.flags.contains(MountFlags::RDONLY);
        let direct_io = self.data.contains(&DIRECT_IO);
        let backing = OpenOptions::new().read(true).write(!read_only).open(file)?;
        kernel::attach_loop(backing.as_fd(), LoopOptions { read_only, direct_io })
            .context("cannot make a loop device")
    }

    /// Mounts it in a private namespace, and returns a clone with mapped owners.
    fn mount_mapped(&self, wanted: &Mount, target: &Path, users: &OwnedFd) -> anyhow::Result<OwnedFd> {
        if wanted.type_ != "overlay" || self.bind {
            self.mount(wanted, target)?;
            return owners::mapped_clone(target, self.recursive, users);
        }
        let lower = self.data.iter().find_map(|option| option.strip_prefix("lowerdir="));
        let (names, _layers) = owners::mapped_layers(lower.context("lowerdir is missing")?, target, users)?;
        let lower = format!("lowerdir={names}");
        let of =
            |option: &&'m str| if option.starts_with("lowerdir=") { lower.clone() } else { (*option).into() };
        let data: Vec<String> = self.data.iter().map(of).collect();
        let data = CString::new(data.join(","))?;
        ensure!(data.as_bytes().len() < page_size(), "its options are longer than the kernel takes");
        mount(&*wanted.source, target, "overlay", self.flags, Some(data.as_c_str()))?;
        Ok(owners::clone_tree(target, false)?)
    }
}

fn mount_one(wanted: &Mount, target: &Path) -> anyhow::Result<()> {
    for (prefix, helper) in HELPERS {
        if let Some(kind) = wanted.type_.strip_prefix(prefix) {
            return mount_by(helper, kind, wanted, target);
        }
    }
    let options = Options::of(wanted)?;
    match &options.users {
        None => options.mount(wanted, target)?,
        Some(users) => {
            let mounted = owners::in_private_namespace(|| options.mount_mapped(wanted, target, users))?;
            owners::attach(&mounted, target)?;
        }
    }
    if !options.propagation.is_empty() {
        mount_change(target, options.propagation)?;
    }
    Ok(())
}

/// Has a program mount it, which knows all options itself.
fn mount_by(helper: &str, kind: &str, wanted: &Mount, target: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(helper);
    command.arg(&wanted.source).arg(target).args(["-t", kind]).stdin(Stdio::null());
    command.args(wanted.options.iter().flat_map(|option| ["-o", option]));
    // In a file, because the file system's program may keep it open.
    let mut output = File::from(memfd_create("mount", MemfdFlags::CLOEXEC)?);
    command.stdout(output.try_clone()?).stderr(output.try_clone()?);
    let status = command.status().with_context(|| helper.to_owned())?;
    let mut said = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut said)?;
    ensure!(status.success(), "{helper}: {status}: {}", String::from_utf8_lossy(&said).trim());
    Ok(())
}

/// The data of mount(2), which takes no more than a page. An overlay of many layers has more: their common directory
/// then goes by the name of a descriptor, which is returned, too.
fn short(options: &[&str]) -> anyhow::Result<(CString, Option<OwnedFd>)> {
    let whole = options.join(",");
    let lower = options.iter().find_map(|option| option.strip_prefix("lowerdir="));
    let (true, Some(lower)) = (whole.len() >= page_size(), lower) else {
        return Ok((CString::new(whole)?, None));
    };
    let mut layers = lower.split(':').map(Path::new);
    let mut common = layers.next().and_then(Path::parent).unwrap_or(Path::new("/"));
    for layer in layers {
        while !layer.starts_with(common) {
            common = common.parent().unwrap_or(Path::new("/"));
        }
    }
    let directory = open(common, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let name = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let shorter: Vec<String> = lower
        .split(':')
        .map(|layer| Path::new(layer).strip_prefix(common).map(|rest| format!("{name}/{}", rest.display())))
        .collect::<Result<_, _>>()?;
    let shorter = format!("lowerdir={}", shorter.join(":"));
    let options: Vec<&str> = options
        .iter()
        .map(|option| if option.starts_with("lowerdir=") { &*shorter } else { option })
        .collect();
    Ok((CString::new(options.join(","))?, Some(directory)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_that_is_too_long_goes_by_a_descriptor() {
        let layers: Vec<String> = (0..200).map(|n| format!("/usr/lib/../lib/./{n:040}/fs")).collect();
        let lower = format!("lowerdir={}", layers.join(":"));
        let (data, directory) = short(&["index=off", &lower, "upperdir=/u"]).unwrap();
        let data = data.into_string().unwrap();
        let wanted = format!("index=off,lowerdir=/proc/self/fd/{}/", directory.unwrap().as_raw_fd());
        assert!(data.starts_with(&wanted), "{data}");
        assert!(data.ends_with("/fs,upperdir=/u"), "{data}");
        assert_eq!(short(&["lowerdir=/a:/b"]).unwrap().0.to_str(), Ok("lowerdir=/a:/b"));
    }
}
