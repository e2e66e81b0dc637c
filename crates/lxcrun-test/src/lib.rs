//! The harness of the black-box suite: it drives an OCI runtime through its command line alone, so that the
//! same tests run on lxcrun and, to check the tests, on its peers (`RUNTIME=runc`).
//!
//! ```no_run
//! use lxcrun_test::Bundle;
//! Bundle::busybox().args(["sh", "-c", "exit 42"]).run().assert_exit(42);
//! ```
//!
//! Every [`Container`] looks for leaks when it is dropped: a test that leaves a process, a cgroup, a state
//! directory or a mount behind fails, whatever it was about.
#![forbid(unsafe_code)]

mod agent;
mod bundle;
mod cgroup;
mod console;
mod container;
mod helper;
mod host;
mod output;
mod runtime;
mod suite;
mod wait;

pub mod engines;

pub use agent::{Notifications, SeccompAgent};
pub use bundle::Bundle;
pub use cgroup::{
    Cgroups, Hierarchy, all as all_cgroups, hierarchies, is_v2, parent as cgroup_parent,
    remove_plain_directories,
};
pub use console::{ConsoleSocket, Pty};
pub use container::Container;
pub use helper::subreaper_command;
pub use host::{HostSnapshot, Process, interfaces};
pub use output::Output;
pub use runtime::{Call, Running, Runtime, on_path};
pub use suite::{Need, Test, differing, main, scratch};
pub use wait::{DEADLINE, Fifo, pidfd, read_line, readable, until_exit};
