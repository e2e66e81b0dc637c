//! What the runtime tells the monitor, and what it hears back.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The monitor's end of its channel.
pub const CONTROL_FD: i32 = 3;
/// The init's end of the init's channel: the monitor only passes it on.
pub const INIT_FD: i32 = 4;

/// One line of LXC configuration and the field of the specification that it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The LXC key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// For instance `linux.namespaces`.
    pub field: String,
}

/// The file in the container's directory that gets the shell's number of the [`Exit`], for when the runtime is gone by then.
pub const EXIT_FILE: &str = "exit";

/// What the monitor is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ToMonitor {
    /// Start a container. The descriptors that the request speaks of come with it, in the order of its fields.
    Start(StartRequest),
    /// This process is the init. Only after `Start`.
    Init {
        /// As the monitor sees it.
        pid: i32,
        /// End when it has ended, and leave liblxc's clean-up undone.
        end_with_it: bool,
    },
    /// Say which liblxc this host has.
    About,
}

/// What liblxc says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AboutLiblxc {
    /// Its release.
    pub version: String,
    /// Whether it takes a path for the container's cgroup.
    pub takes_cgroup_path: bool,
    /// Those of [`EXTENSIONS`] that it has.
    pub extensions: Vec<String>,
}

/// Extensions of liblxc's interface that are worth knowing about.
pub const EXTENSIONS: [&str; 3] = ["time_namespace", "idmapped_mounts_v2", "cgroup2_auto_mounting"];

/// Everything the monitor needs to start one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartRequest {
    /// The container's id, and liblxc's name for it.
    pub name: String,
    /// The state root, liblxc's `lxcpath`.
    pub root: PathBuf,
    /// The whole configuration, in order.
    pub config: Vec<Item>,
    /// Whether a user namespace comes along, to be joined as its root before anything else.
    pub user_namespace: bool,
    /// Whether a program for the init comes along, a file that nobody can write to, which liblxc executes. Without one the
    /// monitor has an init inside itself.
    pub init_program: bool,
    /// Files to write the monitor's pid to first: roots of hierarchies, see `lxc.cgroup.relative`.
    pub enter: Vec<PathBuf>,
    /// Cgroups of the container that are there: liblxc takes them for its own.
    pub take_cgroups: Vec<PathBuf>,
    /// Tell liblxc that the first process is in the root of cgroup v2: it makes cgroups below that one's.
    pub claim_root: bool,
    /// Whether the monitor stays in the cgroups that it is in by then, and liblxc only thinks that it has moved it.
    pub stay_in_cgroups: bool,
    /// Whether the cgroups are the runtime's work: a directory to show liblxc in their place.
    pub hide_cgroups: Option<PathBuf>,
}

/// Where the hierarchies are mounted, and where liblxc looks for them.
pub const CGROUPS: &str = "/sys/fs/cgroup";

/// What the monitor says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FromMonitor {
    /// liblxc refused an item of the configuration. Its reason is in the log.
    Refused(Item),
    /// The container could not be started: our own reason. liblxc's is in the log.
    Failed(String),
    /// The container's init has ended: exit status, or the signal that ended it.
    Exited(Exit),
    /// This host's liblxc.
    Liblxc(AboutLiblxc),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By exit(2).
    Code(u8),
    /// By a signal.
    Signal(u8),
}

impl Exit {
    /// What a status of wait(2) says of a process that has ended.
    #[must_use]
    pub fn of_status(status: i32) -> Self {
        let [low, high, ..] = status.to_le_bytes();
        // The highest bit of the signal's byte tells of a core dump.
        match low & 0x7f {
            0 => Self::Code(high),
            signal => Self::Signal(signal),
        }
    }

    /// The shell's number for it: the code itself, or 128 + signal.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => signal.saturating_add(128),
        }
    }
}
