//! The process of an exec: joins a running container and becomes its program.

use std::os::fd::{AsFd, OwnedFd};

use protocol::Channel;
use protocol::init::{Exec, FromInit, Process, Stdio};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::failure::{Result, fail, refuse};
use crate::proc::Proc;
use crate::process::{Rights, Start};
use crate::root::Root;
use crate::{exit, labels, may_proceed, process, say, terminal};

/// Joins the container and becomes the program. Returns when that fails, or in the helper that stays outside.
pub fn run(control: &Channel, plan: &Exec, fds: Vec<OwnedFd>) -> Result<()> {
    // A process of the container that shares our PID namespace must not get at our descriptors.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| fail("prctl", e))?;
    let namespaces = ThreadNameSpaceType::from_bits_retain(plan.namespaces);
    if !namespaces.is_empty() {
        move_into_thread_name_spaces(fds[plan.container].as_fd(), namespaces)
            .map_err(|e| fail("joining the container's namespaces", e))?;
    }
    if let Some(root) = plan.root {
        rustix::process::fchdir(&fds[root]).map_err(|e| fail("the container's root", e))?;
        rustix::process::chroot(".").map_err(|e| fail("the container's root", e))?;
    }
    // A PID namespace is entered by children only. The child's parent is ours, so it can wait for it.
    match kernel::clone_sibling().map_err(|e| fail("a process in the container", e))? {
        kernel::Clone::Parent(_) => exit(0),
        kernel::Clone::Child => become_program(control, plan, fds),
    }
}

fn become_program(control: &Channel, plan: &Exec, fds: Vec<OwnedFd>) -> Result<()> {
    say(control, &FromInit::Hello)?;
    // The runtime puts this process into the container's cgroups.
    if !may_proceed(control) {
        return Ok(());
    }
    if plan.namespaces & ThreadNameSpaceType::USER.bits() != 0 {
        let root = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
        rustix::thread::set_thread_res_gid(root.1, root.1, root.1)
            .map_err(|e| fail("root of the user namespace", e))?;
        rustix::thread::set_thread_res_uid(root.0, root.0, root.0)
            .map_err(|e| fail("root of the user namespace", e))?;
    }
    let proc = Proc::mount().map_err(|e| fail("a procfs for the exec", e))?;
    // Not the caller's keys: those of the container.
    if let Some(name) = &plan.keyring {
        labels::label_keys(&plan.process, &proc, || crate::container::join_keyring(name))?;
    }
    rustix::process::setsid().map_err(|e| fail("setsid", e))?;
    let wanted = &plan.process;
    let program = process::find_program(wanted)?;
    let preserved: std::io::Result<Vec<OwnedFd>> =
        wanted.preserved.iter().map(|i| fds[*i].try_clone()).collect();
    let preserved = preserved.map_err(|e| fail("preserved descriptors", e))?;
    labels::set_for_exec(wanted, &proc)?;
    // The end of a terminal ends who leads its session: from here on nobody hears why something fails.
    let master = connect_stdio(wanted, &fds)?;
    drop(fds);
    let set_groups = proc.allows_setgroups();
    drop(proc);
    let masters: Vec<_> = master.iter().map(AsFd::as_fd).collect();
    control.send(&FromInit::Ready, &masters).map_err(|e| fail("the runtime does not listen", e))?;
    drop(master);
    if !may_proceed(control) {
        return Ok(());
    }
    let count = i32::try_from(preserved.len()).unwrap_or(i32::MAX);
    let report = rustix::io::fcntl_dupfd_cloexec(control, count.saturating_add(3));
    let report = Channel::from(report.map_err(|e| fail("the runtime's channel", e))?);
    // Its parent learns from its status how it ended.
    let note = &|_| {};
    let rights = Rights { set_groups, hand_over_listener: &|listener| hand_over(&report, &listener), note };
    let start = Start { hooks: &[], state: "", note };
    let given_up = process::give_up_rights(wanted, &rights, || process::settle(wanted, preserved));
    let failure = match given_up {
        Ok(env) => process::become_program(wanted, &program, env, &start),
        Err(failure) => failure,
    };
    let _ = report.send(&FromInit::Failed(failure), &[]);
    exit(0)
}

/// Connects standard input, output and error. Returns the master of the terminal that they are, if they are one.
fn connect_stdio(wanted: &Process, fds: &[OwnedFd]) -> Result<Option<OwnedFd>> {
    match wanted.stdio {
        Stdio::Fds([i, o, e]) => {
            process::connect_stdio(&fds[i], &fds[o], &fds[e], wanted.uid)?;
            Ok(None)
        }
        Stdio::Terminal(size) => {
            let root = Root::current().map_err(|e| fail("the container's root", e))?;
            let terminal = terminal::open(&root, size)?;
            process::connect_stdio(&terminal.slave, &terminal.slave, &terminal.slave, wanted.uid)?;
            rustix::process::ioctl_tiocsctty(&terminal.slave)
                .map_err(|e| fail("process.terminal: TIOCSCTTY", e))?;
            Ok(Some(terminal.master))
        }
    }
}

/// Hands the listener of a seccomp filter to the runtime, and returns when its agent has it.
pub fn hand_over(runtime: &Channel, listener: &OwnedFd) -> Result<()> {
    let sent = runtime.send(&FromInit::Listener, &[listener.as_fd()]);
    sent.map_err(|e| fail("linux.seccomp.listenerPath", e))?;
    if may_proceed(runtime) {
        return Ok(());
    }
    Err(refuse("linux.seccomp.listenerPath: nobody has the listener"))
}
