//! The command line: clap only. Names and meanings are runc's, so that its clients need no wrapper.

mod checkpoint;
mod configure;
mod friendly;
mod go;
mod update;

use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub use checkpoint::{CgroupsMode, Checkpoint, Criu, Restore};
pub use configure::{Configure, EngineName};
pub use friendly::{Friendly, Network};
pub use update::Update;

/// A path. Unlike clap's own it may be empty, which is as if it were not given: runc's callers rely on that.
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// The path, if one was given.
pub fn given(path: &Option<PathBuf>) -> Option<&Path> {
    path.as_deref().filter(|path| !path.as_os_str().is_empty())
}

/// The name that this program was called by. As in runc it is the one that help, version and errors say.
pub fn program() -> String {
    let called = std::env::args_os().next().map(PathBuf::from);
    let name = called.as_deref().and_then(Path::file_name).filter(|name| !name.is_empty());
    name.map_or_else(|| "lxcrun".into(), |name| name.to_string_lossy().into_owned())
}

/// Help in the order of runc's.
fn help_template(name: &str) -> String {
    format!("NAME:\n   {name} - {{about}}\n\nUSAGE:\n   {{usage}}\n\n{{all-args}}{{after-help}}\n")
}

/// Open Container Initiative runtime that relies on LXC
// As in runc the last of an option's values counts: podman gives some twice.
#[derive(Debug, Parser)]
#[command(
    name = "lxcrun",
    disable_version_flag = true,
    arg_required_else_help = true,
    after_help = "The commands and options are runc's; what lxcrun has besides says so.",
    args_override_self = true
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// What this process was called with.
    pub fn of_caller() -> Result<Self, clap::Error> {
        let program = program();
        let command = Self::command().help_template(help_template(&program)).mut_subcommands(|command| {
            let name = format!("{program} {}", command.get_name());
            command.help_template(help_template(&name))
        });
        let arguments = go::as_go_reads(&command, std::env::args_os().collect());
        Self::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }
}

/// Options before the command.
#[derive(Debug, Args)]
pub struct Global {
    /// Directory of the containers' state [default: /run/lxcrun, or $XDG_RUNTIME_DIR/lxcrun for other users than root]
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub root: Option<PathBuf>,
    /// File that errors and warnings are also written to
    #[arg(long, value_name = "FILE", value_parser = path())]
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
    /// Whether cgroups may be out of reach: the kernel is asked, and what it refuses is an error in any case
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub rootless: Rootless,
    /// Obsolete and without effect, as in runc: criu is looked for on the PATH
    #[arg(long, value_name = "FILE", hide = true, value_parser = path())]
    pub criu: Option<PathBuf>,
    /// Print the versions of lxcrun, of the specification and of liblxc
    #[arg(short = 'v', long, action = clap::ArgAction::SetTrue)]
    pub version: bool,
}

/// Format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// key=value
    Text,
    /// One JSON object a line
    Json,
}

/// runc's `--rootless`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rootless {
    True,
    False,
    Auto,
}

/// What to do. The options of a command are made when it is the one: those of all together are most of what a short
/// command does.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
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
    /// Print what this host can do, what is missing, and how to mend it (lxcrun only)
    Doctor(Doctor),
    /// Register this runtime with docker, podman, containerd or crio (lxcrun only)
    Configure(Configure),
    /// Print a plain LXC configuration for a bundle, to run it without lxcrun (lxcrun only)
    LxcConfig(LxcConfig),
    /// Print the completions of a shell: bash, zsh, fish (lxcrun only)
    Completion(Completion),
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man(Man),
}

#[derive(Debug, Args)]
pub struct Id {
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,
}

// Options that `create` and `run` share. A doc comment here, as on any struct of options, would be the commands' help.
#[derive(Debug, Args)]
pub struct Bundle {
    /// The bundle: a directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".", value_parser = path())]
    pub bundle: PathBuf,
    /// Socket that gets the master of the program's terminal
    #[arg(long, value_name = "SOCKET", value_parser = path())]
    pub console_socket: Option<PathBuf>,
    /// Socket that gets a pidfd of the init
    #[arg(long, value_name = "SOCKET", value_parser = path())]
    pub pidfd_socket: Option<PathBuf>,
    /// File that gets the init's pid
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub pid_file: Option<PathBuf>,
    /// Obsolete and without effect: lxcrun is no subreaper
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
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
    #[arg(value_name = "ID", required_unless_present = "command", conflicts_with = "Friendly")]
    pub id: Option<String>,
    /// The program and its arguments, after --: without a bundle
    #[arg(last = true, value_name = "CMD", conflicts_with = "bundle")]
    pub command: Vec<String>,
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
    #[arg(long, value_name = "SOCKET", value_parser = path())]
    pub console_socket: Option<PathBuf>,
    /// Socket that gets a pidfd of the process
    #[arg(long, value_name = "SOCKET", value_parser = path())]
    pub pidfd_socket: Option<PathBuf>,
    /// Working directory
    #[arg(long, value_name = "DIR", value_parser = path())]
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
    /// Supplementary group, besides those of the container's user
    #[arg(short = 'g', long, value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// File with the process as JSON; CMD and the options that describe a process have no effect beside it, as in runc
    #[arg(short, long, value_name = "FILE", value_parser = path())]
    pub process: Option<PathBuf>,
    /// Do not wait for its end
    #[arg(short, long)]
    pub detach: bool,
    /// File that gets the pid
    #[arg(long, value_name = "FILE", value_parser = path())]
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
    /// Obsolete and without effect: lxcrun is no subreaper
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
    /// Pass so many descriptors to it, from 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Cgroup below the container's to put it into: PATH, or CONTROLLER:PATH
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<String>,
    /// Go on although the container is paused
    #[arg(long)]
    pub ignore_paused: bool,
    // One list, because whatever comes after the id is the program's, as in runc.
    /// The container, and the program with its arguments
    #[arg(value_names = ["ID", "CMD"], required = true, num_args = 1.., trailing_var_arg = true)]
    pub words: Vec<String>,
}

impl Command {
    /// The id of the one container that it is about, as the caller wrote it.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Create(args) => Some(&args.id),
            Self::Start(args) | Self::State(args) | Self::Pause(args) | Self::Resume(args) => Some(&args.id),
            Self::Kill(args) => Some(&args.id),
            Self::Delete(args) => Some(&args.id),
            Self::Run(args) => args.id.as_deref().or(args.friendly.name.as_deref()),
            Self::Exec(args) => Some(args.id()),
            Self::Ps(args) => Some(args.id()),
            Self::Update(args) => Some(&args.id),
            Self::Events(args) => Some(&args.id),
            Self::Checkpoint(args) => Some(&args.id),
            Self::Restore(args) => Some(&args.id),
            Self::List(_)
            | Self::Spec(_)
            | Self::Features
            | Self::Doctor(_)
            | Self::Configure(_)
            | Self::LxcConfig(_)
            | Self::Completion(_)
            | Self::Man(_) => None,
        }
    }
}

impl Exec {
    pub fn id(&self) -> &str {
        id_of(&self.words)
    }

    /// The program and its arguments; `--` before them is none of it.
    pub fn command(&self) -> &[String] {
        match after_id(&self.words) {
            [dashes, command @ ..] if dashes == "--" => command,
            command => command,
        }
    }
}

fn id_of(words: &[String]) -> &str {
    words.first().map_or("", String::as_str)
}

fn after_id(words: &[String]) -> &[String] {
    words.get(1..).unwrap_or_default()
}

#[derive(Debug, Args)]
pub struct Ps {
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
    /// The container, and options of ps(1)
    #[arg(value_names = ["ID", "PS OPTIONS"], required = true, num_args = 1.., trailing_var_arg = true)]
    pub words: Vec<String>,
}

impl Ps {
    pub fn id(&self) -> &str {
        id_of(&self.words)
    }

    /// The options of ps(1).
    pub fn options(&self) -> &[String] {
        after_id(&self.words)
    }
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
pub struct Spec {
    /// Directory for config.json
    #[arg(short, long, value_name = "DIR", default_value = ".", value_parser = path())]
    pub bundle: PathBuf,
    /// For a user other than root: with a user namespace, without limits
    #[arg(long)]
    pub rootless: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is 0 when containers can run, and 1 when something that they need is missing."
)]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct LxcConfig {
    /// The bundle: a directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".", value_parser = path())]
    pub bundle: PathBuf,
}

#[derive(Debug, Args)]
pub struct Completion {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct Man {
    /// The directory
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}
