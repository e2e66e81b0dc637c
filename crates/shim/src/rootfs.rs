//! The mounts that make up a container's root, in the bundle.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use containerd_shim_protos::types::mount::Mount;
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};

/// Options of mount(2) that are flags, by their names in fstab.
const FLAGS: [(&str, MountFlags); 13] = [
    ("ro", MountFlags::RDONLY),
    ("nosuid", MountFlags::NOSUID),
    ("nodev", MountFlags::NODEV),
    ("noexec", MountFlags::NOEXEC),
    ("sync", MountFlags::SYNCHRONOUS),
    ("dirsync", MountFlags::DIRSYNC),
    ("mand", MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
    ("noatime", MountFlags::NOATIME),
    ("nodiratime", MountFlags::NODIRATIME),
    ("relatime", MountFlags::RELATIME),
    ("strictatime", MountFlags::STRICTATIME),
    ("lazytime", MountFlags::LAZYTIME),
    ("silent", MountFlags::SILENT),
];
/// Names of what is so without a flag.
const DEFAULTS: [&str; 9] =
    ["rw", "suid", "dev", "exec", "async", "atime", "diratime", "norelatime", "defaults"];

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

fn mount_one(wanted: &Mount, target: &Path) -> anyhow::Result<()> {
    let mut flags = MountFlags::empty();
    let (mut bind, mut recursive) = (matches!(&*wanted.type_, "bind" | "rbind"), wanted.type_ == "rbind");
    let mut propagation = MountPropagationFlags::empty();
    let mut data = Vec::new();
    for option in &wanted.options {
        match &**option {
            "bind" => bind = true,
            "rbind" => (bind, recursive) = (true, true),
            "private" | "rprivate" => propagation |= MountPropagationFlags::PRIVATE,
            "slave" | "rslave" => propagation |= MountPropagationFlags::DOWNSTREAM,
            "shared" | "rshared" => propagation |= MountPropagationFlags::SHARED,
            known if DEFAULTS.contains(&known) => {}
            other => match FLAGS.iter().find(|(name, _)| *name == other) {
                Some((_, flag)) => flags |= *flag,
                None => data.push(other),
            },
        }
    }
    if bind {
        let kind = if recursive { MountFlags::REC } else { MountFlags::empty() };
        mount(&*wanted.source, target, "", MountFlags::BIND | kind, None)?;
        if !flags.is_empty() {
            mount_remount(target, MountFlags::BIND | flags, "")?;
        }
    } else {
        let (data, _layers) = short(&data)?;
        mount(&*wanted.source, target, &*wanted.type_, flags, Some(data.as_c_str()))?;
    }
    if !propagation.is_empty() {
        mount_change(target, propagation)?;
    }
    Ok(())
}

/// The data of mount(2), which takes no more than a page. An overlay of many layers has more: their common directory
/// then goes by the name of a descriptor, which is returned, too.
fn short(options: &[&str]) -> anyhow::Result<(CString, Option<OwnedFd>)> {
    let whole = options.join(",");
    let lower = options.iter().find_map(|option| option.strip_prefix("lowerdir="));
    let (true, Some(lower)) = (whole.len() >= rustix::param::page_size(), lower) else {
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
