//! Pid files, for whoever supervises a container.

use std::path::Path;
use std::{fs, io};

use crate::error::Context;
use crate::{ContainerId, Result};

/// Writes a pid file by rename, so that a reader sees all of it or nothing.
pub(crate) fn write(id: &ContainerId, path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}-{}", std::process::id()));
    // What a process of this number has left that was killed.
    let _ = fs::remove_file(&temporary);
    // Never through a link that somebody has put there.
    let mut open = fs::OpenOptions::new();
    open.write(true)
        .create_new(true)
        .open(&temporary)
        .and_then(|mut file| io::Write::write_all(&mut file, pid.to_string().as_bytes()))
        .and_then(|()| fs::rename(&temporary, path))
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
        .at(id, format!("cannot write the pid file {}", path.display()))
}
