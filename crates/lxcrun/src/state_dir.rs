//! A container's directory below the state root: who may have it, and how its files are written, so that neither a command that
//! is killed nor two at once leave anything half done.
//!
//! ```text
//! ROOT/ID/state.json    who and what; written whole, by rename
//!         spec.json     the specification, as it was at `create`
//!         config        the LXC configuration, for people and for LXC's tools
//!         gate          the socket at which the init waits for `start`
//!         hook          the last hook that ran beside the container, as it noted itself
//!         criu          the CRIU of the last checkpoint, likewise
//!         log           liblxc's log
//! ```
//!
//! The directory's lock is its container's: whoever makes, starts or removes one holds it. Its mode tells how far it is: that
//! it was just made, or that somebody deletes it by force.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use kernel::ChildNote;
use oci_spec::runtime::Spec;
use rustix::fs::{
    Access, AtFlags, FlockOperation, Mode, OFlags, RawDir, accessat, fchmod, flock, fstat, lstat, openat,
    renameat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::cgroup::wait_for_end;
use crate::error::Context;
use crate::rootless::user_name;
use crate::state::{ProcessId, State};
use crate::{ContainerId, Error, Result};

const STATE: &str = "state.json";
const SPEC: &str = "spec.json";
/// The LXC configuration, where LXC's tools look for it.
pub(crate) const CONFIG: &str = "config";
/// The mode of a directory whose container somebody deletes by force, or removes.
const CONDEMNED: Mode = Mode::SVTX;
/// The mode of a directory that was just made, until its maker has locked it: such a one is no container yet.
const FRESH: Mode = Mode::RUSR.union(Mode::XUSR);
/// The socket at which the init waits.
pub(crate) const GATE: &str = "gate";
const HOOK: &str = "hook";
const CRIU: &str = "criu";

/// A container's directory. Dropped before [`StateDir::keep`] it is removed again.
#[derive(Debug)]
pub(crate) struct StateDir {
    id: ContainerId,
    root: PathBuf,
    path: PathBuf,
    /// The directory, open; while `create` works on it, it is locked by this descriptor.
    fd: OwnedFd,
    /// Whether it goes when this is dropped: until what was begun in it is complete.
    remove: bool,
}

impl StateDir {
    /// Makes the directory, locked, for a container that does not exist yet.
    pub(crate) fn create(root: &Path, id: &ContainerId) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(root)
            .at(id, format!("cannot make {}", root.display()))?;
        let root = fs::canonicalize(root).at(id, format!("cannot use {}", root.display()))?;
        let path = root.join(id.as_str());
        let exists = || Error::Exists { id: id.clone(), root: root.clone() };
        loop {
            let made = rustix::fs::mkdir(&path, FRESH);
            if !matches!(made, Ok(()) | Err(Errno::EXIST)) {
                made.at(id, format!("cannot make {}", path.display()))?;
            }
            // Until it is locked, somebody may take it for what a killed `create` has left, and remove it.
            let Some(mut directory) = Self::open_below(root.clone(), id)? else { continue };
            // Whoever locks a fresh one has it, also when its maker was killed before that.
            if !directory.is_fresh()? {
                return Err(exists());
            }
            if !directory.lock_if_there()? {
                continue;
            }
            if !directory.is_fresh()? {
                return Err(exists());
            }
            fchmod(&directory.fd, Mode::RWXU).at(id, format!("cannot use {}", path.display()))?;
            directory.remove = true;
            return Ok(directory);
        }
    }

    /// Opens the directory of a container.
    pub(crate) fn open(root: &Path, id: &ContainerId) -> Result<Self> {
        let not_found = || Error::NotFound { id: id.clone(), root: root.into() };
        match fs::canonicalize(root) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(not_found()),
            real => Self::open_below(real.at(id, format!("cannot use {}", root.display()))?, id)?
                .ok_or_else(not_found),
        }
    }

    /// Opens the directory of a container, when `root` holds no link.
    pub(crate) fn open_below(root: PathBuf, id: &ContainerId) -> Result<Option<Self>> {
        let path = root.join(id.as_str());
        match open_directory(&path) {
            Err(Errno::NOENT) => Ok(None),
            opened => {
                let fd = opened.at(id, format!("cannot open {}", path.display()))?;
                Ok(Some(Self { id: id.clone(), path, root, fd, remove: false }))
            }
        }
    }

    /// The same directory by another descriptor, which has no lock.
    pub(crate) fn reopen(&self) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let what = || format!("cannot open {}", self.path.display());
        let fd = openat(&self.fd, ".", flags, Mode::empty()).at(&self.id, what())?;
        Ok(Self { id: self.id.clone(), path: self.path.clone(), root: self.root.clone(), fd, remove: false })
    }

    pub(crate) fn id(&self) -> &ContainerId {
        &self.id
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Whose it is, as runc tells it: a name, or `#` and the uid of who has none.
    pub(crate) fn owner(&self) -> String {
        let uid = fstat(&self.fd).map_or(0, |status| status.st_uid);
        user_name(uid).unwrap_or_else(|| format!("#{uid}"))
    }

    /// A path of a file in it that is short enough for a socket's address, for as long as `self` lives.
    pub(crate) fn short_path(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{file}", self.fd.as_raw_fd()))
    }

    /// Waits until no `create`, `start` or `delete` is at work on it, and keeps others out.
    pub(crate) fn lock(&self, operation: FlockOperation) -> Result<()> {
        rustix::io::retry_on_intr(|| flock(&self.fd, operation))
            .at(&self.id, format!("cannot lock {}", self.path.display()))
    }

    /// Waits for the lock, to change or remove the container. False when somebody has removed the directory meanwhile: what
    /// is at its path now is another container.
    pub(crate) fn lock_if_there(&self) -> Result<bool> {
        self.lock(FlockOperation::LockExclusive)?;
        self.is_there().at(&self.id, format!("cannot look at {}", self.path.display()))
    }

    /// Whether its path still leads to this directory. Who has the lock knows that it will.
    pub(crate) fn is_there(&self) -> io::Result<bool> {
        let now = match lstat(&self.path) {
            Err(Errno::NOENT) => return Ok(false),
            found => found?,
        };
        let own = fstat(&self.fd)?;
        Ok((own.st_dev, own.st_ino) == (now.st_dev, now.st_ino))
    }

    /// The descriptor that has the lock, for a process that must have ended before anybody else gets it.
    pub(crate) fn duplicate_lock(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Whether somebody else holds the lock.
    pub(crate) fn is_locked(&self) -> bool {
        match flock(&self.fd, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                let _ = flock(&self.fd, FlockOperation::Unlock);
                false
            }
            Err(_) => true,
        }
    }

    /// Tells a `create` at work that somebody deletes it: by the directory's mode, so that nothing can be left of it.
    /// Where nothing can be written none is at work.
    pub(crate) fn condemn(&self) -> Result<()> {
        match fchmod(&self.fd, Mode::RWXU | CONDEMNED) {
            Err(Errno::ROFS) => Ok(()),
            told => told.at(&self.id, format!("cannot use {}", self.path.display())),
        }
    }

    /// Fails when somebody deletes it by force. Who does so later finds all that was written before.
    pub(crate) fn check_not_condemned(&self) -> Result<()> {
        if self.mode()?.contains(CONDEMNED) {
            return Err(Error::Deleted { id: self.id.clone() });
        }
        Ok(())
    }

    /// Removes one that is fresh, unless somebody is just taking it.
    pub(crate) fn remove_fresh(&self) -> Result<()> {
        if flock(&self.fd, FlockOperation::NonBlockingLockExclusive).is_ok()
            && self.is_fresh()?
            && self.is_there().at(&self.id, "cannot look at its directory")?
        {
            fs::remove_dir(&self.path).at(&self.id, format!("cannot remove {}", self.path.display()))?;
        }
        Ok(())
    }

    /// Whether nobody has locked it since it was made.
    pub(crate) fn is_fresh(&self) -> Result<bool> {
        // What its parent hands on says nothing.
        Ok(self.mode()?.difference(Mode::SGID) == FRESH)
    }

    fn mode(&self) -> Result<Mode> {
        let status = fstat(&self.fd).at(&self.id, "cannot look at its directory")?;
        Ok(Mode::from_raw_mode(status.st_mode))
    }

    /// Where a hook notes itself that runs beside the container; it does not run when the directory is condemned.
    pub(crate) fn note_for_hook(&self) -> Result<ChildNote> {
        self.note_for(HOOK)
    }

    /// Where the CRIU of a checkpoint notes itself, like a hook.
    pub(crate) fn note_for_criu(&self) -> Result<ChildNote> {
        self.note_for(CRIU)
    }

    /// Ends a hook that still runs, with what it has started: whoever waits for it goes on, or was killed.
    pub(crate) fn end_hook(&self) -> Result<()> {
        self.end_noted(HOOK)
    }

    /// Ends the CRIU of a checkpoint that still runs. It traces the container's processes, whose end would wait for it.
    pub(crate) fn end_criu(&self) -> Result<()> {
        self.end_noted(CRIU)
    }

    fn note_for(&self, file: &str) -> Result<ChildNote> {
        let what = || format!("cannot note a process in {}", self.path.join(file).display());
        let file =
            self.open_file(file, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC).at(&self.id, what())?;
        Ok(ChildNote { file: file.into(), directory: self.fd.try_clone().at(&self.id, what())? })
    }

    /// Ends a process that has noted itself, with its process group.
    fn end_noted(&self, file: &str) -> Result<()> {
        let what = format!("cannot end a {file}");
        let Some(noted) = self.noted(file) else { return Ok(()) };
        let (Some(pidfd), Some(group)) = (noted.open().at(&self.id, &what)?, Pid::from_raw(noted.pid)) else {
            return Ok(());
        };
        match kill_process_group(group, Signal::KILL) {
            Err(Errno::SRCH) => Ok(()),
            killed => killed.and_then(|()| wait_for_end(&pidfd)).at(&self.id, what),
        }
    }

    fn noted(&self, file: &str) -> Option<ProcessId> {
        let text = self.read(file).ok()?;
        ProcessId::of_stat(&String::from_utf8_lossy(&text))
    }

    /// Keeps others from freezing and thawing the container for as long as what is returned is open; `None` when there
    /// is nothing to freeze yet. It is a lock of its own, because `start` holds the other one for as long as a hook
    /// likes.
    pub(crate) fn hold_freezer(&self) -> Result<Option<File>> {
        // No file of its own: this one is written before the state is, and once.
        let what = format!("cannot lock {}", self.path.join(SPEC).display());
        let file = match self.open_file(SPEC, OFlags::RDONLY) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.at(&self.id, &what)?,
        };
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive)).at(&self.id, what)?;
        Ok(Some(file))
    }

    /// Opens a file in it: in this directory, whatever its path leads to by now.
    fn open_file(&self, file: &str, flags: OFlags) -> io::Result<File> {
        Ok(openat(&self.fd, file, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Writes a file that is there whole or not at all.
    pub(crate) fn write(&self, file: &str, content: &[u8]) -> Result<()> {
        let temporary = format!(".{file}");
        let write = || {
            self.write_over(&temporary, content)?;
            renameat(&self.fd, &temporary, &self.fd, file).map_err(io::Error::from)
        };
        write().at(&self.id, format!("cannot write {}", self.path.join(file).display()))
    }

    /// Writes a file that nobody reads before the state file says that it is there.
    pub(crate) fn write_unread(&self, file: &str, content: &[u8]) -> Result<()> {
        let what = || format!("cannot write {}", self.path.join(file).display());
        self.write_over(file, content).at(&self.id, what())
    }

    fn write_over(&self, file: &str, content: &[u8]) -> io::Result<()> {
        self.open_file(file, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?.write_all(content)
    }

    /// Removes a file in it; that it isn't there is no failure.
    pub(crate) fn remove_file(&self, file: &str) {
        let _ = unlinkat(&self.fd, file, AtFlags::empty());
    }

    pub(crate) fn write_state(&self, state: &State) -> Result<()> {
        let json = state.to_json().map_err(|reason| self.damaged(reason))?;
        self.write(STATE, &json)
    }

    pub(crate) fn write_spec(&self, config: &[u8]) -> Result<()> {
        self.write_unread(SPEC, config)
    }

    /// Whether it has a file of this name. Cheaper than to open one that isn't there.
    pub(crate) fn has(&self, file: &str) -> bool {
        accessat(&self.fd, file, Access::EXISTS, AtFlags::empty()).is_ok()
    }

    /// Reads a small file, without asking for its size before.
    fn read(&self, file: &str) -> io::Result<Vec<u8>> {
        const PAGE: usize = 4096;
        let mut content = Vec::with_capacity(PAGE);
        self.open_file(file, OFlags::RDONLY)?.take(u64::MAX).read_to_end(&mut content)?;
        Ok(content)
    }

    /// Reads state.json; `None` when `create` has not come so far, or somebody removes the container.
    ///
    /// # Errors
    /// [`Error::Unfinished`] when nobody is at work on it any more; besides those of [`state`](Self::state).
    pub(crate) fn state_of_container(&self) -> Result<Option<State>> {
        if let Some(state) = self.state()? {
            return Ok(Some(state));
        }
        if flock(&self.fd, FlockOperation::NonBlockingLockShared).is_err() {
            return Ok(None);
        }
        // Now that nobody can be at it: it may have been completed, or removed, meanwhile.
        let state = self.state();
        let left = self.is_there().at(&self.id, "cannot look at its directory");
        let fresh = self.is_fresh();
        self.unlock();
        match state? {
            None if left? && !fresh? => {
                Err(Error::Unfinished { id: self.id.clone(), root: self.root.clone() })
            }
            state => Ok(state),
        }
    }

    /// Whether somebody is making the container, or is about to have removed it.
    pub(crate) fn is_incomplete(&self) -> Result<bool> {
        // Asked first: who has completed it meanwhile has written so before the lock was let go.
        let locked = self.is_locked();
        Ok(locked && !self.is_fresh()? && self.state()?.is_none_or(|state| state.init.is_none()))
    }

    /// Whether somebody is making the container, and nobody removes it.
    pub(crate) fn is_being_made(&self) -> Result<bool> {
        Ok(self.is_incomplete()? && !self.mode()?.contains(CONDEMNED))
    }

    /// Reads state.json; `None` when `create` did not come so far.
    pub(crate) fn state(&self) -> Result<Option<State>> {
        let text = match self.read(STATE) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.at(&self.id, format!("cannot read {}", self.path.join(STATE).display()))?,
        };
        State::from_json(&text).map(Some).map_err(|reason| self.damaged(reason))
    }

    /// The specification as it was at `create`.
    pub(crate) fn spec(&self) -> Result<Spec> {
        let config =
            self.read(SPEC).at(&self.id, format!("cannot read {}", self.path.join(SPEC).display()))?;
        crate::bundle::parse(&config)
            .map_err(|(field, reason)| self.damaged(format!("{SPEC}: {field}: {reason}")))
    }

    fn damaged(&self, reason: String) -> Error {
        Error::State { id: self.id.clone(), reason }
    }

    /// The end of liblxc's log, for an error: `: reason`, or nothing.
    pub(crate) fn log_tail(&self) -> String {
        let text = crate::host::read(self.path.join(crate::config::LOG_FILE)).unwrap_or_default();
        // The first error is the cause, those that follow only say who was affected by it.
        let reasons: Vec<&str> =
            text.lines().filter_map(|l| l.split_once("ERROR").map(|(_, r)| r.trim())).take(3).collect();
        if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) }
    }

    /// LXC's tools leave one, an empty file, for each container that they have looked at.
    fn remove_lock_of_tools(&self) {
        let run = crate::monitor::run_directory(&self.root);
        let root = self.root.strip_prefix("/").unwrap_or(&self.root);
        let _ = fs::remove_file(run.join("lxc/lock").join(root).join(format!(".{}", self.id)));
    }

    /// Makes it stay.
    pub(crate) fn keep(&mut self) {
        self.remove = false;
    }

    /// Unlocks it.
    pub(crate) fn unlock(&self) {
        let _ = flock(&self.fd, FlockOperation::Unlock);
    }

    /// Removes it by the descriptor that it has, for a process that can open no other. It has no directories then, which take
    /// more of them to be made.
    fn remove_files(&self) {
        let mut space = [MaybeUninit::uninit(); 1024];
        let mut entries = RawDir::new(&self.fd, &mut space);
        while let Some(Ok(entry)) = entries.next() {
            let _ = unlinkat(&self.fd, entry.file_name(), AtFlags::empty());
        }
        let _ = fs::remove_dir(&self.path);
    }

    /// Removes it with everything in it. Only for who has its lock: see [`lock_if_there`](Self::lock_if_there).
    pub(crate) fn remove(mut self) -> Result<()> {
        self.remove = false;
        // Without its state file it would look like one that is being made.
        let _ = self.condemn();
        self.remove_lock_of_tools();
        loop {
            return match fs::remove_dir_all(&self.path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                // The monitor has just written an exit status into it.
                Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => continue,
                removed => removed.at(&self.id, format!("cannot remove {}", self.path.display())),
            };
        }
    }
}

impl AsFd for StateDir {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if self.remove && fs::remove_dir_all(&self.path).is_err() {
            self.remove_files();
        }
    }
}

fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_kept_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let id: ContainerId = "x".parse().unwrap();
        let directory = StateDir::create(root.path(), &id).unwrap();
        directory.write("a", b"b").unwrap();
        assert!(matches!(StateDir::create(root.path(), &id), Err(Error::Exists { .. })));
        drop(directory);
        assert!(matches!(StateDir::open(root.path(), &id), Err(Error::NotFound { .. })));
    }

    #[test]
    fn a_directory_that_was_made_again_is_another_one() {
        let root = tempfile::tempdir().unwrap();
        let id: ContainerId = "x".parse().unwrap();
        let mut first = StateDir::create(root.path(), &id).unwrap();
        first.keep();
        drop(first);
        let before = StateDir::open(root.path(), &id).unwrap();
        StateDir::open(root.path(), &id).unwrap().remove().unwrap();
        assert!(!before.lock_if_there().unwrap());
        let mut now = StateDir::create(root.path(), &id).unwrap();
        now.keep();
        assert!(!before.lock_if_there().unwrap());
        assert!(now.is_there().unwrap());
    }
}
