//! The default root file system: busybox with its commands, made once and cached.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;

/// The cached root file system, made now if need be. Containers get a copy of it.
pub fn default_rootfs() -> anyhow::Result<PathBuf> {
    let busybox = lxcrun::find_busybox().map_err(|reason| {
        let mend = "on Debian: apt-get install busybox-static; or give --rootfs";
        anyhow!("the default root file system is busybox's, and that {reason}: {mend}")
    })?;
    let stamp = fs::metadata(&busybox)?;
    let age = stamp.modified()?.duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let cache = lxcrun::cache_directory()
        .context("the default root file system needs a cache directory: HOME is not set")?;
    fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    let rootfs = cache.join(format!("busybox-{}-{age}", stamp.len()));
    if !rootfs.exists() {
        make_in(&cache, &rootfs, &busybox)?;
    }
    Ok(rootfs)
}

/// Makes it beside, and then gives it its name. One at a time, so that what somebody left who was killed can be told from
/// what is being made.
fn make_in(cache: &Path, rootfs: &Path, busybox: &Path) -> anyhow::Result<()> {
    let lock = fs::File::open(cache)?;
    retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))
        .with_context(|| cache.display().to_string())?;
    if rootfs.exists() {
        return Ok(());
    }
    let new = cache.join(".new");
    remove(&new)?;
    let renamed = || fs::rename(&new, rootfs).with_context(|| rootfs.display().to_string());
    make(&new, busybox).and_then(|()| renamed()).inspect_err(|_| drop(remove(&new)))
}

fn remove(tree: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(tree) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context(tree.display().to_string()),
        _ => Ok(()),
    }
}

fn make(root: &Path, busybox: &Path) -> anyhow::Result<()> {
    for directory in
        ["bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "usr/sbin", "var/tmp"]
    {
        fs::create_dir_all(root.join(directory))?;
    }
    for directory in ["tmp", "var/tmp"] {
        fs::set_permissions(root.join(directory), fs::Permissions::from_mode(0o1777))?;
    }
    fs::set_permissions(root.join("root"), fs::Permissions::from_mode(0o700))?;
    fs::copy(busybox, root.join("bin/busybox")).context("copying busybox")?;
    let list = Command::new(busybox).arg("--list-full").env_clear().output().context("running busybox")?;
    for applet in String::from_utf8_lossy(&list.stdout).lines() {
        let link = root.join(applet);
        if let Some(parent) = link.parent() {
            fs::create_dir_all(parent)?;
        }
        match symlink("/bin/busybox", &link) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(e).context(applet.to_owned());
            }
            _ => {}
        }
    }
    if !root.join("bin/sh").exists() && !root.join("bin/sh").is_symlink() {
        bail!("{} has no shell", busybox.display());
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
    Ok(())
}
