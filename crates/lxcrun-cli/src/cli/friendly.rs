//! `run` without a bundle: a container from options.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

// Options of `run` without a bundle. No doc comment: it would be the command's help.
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
    /// Mount, as Docker writes it: type=bind,source=DIR,destination=DIR[,readonly], or type=tmpfs,destination=DIR[,tmpfs-size=SIZE];
    /// other options are those of mount(8)
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
