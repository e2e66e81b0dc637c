//! A container's state: what it is doing, and all that is remembered of it from one command to the next. Which file holds it,
//! and who may write that, is `state_dir`'s.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::ContainerId;
use crate::apparmor::Generated;
use crate::cgroup::{Cgroup, Hierarchies};
use crate::config::Rlimit;
use crate::resctrl::Resctrl;
use crate::systemd::Unit;

/// The layout of state.json.
const VERSION: u32 = 1;

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

    /// The process that proc_pid_stat(5) says this of.
    pub(crate) fn of_stat(text: &str) -> Option<Self> {
        let pid = text.split_once(' ')?.0.parse().ok()?;
        Some(Self { pid, start_time: parse_stat(text)?.1 })
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

    /// As the text of state.json; the error is the reason.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|e| e.to_string())
    }

    /// From the text of state.json; the error is what is wrong with it.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self, String> {
        let state: Self = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        if state.version != VERSION {
            return Err(format!("is of version {}, this lxcrun writes {VERSION}", state.version));
        }
        Ok(state)
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
            owner: String::new(),
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
    /// Whose it is: a name, or `#` and the uid of who has none. Not in what hooks get.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub owner: String,
}

impl OciState {
    /// As JSON, for a hook's standard input.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_of_another_process_is_not_opened() {
        let own = ProcessId::of(rustix::process::getpid()).unwrap();
        assert!(own.open().unwrap().is_some());
        assert!(ProcessId { start_time: own.start_time + 1, ..own }.open().unwrap().is_none());
    }
}
