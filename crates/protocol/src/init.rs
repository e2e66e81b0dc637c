//! What the runtime asks of the init, and what it hears back.
//!
//! ```text
//! runtime                              init
//!    | <------------------------ Hello |  its pid comes with it
//!    | Prepare(Container) + fds -----> |  rootfs, mounts, devices
//!    | <-- MapOwners (+ a tree) ------- |  for each id-mapped part of the root, then Proceed
//!    | <---------------------- Mounted |
//!    | (prestart, createRuntime hooks) |
//!    | Proceed ----------------------> |  createContainer hooks, pivot_root, /proc/sys, terminal
//!    | <-- Ready (+ terminal's master) |
//!    | (state file, monitor retires)   |
//!    | Proceed ----------------------> |  waits at the gate
//!    | gate: connect; <----------- Ack |
//!    | gate: Start ------------------> |  user, capabilities, seccomp, startContainer hooks, exec
//! ```
//! That of an exec says Hello twice: its helper, and then the process that the helper has made in the container's namespaces.
//! It goes on at `Proceed`, in the container's cgroups, says Ready, and executes at the next `Proceed`.
//!
//! Where a seccomp filter has a listener, user, capabilities and filter come before `Ready`, because agents expect to hear
//! of it from `create`: `Listener` comes along with it, and the init waits for `Proceed` until the agent has it.
//!
//! `Failed` may come instead of any message. Closing the channel at any point before the last `Proceed` makes
//! the init exit: a runtime that dies takes its unfinished container with it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Hook, Scheduling};

/// Where the init of a container or of an exec finds its channel.
pub const CONTROL_FD: i32 = crate::monitor::INIT_FD;

/// The name, argument 0, of an init that is to be the helper of an exec and leave a process behind that waits: that one writes
/// the status of wait(2) of the exec, four bytes in the machine's order, into [`WAITER_FD`].
pub const WAITER: &str = "lxcrun: waits for an exec";

/// Where that one finds a pipe to write to.
pub const WAITER_FD: i32 = CONTROL_FD + 1;

/// An index into the descriptors that came with the message.
pub type FdIndex = usize;

/// To the init.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToInit {
    /// Be the init of a new container.
    Prepare(Box<Container>),
    /// Be a process in a running container.
    Exec(Box<Exec>),
    /// Take the next step.
    Proceed,
}

/// From the init.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromInit {
    /// Here I am; the kernel adds the pid.
    Hello,
    /// A detached part of the root comes along, for the runtime to id-map as the planned mount of this index says: an init
    /// in a user namespace has no right to. Goes on at `Proceed`.
    MapOwners(usize),
    /// All mounts are in place, the root is not changed yet.
    Mounted,
    /// Everything is done that can be done before `start`. With a terminal its master comes along.
    Ready,
    /// The listener of a seccomp filter comes along; goes on at `Proceed`.
    Listener,
    /// A step failed; the init exits.
    Failed(Failure),
}

/// To a container's init at its gate.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToGate {
    /// Execute the program.
    Start,
}

/// From a container's init at its gate. After `Ack`, the end of the connection means that the program runs.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromGate {
    /// You are the one who starts it. A descriptor comes along that tells the [`Step`].
    Ack,
    /// The program can't be executed; the init exits.
    Failed(Failure),
}

/// Where an init is between its gate and its program. It can't always say that it is ended there, nor why: a seccomp filter
/// may forbid everything. So it keeps this in memory that `start` reads, whose descriptor comes with `Ack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// Waiting.
    Gate,
    /// Everything up to the first thing that a filter could forbid.
    Rights,
    /// Dropping capabilities from the bounding set.
    Bounding,
    /// Becoming the user.
    User,
    /// Setting the other capabilities.
    Capabilities,
    /// Running startContainer hooks.
    Hooks,
    /// Loading the filter.
    Seccomp,
    /// Executing the program: whatever ends the process now ends the program.
    Execute,
    /// The program could not be executed.
    Failed,
}

impl Step {
    /// The step of this number.
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        use Step::{Bounding, Capabilities, Execute, Failed, Gate, Hooks, Rights, Seccomp, User};
        [Gate, Rights, Bounding, User, Capabilities, Hooks, Seccomp, Execute, Failed]
            .into_iter()
            .find(|step| *step as u32 == number)
    }

    /// The field of the specification that it is about.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Gate | Self::Rights => "process",
            Self::Bounding => "process.capabilities.bounding",
            Self::User => "process.user",
            Self::Capabilities => "process.capabilities",
            Self::Hooks => "hooks.startContainer",
            Self::Seccomp => "linux.seccomp",
            Self::Execute | Self::Failed => "process.args",
        }
    }
}

/// Why the init gave up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What it means for the exit code.
    pub kind: FailureKind,
    /// Field and reason.
    pub message: String,
}

/// The failures that a caller tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The program was not found: exit code 127.
    NotFound,
    /// The program can't be executed: exit code 126.
    NotExecutable,
    /// Anything else.
    Other,
}

/// Everything the init of a new container does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Whether liblxc was shown no cgroups, see `monitor::StartRequest`: hooks want to see those of the host.
    pub cgroups_hidden: bool,
    /// Whether to make a cgroup namespace first of all, because liblxc has put the init into no cgroup.
    pub new_cgroup_namespace: bool,
    /// Whether to make an IPC namespace: in a user namespace, so that it is that one's root's.
    pub new_ipc_namespace: bool,
    /// A cgroup namespace to join first of all.
    pub cgroup_namespace: Option<FdIndex>,
    /// A mount namespace to join, once everything is mounted in one of the init's own.
    pub mount_namespace: Option<FdIndex>,
    /// The offsets of a new time namespace, as /proc/PID/timens_offsets takes them: time_namespaces(7). The init makes
    /// the namespace itself, because liblxc knows seconds or nanoseconds, not both.
    pub time_namespace: Option<String>,
    /// A time namespace to join.
    pub joined_time_namespace: Option<FdIndex>,
    /// The root file system.
    pub rootfs: Rootfs,
    /// In the order of the specification.
    pub mounts: Vec<Mount>,
    /// Device nodes.
    pub devices: Vec<Device>,
    /// Whether /dev gets the standard links (not when it is a bind mount of somebody else's).
    pub dev_links: bool,
    /// `hostname`, unless liblxc sets it.
    pub hostname: Option<String>,
    /// `domainname`
    pub domainname: Option<String>,
    /// `linux.sysctl`, names with dots or slashes.
    pub sysctl: Vec<(String, String)>,
    /// `linux.maskedPaths`
    pub masked_paths: Vec<PathBuf>,
    /// `linux.readonlyPaths`
    pub readonly_paths: Vec<PathBuf>,
    /// Run before pivot_root, found in the host's file system.
    pub create_container_hooks: Vec<Hook>,
    /// Run just before the program, found in the container's.
    pub start_container_hooks: Vec<Hook>,
    /// The OCI state for hooks of `create`.
    pub creating_state: String,
    /// The OCI state for hooks of `start`.
    pub created_state: String,
    /// The listening socket of the gate.
    pub gate: FdIndex,
    /// Join a new session keyring of this name.
    pub keyring: Option<String>,
    /// The program.
    pub process: Process,
}

/// The container's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// The tree.
    pub tree: Tree,
    /// Where hooks expect to find it: its place in the host's file system.
    pub path: PathBuf,
    /// `root.readonly`
    pub readonly: bool,
    /// `linux.rootfsPropagation`
    pub propagation: Option<(Propagation, bool)>,
    /// `--no-pivot`
    pub no_pivot: bool,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The field it came from, for instance `mounts[3]`.
    pub field: String,
    /// Its source in the words of the specification, for errors.
    pub shown_source: String,
    /// Resolved in the container's root, symbolic links included.
    pub destination: PathBuf,
    /// What is mounted.
    pub source: Source,
    /// Attributes of the mount.
    pub attributes: Attributes,
    /// Attributes of the whole tree (`rro` and the like).
    pub recursive_attributes: Attributes,
    /// Propagation types, each with whether it goes for the whole tree.
    pub propagation: Vec<(Propagation, bool)>,
    /// Read-only only once everything is mounted (/dev and the tmpfs above cgroups).
    pub readonly_at_last: bool,
    /// The SELinux label of its root.
    pub label: Option<String>,
    /// Links to make in it: name and target.
    pub links: Vec<(String, String)>,
}

/// Attributes to add and to take away: bits of `MOUNT_ATTR_*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// To add.
    pub set: u64,
    /// To take away.
    pub clear: u64,
}

/// A tree of the host's mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tree {
    /// Cloned by the runtime and attached nowhere.
    Cloned(FdIndex),
    /// To be cloned by the init, when its turn comes: the kernel lists mounts in the order in which they were made.
    /// Also what an ordinary user's runtime may not clone outside of the user namespace that the two have made.
    Path {
        /// On the host.
        path: PathBuf,
        /// With all that is mounted below.
        recursive: bool,
    },
    /// A part of the container's own root, with what was mounted in it so far.
    InRoot {
        /// In the container; no link in it leads out.
        path: PathBuf,
        /// With all that is mounted below.
        recursive: bool,
        /// The index for `MapOwners` if it is to be id-mapped.
        owners: Option<usize>,
    },
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A tree of the host.
    Tree {
        /// The tree.
        tree: Tree,
    },
    /// What is mounted there already: its attributes change, and options of its file system.
    Mounted {
        /// `key` or `key=value`.
        options: Vec<String>,
    },
    /// A file system that belongs into the container's namespaces.
    Filesystem {
        /// Its type.
        fstype: String,
        /// Its source, shown in /proc/self/mountinfo.
        source: Option<String>,
        /// Its own options, `key` or `key=value`.
        options: Vec<String>,
        /// Copy what the image has at the destination into it first.
        copy_up: bool,
    },
}

/// See `kernel::Propagation`, which has no serde.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Propagation {
    Private,
    Shared,
    Slave,
    Unbindable,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The field it came from.
    pub field: String,
    /// Where.
    pub path: PathBuf,
    /// Block, character or fifo.
    pub kind: DeviceKind,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The specification lists it, so that no other file may be there. A default one gives way.
    pub listed: bool,
    /// Bind the host's node of the same path, because mknod(2) is not allowed (user namespaces).
    pub bind: bool,
}

/// What kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Major and minor number.
    Block(u32, u32),
    /// Major and minor number.
    Character(u32, u32),
    /// A named pipe.
    Fifo,
}

/// A process in a running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// A pidfd of the container's init.
    pub container: FdIndex,
    /// `CLONE_NEW*` of the namespaces to join.
    pub namespaces: u32,
    /// The container's root, where its mount namespace has another.
    pub root: Option<FdIndex>,
    /// The container's session keyring, if it has one of its own.
    pub keyring: Option<String>,
    /// The program.
    pub process: Process,
}

/// The program and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// `process.args`
    pub args: Vec<String>,
    /// `process.env`, handed over exactly.
    pub env: Vec<String>,
    /// `process.cwd`
    pub cwd: PathBuf,
    /// `process.user.uid`
    pub uid: u32,
    /// `process.user.gid`
    pub gid: u32,
    /// `process.user.additionalGids`
    pub additional_gids: Vec<u32>,
    /// `process.user.umask`
    pub umask: Option<u32>,
    /// Standard input, output and error.
    pub stdio: Stdio,
    /// Descriptors to keep, from 3 on.
    pub preserved: Vec<FdIndex>,
    /// Scheduler, priorities, memory policy, execution domain.
    pub scheduling: Scheduling,
    /// `process.capabilities`
    pub capabilities: Capabilities,
    /// `RLIMIT_NOFILE`, soft and hard, where it leaves less than we need ourselves.
    pub few_descriptors: Option<(u64, u64)>,
    /// `process.noNewPrivileges`
    pub no_new_privileges: bool,
    /// `linux.seccomp`, compiled.
    pub seccomp: Option<Seccomp>,
    /// `process.apparmorProfile`, for the moment of the exec.
    pub apparmor_profile: Option<String>,
    /// `process.selinuxLabel`, for the moment of the exec.
    pub selinux_label: Option<String>,
}

/// Where standard input, output and error go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdio {
    /// Three descriptors.
    Fds([FdIndex; 3]),
    /// A new terminal of the container, of this many columns and rows.
    Terminal(Option<(u16, u16)>),
}

/// `process.capabilities`, one bit a capability.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

/// A seccomp filter, ready to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seccomp {
    /// An array of `struct sock_filter`.
    pub program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`; with `NEW_LISTENER` the runtime gets the listener.
    pub flags: u64,
}
