//! Containers carried out by LXC: the library behind the `lxcrun` command.
//!
//! A container's life, a file for each step: [`Bundle`] → `config` (specification to plan, no input or output) →
//! [`create`] → `monitor` (the process that calls liblxc) → [`Container::start`] → [`Container::exec`] →
//! [`Container::kill`] → [`delete`]; what is remembered meanwhile is in `state` and `state_dir`, what it may use in `cgroup`.
#![forbid(unsafe_code)]

mod apparmor;
mod bundle;
mod busybox;
mod cgroup;
mod checkpoint;
mod config;
mod console;
mod container;
mod create;
mod criu;
mod delete;
pub mod doctor;
mod embedded;
mod error;
mod exec;
mod export;
mod facts;
mod features;
mod helper;
mod host;
mod id;
mod json;
mod kill;
mod listener;
mod log;
mod monitor;
mod mounts;
mod netdevices;
mod netlink;
mod notify;
mod pid_file;
mod process;
mod resctrl;
mod restore;
mod rootless;
mod start;
mod state;
mod state_dir;
mod systemd;
mod template;

pub use bundle::{Bundle, OCI_VERSION, parse_process, parse_resources};
pub use busybox::find_busybox;
pub use cgroup::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, CpusetStats, HugetlbStats, MemoryEvents, MemoryStats,
    MemoryUsage, NetworkInterface, OomWatch, PidsStats, Pressure, PressureLine, ResourceStats, Throttling,
    cgroups_are_unified, enter_cgroup,
};
pub use checkpoint::CheckpointOptions;
pub use config::{ANNOTATION_PREFIX, SYSTEM_CONFIG};
pub use container::Container;
pub use create::{CreateOptions, create};
pub use criu::CgroupsMode;
pub use delete::{cancel_creation, delete};
pub use embedded::cache_directory;
pub use error::{Error, Result};
pub use exec::{ExecOptions, ExecProcess};
pub use export::plain_lxc_config;
pub use facts::{capability_names, find_liblxc, liblxc_version, libseccomp_version};
pub use features::features;
pub use host::Host;
pub use id::ContainerId;
pub use kill::parse_signal;
pub use log::log_to;
pub use notify::NotifySocket;
pub use oci_spec;
pub use protocol::init::{Failure, FailureKind};
pub use protocol::monitor::Exit;
pub use restore::{RestoreOptions, restore};
pub use rootless::{is_ordinary_user, user_name};
pub use rustix::process::Signal;
pub use state::{OciState, ProcessId, Status};
pub use template::{DEFAULT_SPEC, default_spec, fit_to_host, rootless_spec};
