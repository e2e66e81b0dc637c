//! Options of `checkpoint` and `restore`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::path;

// Options that the two share. No doc comment: it would be the commands' help.
#[derive(Debug, Args)]
pub struct Criu {
    /// Directory of the images [default: checkpoint]
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub image_path: Option<PathBuf>,
    /// Directory for CRIU's log and other files
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub work_path: Option<PathBuf>,
    /// Save or restore open TCP connections
    #[arg(long)]
    pub tcp_established: bool,
    /// Give a name to files that are open but deleted
    #[arg(long)]
    pub link_remap: bool,
    /// Allow unix sockets whose other end is outside
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Allow a terminal from outside
    #[arg(long)]
    pub shell_job: bool,
    /// Save or restore file locks
    #[arg(long)]
    pub file_locks: bool,
    /// Leave memory behind, or fetch it when it is needed (userfaultfd)
    #[arg(long)]
    pub lazy_pages: bool,
    /// What to do about cgroups [default: soft]
    #[arg(long, value_name = "MODE")]
    pub manage_cgroups_mode: Option<CgroupsMode>,
    /// Namespace to make without what was in it: network, which is always so
    #[arg(long, value_name = "NAMESPACE")]
    pub empty_ns: Vec<EmptyNamespace>,
    /// Free memory that several images have
    #[arg(long)]
    pub auto_dedup: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CgroupsMode {
    Soft,
    Full,
    Strict,
    Ignore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EmptyNamespace {
    Network,
}

#[derive(Debug, Args)]
pub struct Checkpoint {
    #[command(flatten)]
    pub criu: Criu,
    /// Images that these build on: a directory relative to that of the images
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub parent_path: Option<PathBuf>,
    /// Let the container run on
    #[arg(long)]
    pub leave_running: bool,
    /// Leave out TCP connections that are being made
    #[arg(long)]
    pub tcp_skip_in_flight: bool,
    /// Descriptor that gets a zero byte when lazy pages can be fetched
    #[arg(long, value_name = "FD", allow_hyphen_values = true)]
    pub status_fd: Option<i32>,
    /// Page server that takes the memory
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub page_server: Option<String>,
    /// Save memory only, and let the container run on
    #[arg(long)]
    pub pre_dump: bool,
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct Restore {
    #[command(flatten)]
    pub criu: Criu,
    /// The bundle: a directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Socket that gets the master of the program's terminal
    #[arg(long, value_name = "SOCKET", value_parser = path())]
    pub console_socket: Option<PathBuf>,
    /// File that gets the init's pid
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub pid_file: Option<PathBuf>,
    /// Do not wait for the program's end
    #[arg(short, long)]
    pub detach: bool,
    /// Without effect: lxcrun never adopts processes of others
    #[arg(long)]
    pub no_subreaper: bool,
    /// Without effect: CRIU changes the root
    #[arg(long)]
    pub no_pivot: bool,
    /// LSM profile in place of the saved one
    #[arg(long, value_name = "TYPE:NAME")]
    pub lsm_profile: Option<String>,
    /// LSM context of mounts in place of the saved one
    #[arg(long, value_name = "CONTEXT")]
    pub lsm_mount_context: Option<String>,
    /// The new container
    #[arg(value_name = "ID")]
    pub id: String,
}
