//! `configure`: registering this runtime in an engine's configuration.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

// Options of `configure`. No doc comment: it would be the command's help.
#[derive(Debug, Args)]
#[command(
    after_help = "What else is in the file stays, with its comments and order. The file as it was is kept \
    beside it, as FILE.lxcrun-backup; --remove reads there which default runtime to bring back. Where that can't be known, \
    because there is no backup or it names lxcrun, too, --remove changes nothing and says so."
)]
pub struct Configure {
    /// The engine
    #[arg(value_name = "ENGINE")]
    pub engine: EngineName,
    /// Print what the file would be, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Make it the default runtime
    #[arg(long)]
    pub default: bool,
    /// Use lxcrun's own shim, io.containerd.lxcrun.v2 (docker, containerd)
    #[arg(long)]
    pub shim: bool,
    /// Take out what this command has put in, and bring back the default runtime that it has replaced
    #[arg(long, conflicts_with_all = ["default", "shim"])]
    pub remove: bool,
    /// The configuration file [default: the engine's own]
    #[arg(long, value_name = "FILE", value_parser = super::path())]
    pub file: Option<PathBuf>,
    /// The program to register [default: this one]
    #[arg(long, value_name = "FILE", value_parser = super::path())]
    pub runtime: Option<PathBuf>,
}

/// An engine that can be told of runtimes by a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    /// Docker: /etc/docker/daemon.json
    Docker,
    /// Podman: /etc/containers/containers.conf, or ~/.config/containers/containers.conf
    Podman,
    /// containerd for Kubernetes: /etc/containerd/config.toml
    Containerd,
    /// CRI-O: /etc/crio/crio.conf.d/50-lxcrun.conf
    Crio,
}
