//! The init and the monitor, carried inside this library: nothing needs to be installed beside it.
//!
//! Copying a program into memory for every container costs as much as all mounts together, so the two are written to
//! a cache once and executed from there; where that can't be, from a sealed memfd. Either way a container can't
//! overwrite them through /proc/PID/exe (CVE-2019-5736): the cached file is seen through a read-only mount that
//! is attached nowhere, the memfd is sealed.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use kernel::{MountAttr, set_mount_attributes};
use rustix::fs::{
    AtFlags, CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags, fcntl_add_seals, fstatvfs, linkat,
    memfd_create,
};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

/// One of the two programs. The name in the cache has a hash of the content, so versions don't meet.
struct Program {
    name: &'static str,
    content: &'static [u8],
}

static INIT: Program = Program {
    name: concat!("init-", env!("LXCRUN_INIT_HASH")),
    content: include_bytes!(concat!(env!("OUT_DIR"), "/lxcrun-init")),
};

static MONITOR: Program = Program {
    name: concat!("monitor-", env!("LXCRUN_MONITOR_HASH")),
    content: include_bytes!(concat!(env!("OUT_DIR"), "/lxcrun-monitor")),
};

/// `MFD_EXEC` of memfd_create(2), Linux 6.3; rustix has no name for it yet.
const MFD_EXEC: u32 = 0x10;

/// The init, as a descriptor to execute that gives no way to overwrite it.
pub(crate) fn init() -> io::Result<OwnedFd> {
    INIT.unwritable()
}

/// The monitor, likewise: a container sees its program as that of the init which goes on inside it.
pub(crate) fn monitor() -> io::Result<OwnedFd> {
    MONITOR.unwritable()
}

/// The monitor of a container that never sees it: the file itself will do.
pub(crate) fn unseen_monitor() -> io::Result<OwnedFd> {
    match MONITOR.cached() {
        Ok(file) => Ok(file.into()),
        Err(_) => MONITOR.sealed(),
    }
}

/// A mount of one file that is read-only and attached nowhere.
fn read_only_view(file: &File) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let view = open_tree(file, "", flags)?;
    set_mount_attributes(&view, false, MountAttr::RDONLY, MountAttr::empty(), None, None)?;
    Ok(view)
}

impl Program {
    fn unwritable(&self) -> io::Result<OwnedFd> {
        match self.cached().and_then(|file| read_only_view(&file)) {
            Ok(view) => Ok(view),
            Err(_) => self.sealed(),
        }
    }

    /// The program in the cache, written now if need be.
    fn cached(&self) -> io::Result<File> {
        let directory = cache_directory().ok_or(io::ErrorKind::NotFound)?;
        let path = directory.join(self.name);
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.write(&directory, &path)?,
            opened => opened?,
        };
        // Somebody else's file, or one on a file system that nothing may be executed from, is none of ours.
        let metadata = file.metadata()?;
        let ours = metadata.uid() == rustix::process::geteuid().as_raw()
            && metadata.mode() & 0o022 == 0
            && metadata.len() == self.content.len() as u64
            && !fstatvfs(&file)?.f_flag.contains(StatVfsMountFlags::NOEXEC);
        if ours { Ok(file) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    fn write(&self, directory: &Path, path: &Path) -> io::Result<File> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        // Killed in the middle, the first way leaves nothing; not every file system has it.
        match self.write_unnamed(directory, path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => self.write_named(directory, path)?,
            _ => {}
        }
        File::open(path)
    }

    fn write_unnamed(&self, directory: &Path, path: &Path) -> io::Result<()> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut out = File::from(rustix::fs::open(directory, flags, Mode::from_raw_mode(0o755))?);
        io::Write::write_all(&mut out, self.content)?;
        let unnamed = format!("/proc/self/fd/{}", out.as_raw_fd());
        Ok(linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
    }

    fn write_named(&self, directory: &Path, path: &Path) -> io::Result<()> {
        let temporary = directory.join(format!(".{}-{}", self.name, std::process::id()));
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(&temporary)
            .and_then(|mut out| io::Write::write_all(&mut out, self.content))
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// The program in memory.
    fn sealed(&self) -> io::Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // A host may have made files in memory not executable unless asked for (sysctl vm.memfd_noexec).
        let fd = match memfd_create(self.name, flags | MemfdFlags::from_bits_retain(MFD_EXEC)) {
            Err(Errno::INVAL) => memfd_create(self.name, flags)?,
            made => made?,
        };
        let mut rest = self.content;
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(fd.as_fd(), rest)?..];
        }
        fcntl_add_seals(&fd, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
        Ok(fd)
    }
}

/// The directory of what is made once and used again: `/var/cache/lxcrun` for root, the user's cache for others, also where
/// they are root in a user namespace. None for who has no home directory.
#[must_use]
pub fn cache_directory() -> Option<PathBuf> {
    if !crate::rootless::is_ordinary_user() {
        return Some("/var/cache/lxcrun".into());
    }
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache"))).map(|base| base.join("lxcrun"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_program_is_whole_and_cannot_be_written() {
        let fd = INIT.sealed().unwrap();
        assert_eq!(rustix::fs::fstat(&fd).unwrap().st_size.unsigned_abs(), INIT.content.len() as u64);
        assert_eq!(rustix::io::pwrite(&fd, b"x", 0), Err(Errno::PERM));
    }

    #[test]
    fn a_program_is_written_whole_and_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(INIT.name);
        let names = || {
            let entries = fs::read_dir(directory.path()).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
        };
        let write_and_look = |write: &dyn Fn() -> io::Result<()>| {
            write().unwrap();
            assert_eq!(names(), [INIT.name]);
            assert_eq!(fs::read(&path).unwrap(), INIT.content);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o111, 0o111);
        };
        write_and_look(&|| INIT.write(directory.path(), &path).map(drop));
        // Somebody else was faster.
        write_and_look(&|| INIT.write(directory.path(), &path).map(drop));
        write_and_look(&|| INIT.write_named(directory.path(), &path));
        assert_eq!(
            INIT.write_unnamed(directory.path(), &path).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
    }
}
