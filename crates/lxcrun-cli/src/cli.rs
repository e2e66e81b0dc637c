//! The command line: clap only. Names and meanings are runc's, so that its clients need no wrapper.

mod checkpoint;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use checkpoint::{CgroupsMode, Checkpoint, Criu, Restore};

/// An OCI runtime that relies on LXC
#[derive(Debug, Parser)]
#[command(name = "lxcrun", disable_version_flag = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options before the command.
#[derive(Debug, Args)]
pub struct Global {
    /// Directory of the containers' state [default: /run/lxcrun, or $XDG_RUNTIME_DIR/lxcrun for other users than root]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// File that errors and warnings are also written to
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Format of the log
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Log more
    #[arg(long)]
    pub debug: bool,
    /// Let systemd make the cgroups: linux.cgroupsPath is "slice:prefix:name"
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Print the versions of lxcrun, of the specification and of liblxc
    #[arg(short = 'v', long, action = clap::ArgAction::SetTrue)]
    pub version: bool,
}

/// Format of the log.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// key=value
    Text,
    /// One JSON object a line
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a container from a bundle; its program waits for start
    Create(Create),
    /// Start the program of a created container
    Start(Id),
    /// Print a container's state as JSON
    State(Id),
    /// Send a signal to a container's init
    Kill(Kill),
    /// Remove a container
    Delete(Delete),
    /// Create and start a container, from a bundle or from a root file system
    Run(Box<Run>),
    /// List the containers of the state root
    List(List),
    /// Execute one more program in a running container
    Exec(Box<Exec>),
    /// List the processes of a container
    Ps(Ps),
    /// Freeze all processes of a container
    Pause(Id),
    /// Thaw all processes of a container
    Resume(Id),
    /// Change what a container may use
    Update(Box<Update>),
    /// Print events of a container as JSON: OOM kills, and with --stats what it uses
    Events(Events),
    /// Save a running container to image files
    Checkpoint(Box<Checkpoint>),
    /// Create a container from image files; it runs on where it was
    Restore(Box<Restore>),
    /// Write a config.json to begin with
    Spec(Spec),
    /// Print what this runtime can do, as JSON
    Features,
}

#[derive(Debug, Args)]
pub struct Id {
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Options that `create` and `run` share.
#[derive(Debug, Args)]
pub struct Bundle {
    /// The bundle: a directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Socket that gets the master of the program's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// File that gets the init's pid
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Do not use pivot_root, for a root file system on a ramdisk
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Pass so many descriptors to the program, from 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
}

#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    pub bundle: Bundle,
    /// The new container
    #[arg(value_name = "ID")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub bundle: Bundle,
    /// Do not wait for the program's end
    #[arg(short, long)]
    pub detach: bool,
    /// Keep the container after the program's end
    #[arg(long)]
    pub keep: bool,
    #[command(flatten)]
    pub friendly: Friendly,
    /// The new container, from a bundle
    #[arg(value_name = "ID", required_unless_present = "command")]
    pub id: Option<String>,
    /// The program and its arguments, after --: without a bundle
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Options of `run` without a bundle.
#[derive(Debug, Args)]
#[command(next_help_heading = "Without a bundle: lxcrun run [OPTIONS] -- CMD…")]
pub struct Friendly {
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Root file system [default: a busybox one]
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<PathBuf>,
    /// Limit of memory: bytes, or with k, m, g
    #[arg(short, long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Limit of processor time: 0.5 is half a processor
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<f64>,
    /// Limit of processes and threads
    #[arg(long, value_name = "NUMBER")]
    pub pids: Option<i64>,
    /// Host name [default: the container's name]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Environment variable; without a value it is taken over from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// User: uid or uid:gid
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// Mount: type=bind,source=DIR,destination=DIR[,ro], or type=tmpfs,destination=DIR[,OPTION…]
    #[arg(long, value_name = "MOUNT")]
    pub mount: Vec<String>,
    /// Network: none (a loopback of its own) or host
    #[arg(long, value_name = "NETWORK", default_value = "none")]
    pub network: Network,
    /// Raw LXC setting, for instance lxc.prlimit.nofile=512
    #[arg(long, value_name = "KEY=VALUE")]
    pub lxc_conf: Vec<String>,
    /// Make the root file system read-only
    #[arg(long)]
    pub read_only: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    pub tty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Network {
    None,
    Host,
}

#[derive(Debug, Args)]
pub struct Kill {
    /// Signal all processes
    #[arg(short, long)]
    pub all: bool,
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,
    /// Name or number
    #[arg(value_name = "SIGNAL", default_value = "SIGTERM")]
    pub signal: String,
}

#[derive(Debug, Args)]
pub struct Delete {
    /// Kill it first if it runs; one that does not exist is no failure
    #[arg(short, long)]
    pub force: bool,
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct List {
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
}

/// How to print a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub struct Exec {
    /// Socket that gets the master of the terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Environment variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// User: uid or uid:gid
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// Supplementary groups
    #[arg(short = 'g', long, value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// File with the process as JSON
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Do not wait for its end
    #[arg(short, long)]
    pub detach: bool,
    /// File that gets the pid
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// It can gain no privileges
    #[arg(long)]
    pub no_new_privs: bool,
    /// Capability to add
    #[arg(short, long, value_name = "CAP")]
    pub cap: Vec<String>,
    /// Pass so many descriptors to it, from 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Cgroup below the container's to put it into: PATH, or CONTROLLER:PATH
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<String>,
    /// Go on although the container is paused
    #[arg(long)]
    pub ignore_paused: bool,
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,
    /// The program and its arguments
    #[arg(
        value_name = "CMD",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required_unless_present = "process"
    )]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Ps {
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,
    /// Options of ps(1)
    #[arg(value_name = "PS OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Events {
    /// Print what it uses, every so often: 5s, 500ms
    #[arg(long, value_name = "TIME", default_value = "5s")]
    pub interval: String,
    /// Print what it uses, once
    #[arg(long)]
    pub stats: bool,
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct Update {
    /// File with linux.resources as JSON; - is standard input
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Weight of block IO, 10 to 1000
    #[arg(long, value_name = "NUMBER")]
    pub blkio_weight: Option<u16>,
    /// Period of the processor quota, in µs
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<u64>,
    /// Processor time in each period, in µs; -1 is no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Processor time that can be saved up, in µs
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_burst: Option<u64>,
    /// Relative weight of processor time
    #[arg(long, value_name = "NUMBER")]
    pub cpu_share: Option<u64>,
    /// Period of the realtime quota, in µs
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_rt_period: Option<u64>,
    /// Realtime processor time in each period, in µs
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// Processors
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Limit of memory: bytes, or with k, m, g; -1 is none
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Memory that is left alone when others want some
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// Limit of memory and swap together; -1 is none
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Limit of processes and threads; -1 is none
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Only run when nothing else wants the processor
    #[arg(long, value_name = "0|1")]
    pub cpu_idle: Option<i64>,
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct Spec {
    /// Directory for config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
}
