//! The exec driver: what a container daemon needs to run programs in LXC containers.
//!
//! A daemon holds one [`LxcDriver`] and gives it [`Command`]s. Each call blocks its thread, so a container that is
//! idle costs the daemon no more than the thread that waits for it, and many threads use one driver at once.
//!
//! ```no_run
//! use execdriver::{Command, Driver, LxcDriver, Pipes};
//!
//! let driver = LxcDriver::new()?;
//! let command = Command::builder("web", "/srv/images/busybox").args(["echo", "hello"]).build()?;
//! let mut output = Vec::new();
//! let status = driver.run(&command, Pipes::null().stdout(&mut output), &mut |started| {
//!     println!("its init is process {}", started.pid);
//! })?;
//! assert_eq!((status.exit_code, output.as_slice()), (0, b"hello\n".as_slice()));
//! # Ok::<(), execdriver::Error>(())
//! ```
//!
//! The road of a command: [`Command`] → [`Command::compile`] (an OCI specification; no input or output) →
//! [`lxcrun::create`] → start → wait → [`ExitStatus`]. Whatever the specification says is carried out by the crate
//! [`lxcrun`]; this one adds what the daemon's side needs: users by name, pipes, terminals, and one call that lasts
//! as long as the container.
//!
//! Whole programs are in `examples`: `daemon.rs` streams output, counts and terminates, `under_tokio.rs` has many containers
//! under an async runtime. What a build needs is in the repository's README, "In a Rust program".
#![forbid(unsafe_code)]

mod builder;
mod capabilities;
mod command;
mod device;
mod driver;
mod error;
mod fields;
mod host;
mod info;
mod lxc_driver;
mod mount;
mod namespace;
mod network;
mod pipes;
mod process;
mod pump;
mod resources;
mod running;
mod spec;
mod status;
mod terminal;
mod user;

pub use builder::CommandBuilder;
pub use capabilities::DEFAULT_CAPABILITIES;
pub use command::Command;
pub use device::Device;
pub use driver::{Driver, StartCallback, Started};
pub use error::{Error, Result};
pub use info::{Info, ResourceStats};
pub use lxc_driver::{DEFAULT_ROOT, LxcDriver, LxcDriverBuilder};
/// The library that carries commands out: its errors and statistics are part of this one's.
pub use lxcrun;
pub use lxcrun::oci_spec;
pub use lxcrun::{ContainerId, OomWatch, Signal, Status, parse_signal};
pub use mount::{Mount, Propagation};
pub use namespace::{IdMapping, Namespace, UserNamespace};
pub use network::{Address, Interface, InterfaceKind, Network};
pub use pipes::{Input, Output, Pipes};
pub use process::ProcessConfig;
pub use resources::{HugepageLimit, Resources, Rlimit};
/// System calls with types, among them poll(2) for descriptors as [`OomWatch`] is one.
pub use rustix;
pub use spec::Facts;
pub use status::ExitStatus;
pub use terminal::Terminal;
pub use user::User;

/// The example in the README is compiled with those of this crate.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
