//! A container's directory below the state root, and what is written there.
//!
//! ```text
//! ROOT/ID/state.json    who and what; written whole, by rename
//!         spec.json     the specification, as it was at `create`
//!         config        the LXC configuration, for people and for LXC's tools
//!         gate          the socket at which the init waits for `start`
//!         hook          the last hook that ran beside the container, as it noted itself
//!         log           liblxc's log
//! ```

use std::collections::BTreeMap;
use std::fmt;
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
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::apparmor::Generated;
use crate::cgroup::{Cgroup, Hierarchies, wait_for_end};
use crate::config::Rlimit;
use crate::error::Context;
use crate::resctrl::Resctrl;
use crate::systemd::Unit;
use crate::{ContainerId, Error, Result};

/// The layout of state.json.
const VERSION: u32 = 1;
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

/// What a container is doing. Source: runtime-spec, runtime.md, "State"; `paused` as in runc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is at work, or was killed at it.
    Creating,
    /// Everything is there, the program waits for `start`.
    Created,
    /// The program runs.
    Running,
    /// All its processes are frozen.
    Paused,
    /// Its init has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// A process, told apart from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its pid in the runtime's PID namespace.
    pub pid: i32,
    /// When it started, in clock ticks since boot: field 22 of proc_pid_stat(5).
    pub start_time: u64,
}

impl ProcessId {
    /// The process that has this pid now.
    pub(crate) fn of(pid: Pid) -> io::Result<Self> {
        let pid = pid.as_raw_nonzero().get();
        Ok(Self { pid, start_time: stat(pid)?.1 })
    }

    /// A pidfd, when the process is still there and is no zombie.
    pub(crate) fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(e) if crate::process::is_gone(e) => return Ok(None),
            opened => opened?,
        };
        // Looked at after the pidfd is open: if it is the same process now, it is the one that the pidfd holds.
        Ok(self.is_alive()?.then_some(pidfd))
    }

    /// Whether the process is still there and is no zombie.
    pub(crate) fn is_alive(self) -> io::Result<bool> {
        match stat(self.pid) {
            Ok((state, start_time)) => Ok(start_time == self.start_time && !matches!(state, 'Z' | 'X')),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            // It has ended between opening the file and reading it.
            Err(e) if e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// State and start time of a process.
fn stat(pid: i32) -> io::Result<(char, u64)> {
    let text = crate::host::read(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat")))
}

/// The same from the text of proc_pid_stat(5).
fn parse_stat(text: &str) -> Option<(char, u64)> {
    // The name is in parentheses and may contain anything, so count from the last one.
    let mut fields = text.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let state = fields.next().and_then(|s| s.chars().next());
    let start_time = fields.nth(18).and_then(|s| s.parse().ok());
    state.zip(start_time)
}

/// What state.json holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub version: u32,
    pub id: ContainerId,
    pub oci_version: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    pub annotations: BTreeMap<String, String>,
    /// The container's cgroup below the root of every hierarchy, and those of liblxc's monitor.
    pub cgroup: String,
    pub monitor_cgroups: [String; 2],
    /// The unit of systemd around them.
    #[serde(default)]
    pub unit: Option<Unit>,
    /// Whether its processes are in a cgroup below that, which is theirs to change.
    #[serde(default)]
    pub delegated: bool,
    /// LXC's monitor; `create` removes it when it retires.
    pub monitor: Option<ProcessId>,
    pub init: Option<ProcessId>,
    /// The init of a container that `create` is at work on, where there is no cgroup to find it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished_init: Option<ProcessId>,
    /// Whether liblxc has something to do at the end: devices to give back, hooks to run.
    pub liblxc_cleans_up: bool,
    /// `lxc.apparmor.profile` of the raw settings, which execs have, too.
    #[serde(default)]
    pub apparmor_profile: Option<String>,
    /// The AppArmor profile that was made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated_profile: Option<Generated>,
    /// Whether LXC has settings of its own for it, which no specification knows.
    #[serde(default)]
    pub lxc_settings: bool,
    /// `lxc.prlimit.*` of the raw settings, which execs have, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub raw_rlimits: Vec<Rlimit>,
    /// Whether it has its creator's session keyring.
    #[serde(default)]
    pub no_new_keyring: bool,
    /// What standard input, output and error are connected with, unless it is a terminal: `pipe:[123]`, or a path.
    #[serde(default)]
    pub stdio: Vec<String>,
    /// Its place in resctrl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<Resctrl>,
    /// Whether spec.json has hooks for `start` and `delete`, so that most never need to read it.
    pub poststart: bool,
    pub poststop: bool,
}

impl State {
    pub(crate) fn new(id: &ContainerId, bundle: &Path, rootfs: &Path, spec: &Spec) -> Self {
        Self {
            version: VERSION,
            id: id.clone(),
            oci_version: spec.version().clone(),
            bundle: bundle.into(),
            rootfs: rootfs.into(),
            created: humantime::format_rfc3339_nanos(std::time::SystemTime::now()).to_string(),
            annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
            cgroup: String::new(),
            monitor_cgroups: Default::default(),
            unit: None,
            delegated: false,
            monitor: None,
            init: None,
            unfinished_init: None,
            liblxc_cleans_up: false,
            apparmor_profile: None,
            generated_profile: None,
            lxc_settings: false,
            raw_rlimits: Vec::new(),
            no_new_keyring: false,
            stdio: Vec::new(),
            resctrl: None,
            poststart: spec
                .hooks()
                .as_ref()
                .is_some_and(|h| h.poststart().as_ref().is_some_and(|l| !l.is_empty())),
            poststop: spec
                .hooks()
                .as_ref()
                .is_some_and(|h| h.poststop().as_ref().is_some_and(|l| !l.is_empty())),
        }
    }

    /// The container's cgroup.
    pub(crate) fn cgroup(&self, hierarchies: Hierarchies) -> Cgroup {
        Cgroup::new(&self.id, hierarchies, &self.cgroup).in_unit(self.unit.clone()).delegated(self.delegated)
    }

    /// The state as the specification has it: for hooks, and for `state`.
    pub(crate) fn oci(&self, status: Status) -> OciState {
        let pid = if status == Status::Stopped { 0 } else { self.init.map_or(0, |i| i.pid) };
        OciState {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            status,
            pid,
            bundle: self.bundle.clone(),
            rootfs: self.rootfs.clone(),
            created: self.created.clone(),
            annotations: self.annotations.clone(),
            owner: "root".into(),
        }
    }
}

/// The OCI state, with what `runc state` adds. Source: runtime-spec, runtime.md, "State".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciState {
    /// `ociVersion` of the bundle.
    pub oci_version: String,
    /// The container.
    pub id: ContainerId,
    /// Pid of the init in the runtime's PID namespace; 0 when it has ended.
    #[serde(default)]
    pub pid: i32,
    /// What it is doing.
    pub status: Status,
    /// The bundle's absolute path.
    pub bundle: PathBuf,
    /// The root file system's absolute path.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// The bundle's annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub annotations: BTreeMap<String, String>,
    /// Who created it.
    pub owner: String,
}

impl OciState {
    /// As JSON, for a hook's standard input.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A container's directory. Dropped before [`StateDir::keep`] it is removed again.
#[derive(Debug)]
pub(crate) struct StateDir {
    id: ContainerId,
    root: PathBuf,
    path: PathBuf,
    /// The directory, open; while `create` works on it, it is locked by this descriptor.
    fd: OwnedFd,
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
        let text = String::from_utf8_lossy(&text);
        let pid = text.split_once(' ')?.0.parse().ok()?;
        Some(ProcessId { pid, start_time: parse_stat(&text)?.1 })
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
        let json = serde_json::to_vec(state).map_err(|e| self.damaged(e.to_string()))?;
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
        let state: State = serde_json::from_slice(&text).map_err(|e| self.damaged(e.to_string()))?;
        if state.version != VERSION {
            return Err(
                self.damaged(format!("is of version {}, this lxcrun writes {VERSION}", state.version))
            );
        }
        Ok(Some(state))
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

    #[test]
    fn a_pid_of_another_process_is_not_opened() {
        let own = ProcessId::of(rustix::process::getpid()).unwrap();
        assert!(own.open().unwrap().is_some());
        assert!(ProcessId { start_time: own.start_time + 1, ..own }.open().unwrap().is_none());
    }
}
