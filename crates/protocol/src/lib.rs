//! What the runtime, the monitor and the init say to each other.
//!
//! Three processes make a container: the runtime (`lxcrun create`, or a program that embeds the library),
//! the monitor (which calls liblxc's `start`) and the init (pid 1 until it executes the program). The runtime
//! holds a socket to each of the others; they never talk to one another.
#![forbid(unsafe_code)]

mod channel;
mod hook;
pub mod init;
pub mod monitor;
mod scheduling;
mod words;

pub use channel::{Channel, Received};
pub use hook::{Hook, HookError, Watch};
pub use scheduling::{MemoryPolicy, Scheduler, Scheduling};
pub use words::words;
