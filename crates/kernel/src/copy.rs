//! Copying a tree of files by descriptors.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, mkdirat, mknodat, openat, readlinkat,
    statat, symlinkat,
};

fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// Copies everything below the directory `from` into the directory `to`: files, links, nodes, modes and owners. Never
/// follows a link.
///
/// # Errors
/// The first failure; what was copied before stays.
pub fn copy_tree(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    copy_directory(from.as_fd(), to.as_fd())
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mkdirat(to, name, mode)?;
                let below = openat(from, name, dir_flags(), Mode::empty())?;
                let copy = openat(to, name, dir_flags(), Mode::empty())?;
                copy_directory(below.as_fd(), copy.as_fd())?;
            }
            FileType::RegularFile => {
                let read =
                    openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let write = openat(to, name, flags, mode)?;
                io::copy(&mut File::from(read), &mut File::from(write))?;
            }
            FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?, to, name)?,
            kind => mknodat(to, name, kind, mode, stat.st_rdev)?,
        }
        chownat(
            to,
            name,
            Some(Uid::from_raw(stat.st_uid)),
            Some(Gid::from_raw(stat.st_gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            chmodat(to, name, mode, AtFlags::empty())?;
        }
    }
    Ok(())
}
