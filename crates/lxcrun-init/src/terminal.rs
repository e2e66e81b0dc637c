//! The container's terminal: a pseudo-terminal of its own /dev/pts.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstatfs, makedev, openat};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::failure::{Result, fail, refuse};
use crate::mounts::move_to;
use crate::root::{Missing, Root};

/// `f_type` of devpts: statfs(2).
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// A new terminal: what the runtime holds, and what the program sees.
pub struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Opens a new terminal in the /dev/pts below `root`, of `size` columns and rows.
pub fn open(root: &Root, size: Option<(u16, u16)>) -> Result<Terminal> {
    let what = "process.terminal: /dev/pts";
    let pts = root.resolve(Path::new("/dev/pts"), Missing::Fail).map_err(|e| fail(what, e))?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let master =
        openat(&pts, "ptmx", flags, Mode::empty()).map_err(|e| fail("process.terminal: /dev/pts/ptmx", e))?;
    // An image could have put anything there.
    let stat = rustix::fs::fstat(&master).map_err(|e| fail(what, e))?;
    let genuine = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == makedev(5, 2)
        && fstatfs(&master).map_err(|e| fail(what, e))?.f_type == DEVPTS_SUPER_MAGIC;
    if !genuine {
        return Err(refuse("process.terminal: /dev/pts/ptmx is not that of a devpts file system"));
    }
    unlockpt(&master).map_err(|e| fail(what, e))?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags).map_err(|e| fail(what, e))?;
    if let Some((columns, rows)) = size {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).map_err(|e| fail("process.consoleSize", e))?;
    }
    Ok(Terminal { master, slave })
}

/// Binds the terminal to /dev/console.
pub fn bind_console(root: &Root, terminal: &Terminal) -> Result<()> {
    let bind = || {
        let clone =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = open_tree(&terminal.slave, "", clone)?;
        let target = root.resolve(Path::new("/dev/console"), Missing::File)?;
        move_to(&tree, &target)
    };
    bind().map_err(|e| fail("process.terminal: /dev/console", e))
}
