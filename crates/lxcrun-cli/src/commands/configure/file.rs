//! A configuration file: read, kept as a backup, and replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The mode of a file that we are the first to write.
const MODE: u32 = 0o644;

/// A file as it is now, or one that isn't there yet.
pub struct ConfigFile {
    /// Where it really is, when the name is a link.
    path: PathBuf,
    text: String,
    metadata: Option<fs::Metadata>,
}

impl ConfigFile {
    pub fn open(name: &Path) -> anyhow::Result<Self> {
        let read = || -> io::Result<Self> {
            let path = match fs::canonicalize(name) {
                // A link to nothing is not to be written through.
                Err(e) if e.kind() == io::ErrorKind::NotFound && name.symlink_metadata().is_err() => {
                    let path = std::path::absolute(name)?;
                    return Ok(Self { path, text: String::new(), metadata: None });
                }
                path => path?,
            };
            let (text, metadata) = (fs::read_to_string(&path)?, fs::metadata(&path)?);
            Ok(Self { path, text, metadata: Some(metadata) })
        };
        read().with_context(|| format!("cannot read {}", name.display()))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_there(&self) -> bool {
        self.metadata.is_some()
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    fn backup_path(&self) -> PathBuf {
        beside(&self.path, "lxcrun-backup")
    }

    /// What the backup says, if there is one: the file as it was at first, empty when it was not there.
    pub fn backup(&self) -> anyhow::Result<Option<String>> {
        let path = self.backup_path();
        if !path.symlink_metadata().is_ok_and(|found| found.is_file()) {
            return Ok(None);
        }
        fs::read_to_string(&path).map(Some).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Puts `text` in its place, with `kept` as its backup or with the one that it has, and returns the backup if there was
    /// a file; `None` when there is nothing to do.
    pub fn replace(&self, text: &str, kept: Option<&str>) -> anyhow::Result<Option<Option<PathBuf>>> {
        if self.text == text {
            return Ok(None);
        }
        let write = || {
            if let Some(directory) = self.path.parent() {
                fs::create_dir_all(directory)?;
            }
            let backup = self.backup_path();
            let found = backup.symlink_metadata();
            match (kept, &self.metadata) {
                // What isn't a file is somebody's for something else.
                _ if found.as_ref().is_ok_and(|found| !found.is_file()) => {}
                (Some(kept), _) => self.write(&backup, kept)?,
                // Who may not read the file may not read the backup, either.
                (None, Some(like)) if found.is_ok() => {
                    fs::set_permissions(&backup, fs::Permissions::from_mode(like.mode() & 0o7777))?;
                }
                _ => {}
            }
            self.write(&self.path, text)?;
            Ok::<_, io::Error>(self.metadata.is_some().then_some(backup))
        };
        write().map(Some).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Writes a file with this one's mode and owner, by rename: others see all of it or nothing.
    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let temporary = beside(path, &format!("lxcrun-{}", std::process::id()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let done = self.fill(&mut file, text).and_then(|()| fs::rename(&temporary, path));
        if done.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        done
    }

    fn fill(&self, file: &mut File, text: &str) -> io::Result<()> {
        file.write_all(text.as_bytes())?;
        let mut mode = MODE;
        if let Some(like) = &self.metadata {
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
                fchown(&*file, Some(like.uid()), Some(like.gid()))?;
            }
            mode = like.mode() & 0o7777;
        }
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()
    }
}

/// `PATH.SUFFIX`
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{suffix}"));
    name.into()
}
