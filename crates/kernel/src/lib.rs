//! The Linux system calls that rustix does not offer, each behind one typed function, and tables of /proc that more than one
//! crate reads.
//!
//! Unsafe code lives here and in the `lxc` crate, nowhere else.

mod bpf;
mod code;
mod copy;
mod fds;
mod heap;
mod keyring;
mod loops;
mod mount;
mod mountinfo;
mod process;
mod scheduling;
mod seccomp;
mod shared;
mod signal;
mod stack;
mod userns;

pub use bpf::{BpfInstruction, attach_device_program, device_programs, load_device_program};
pub use code::free_code;
pub use copy::copy_tree;
pub use fds::{close_on_exec_from, close_range, open_among, place_from, take_inherited};
pub use heap::{free_memory, share_one_heap};
pub use keyring::join_session_keyring;
pub use loops::{LoopOptions, attach_loop};
pub use mount::{MountAttr, Propagation, set_mount_attributes};
pub use mountinfo::{MountInfo, MountedFilesystem, unescaped};
pub use process::{
    Clone, clone_child, clone_sibling, exit, rename, status_after_reaping, statuses_outlive_reaping,
};
pub use scheduling::{
    SchedulerAttributes, every_processor, set_io_priority, set_memory_policy, set_personality, set_scheduler,
};
pub use seccomp::{gives_listener, load_filter, seccomp_flag_is_known};
pub use shared::{SharedNumber, read_shared};
pub use signal::{ChildNote, block_none_in, keep_children, note_child_in, reset_signals, signal_of};
pub use stack::lxcrun_pthread_getattr_np;
pub use userns::{
    NewUserNamespace, new_user_namespace, outside_of, owner_of, user_namespace, user_namespace_mappings,
};

use rustix::io::{Errno, Result};

/// Turns the C convention (-1 and `errno`) into a `Result`.
fn check(ret: libc::c_long) -> Result<libc::c_long> {
    if ret < 0 { Err(last_errno()) } else { Ok(ret) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
