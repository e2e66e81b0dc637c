//! The life of a container's init, top to bottom.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use kernel::SharedNumber;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use protocol::init::{Container, FailureKind, FromGate, FromInit, Propagation, Stdio, ToGate};
use protocol::monitor::CGROUPS;
use protocol::{Channel, Received};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{DumpableBehavior, chdir, fchdir, pivot_root, set_dumpable_behavior};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, sched_setaffinity};

use crate::failure::{Result, fail, refuse};
use crate::proc::Proc;
use crate::process::{Rights, Start};
use crate::root::{Missing, Root};
use crate::terminal::Terminal;
use crate::{devices, exec, exit, labels, may_proceed, mounts, no_pivot, process, say, terminal};

/// Makes the container around this process and becomes its program. Returns when that fails, or when the
/// runtime is gone.
pub fn run(control: &Channel, plan: &Container, fds: Vec<OwnedFd>) -> Result<()> {
    // Nobody who shares our PID namespace gets at our descriptors.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| fail("prctl", e))?;
    rustix::process::umask(rustix::fs::Mode::empty());
    let proc = enter_namespaces(plan, &fds)?;
    let root = attach_root(plan, &fds)?;
    let mut mounted = Vec::new();
    for mount in &plan.mounts {
        mounted.push((mount, mounts::attach(&root, mount, &fds, control)?));
    }
    // A /dev that is somebody else's stays as it is.
    if plan.dev_links {
        for device in &plan.devices {
            devices::create(&root, device)?;
        }
        devices::link(&root)?;
    }
    let terminal = open_terminal(plan, &root)?;
    say(control, &FromInit::Mounted)?;
    if !may_proceed(control) {
        return Ok(());
    }

    run_create_container_hooks(plan, &root)?;
    root.resolve(&plan.process.cwd, Missing::Directory)
        .map_err(|e| fail(format!("process.cwd ({})", plan.process.cwd.display()), e))?;
    protect_paths(plan, &root)?;
    mounts::finish(&mounted)?;
    drop(mounted);
    change_root(plan, &root, &proc, &fds)?;
    drop(root);
    name_host(plan)?;
    for (key, value) in &plan.sysctl {
        set_sysctl(&proc, key, value)
            .map_err(|e| fail(format!("linux.sysctl.{key}: cannot set {value:?}"), e))?;
    }
    if let Some(name) = &plan.keyring {
        labels::label_keys(&plan.process, &proc, || join_keyring(name))?;
    }
    let (program, preserved) = prepare_process(plan, terminal.as_ref(), &fds)?;
    labels::set_for_exec(&plan.process, &proc)?;
    let set_groups = proc.allows_setgroups();
    drop(proc);
    let gate = fds[plan.gate].try_clone().map_err(|e| fail("the gate", e))?;
    drop(fds);
    start(control, plan, Ready { terminal, program, preserved, set_groups, gate })
}

/// A container that is complete but for its program.
struct Ready {
    terminal: Option<Terminal>,
    program: PathBuf,
    preserved: Vec<OwnedFd>,
    set_groups: bool,
    gate: OwnedFd,
}

/// Waits at the gate for `start`, gives up rights, and becomes the program.
fn start(control: &Channel, plan: &Container, ready: Ready) -> Result<()> {
    let Ready { terminal, program, preserved, set_groups, gate } = ready;
    // Before the limits of the program, which may be allowed no file.
    let (step, shared) = SharedNumber::new().map_err(|e| fail("memory to share with start", e))?;
    let note = &|next| step.set(next as u32);
    let rights =
        Rights { set_groups, hand_over_listener: &|listener| exec::hand_over(control, &listener), note };
    // An agent expects to hear of `create`. What else has a filter may forbid all that it takes to wait at the gate.
    let given_up = process::has_listener(&plan.process)
        .then(|| process::give_up_rights(&plan.process, &rights, || Ok(())))
        .transpose()?;
    match terminal {
        Some(Terminal { master, slave: _ }) => control.send(&FromInit::Ready, &[master.as_fd()]),
        None => control.send(&FromInit::Ready, &[]),
    }
    .map_err(|e| fail("the runtime does not listen", e))?;
    if !may_proceed(control) {
        return Ok(());
    }

    let starter = wait_for_start(&gate, shared)?;
    drop(gate);
    let count = i32::try_from(preserved.len()).unwrap_or(i32::MAX);
    let starter = rustix::io::fcntl_dupfd_cloexec(&starter, count.saturating_add(3));
    let starter = Channel::from(starter.map_err(|e| fail("the gate", e))?);
    let settle = || process::settle(&plan.process, preserved);
    let rights = match given_up {
        Some(env) => settle().map(|()| env),
        None => process::give_up_rights(&plan.process, &rights, settle),
    };
    let start = Start { hooks: &plan.start_container_hooks, state: &plan.created_state, note };
    let failure = match rights {
        Ok(env) => process::become_program(&plan.process, &program, env, &start),
        Err(failure) => failure,
    };
    // `start` may have been killed meanwhile; the exit of this process tells the rest.
    let _ = starter.send(&FromGate::Failed(failure.clone()), &[]);
    end(failure.kind)
}

/// Those that liblxc has not made, and returns the procfs of the PID namespace.
fn enter_namespaces(plan: &Container, fds: &[OwnedFd]) -> Result<Proc> {
    if plan.new_cgroup_namespace {
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(|e| fail("linux.namespaces: cgroup", e))?;
    }
    if plan.new_ipc_namespace {
        unshare(CloneFlags::CLONE_NEWIPC).map_err(|e| fail("linux.namespaces: ipc", e))?;
    }
    if let Some(namespace) = plan.cgroup_namespace {
        let kind = Some(LinkNameSpaceType::ControlGroup);
        move_into_link_name_space(fds[namespace].as_fd(), kind)
            .map_err(|e| fail("linux.namespaces: cgroup", e))?;
    }
    let proc = Proc::mount().map_err(|e| fail("a procfs for the init", e))?;
    if let Some(offsets) = &plan.time_namespace {
        enter_time_namespace(&proc, offsets)?;
    }
    if let Some(namespace) = plan.joined_time_namespace {
        move_into_link_name_space(fds[namespace].as_fd(), Some(LinkNameSpaceType::Time))
            .map_err(|e| fail("linux.namespaces: time", e))?;
    }
    Ok(proc)
}

fn run_create_container_hooks(plan: &Container, root: &Root) -> Result<()> {
    // Hooks may count them.
    use_every_processor();
    if plan.cgroups_hidden && !plan.create_container_hooks.is_empty() {
        unmount(CGROUPS, UnmountFlags::DETACH).map_err(|e| fail("showing the host's cgroups to hooks", e))?;
    }
    // In the root, as in runc; by descriptor, because its path may lead through what only its owner may enter.
    fchdir(root.as_fd()).map_err(|e| fail("root.path", e))?;
    for hook in &plan.create_container_hooks {
        hook.run(&plan.creating_state, Path::new("."))
            .map_err(|e| refuse(format!("error running hook: {e}")))?;
    }
    Ok(())
}

/// Those of its cgroup, whatever the caller's are, and for all that the monitor has kept us on one: only the cgroup limits a
/// container. Where choosing is forbidden the monitor has not chosen either, and the limit is the caller's.
fn use_every_processor() {
    let _ = sched_setaffinity(None, &kernel::every_processor());
}

/// Makes a time namespace and enters it. Its offsets can be set only while it is empty.
fn enter_time_namespace(proc: &Proc, offsets: &str) -> Result<()> {
    let flag = CloneFlags::from_bits_retain(ThreadNameSpaceType::TIME.bits().cast_signed());
    unshare(flag).map_err(|e| fail("linux.namespaces: time", e))?;
    if !offsets.is_empty() {
        proc.write("self/timens_offsets", offsets).map_err(|e| fail("linux.timeOffsets", e))?;
    }
    let namespace =
        proc.open_namespace("time_for_children").map_err(|e| fail("linux.namespaces: time", e))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Time))
        .map_err(|e| fail("linux.namespaces: time", e))
}

/// Attaches the root file system where hooks expect it, and holds it open.
fn attach_root(plan: &Container, fds: &[OwnedFd]) -> Result<Root> {
    let tree = mounts::open(&plan.rootfs.tree, fds).map_err(|e| fail("root.path", e))?;
    // What the host mounts below its path later is not the container's; what is mounted there already goes on to follow the host.
    mounts::propagate(&tree, Propagation::Private, false)
        .map_err(|e| fail("root.path: cannot be made private", e))?;
    let attached = match mounts::move_to_path(&tree, &plan.rootfs.path) {
        // In a user namespace we may not go where it is. Then hooks can't either, and any place will do.
        Err(Errno::ACCESS) => mounts::move_to_path(&tree, Path::new("/")),
        attached => attached,
    };
    attached
        .map_err(|e| fail(format!("root.path ({}): cannot be attached", plan.rootfs.path.display()), e))?;
    Ok(Root::new(tree))
}

fn open_terminal(plan: &Container, root: &Root) -> Result<Option<Terminal>> {
    let Stdio::Terminal(size) = plan.process.stdio else { return Ok(None) };
    let terminal = terminal::open(root, size)?;
    terminal::bind_console(root, &terminal)?;
    Ok(Some(terminal))
}

fn protect_paths(plan: &Container, root: &Root) -> Result<()> {
    for path in &plan.readonly_paths {
        mounts::make_readonly(root, path)
            .map_err(|e| fail(format!("linux.readonlyPaths ({})", path.display()), e))?;
    }
    let mut empty = None;
    for path in &plan.masked_paths {
        mounts::mask(root, path, &mut empty)
            .map_err(|e| fail(format!("linux.maskedPaths ({})", path.display()), e))?;
    }
    Ok(())
}

/// Makes the new root the only one: the host's file systems are gone from this namespace afterwards.
fn change_root(plan: &Container, root: &Root, proc: &Proc, fds: &[OwnedFd]) -> Result<()> {
    let step = |what: &'static str| move |e: rustix::io::Errno| fail(what, e);
    if plan.rootfs.readonly {
        let readonly = protocol::init::Attributes { set: kernel::MountAttr::RDONLY.bits(), clear: 0 };
        mounts::set(root.as_fd(), false, readonly).map_err(step("root.readonly"))?;
    }
    fchdir(root.as_fd()).map_err(step("root.path"))?;
    if let Some(namespace) = plan.mount_namespace {
        // Others live in it, and in its root: what was mounted here comes along attached nowhere, and goes with the container.
        let tree = mounts::clone_all(root.as_fd()).map_err(step("root.path"))?;
        move_into_link_name_space(fds[namespace].as_fd(), Some(LinkNameSpaceType::Mount))
            .map_err(step("linux.namespaces: mount"))?;
        fchdir(&tree).map_err(step("root.path"))?;
        rustix::process::chroot(".").map_err(step("root.path: chroot"))?;
    } else if plan.rootfs.no_pivot {
        no_pivot::change_root(proc, &plan.rootfs.path)?;
    } else {
        // Both at once: the old root ends up on top of the new one and is then taken away (pivot_root(2), NOTES).
        pivot_root(".", ".").map_err(step("pivot_root"))?;
        unmount(".", UnmountFlags::DETACH).map_err(step("detaching the host's root"))?;
    }
    chdir("/").map_err(step("root.path"))?;
    if let Some((propagation, recursive)) = plan.rootfs.propagation {
        let new = Root::current().map_err(step("root.path"))?;
        mounts::propagate(new.as_fd(), propagation, recursive).map_err(step("linux.rootfsPropagation"))?;
    }
    Ok(())
}

fn name_host(plan: &Container) -> Result<()> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).map_err(|e| fail("hostname", e))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).map_err(|e| fail("domainname", e))?;
    }
    Ok(())
}

/// Writes one sysctl. A name has dots between its parts, or slashes: then its dots are dots (sysctl.d(5)).
fn set_sysctl(proc: &Proc, key: &str, value: &str) -> rustix::io::Result<()> {
    let path = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    proc.write(&format!("sys/{path}"), value)
}

pub fn join_keyring(name: &str) -> Result<()> {
    let name = std::ffi::CString::new(name).map_err(|e| fail("the session keyring", e))?;
    kernel::join_session_keyring(&name).map_err(|e| fail("the session keyring", e))
}

/// What can be prepared and checked before `start`.
fn prepare_process(
    plan: &Container,
    terminal: Option<&Terminal>,
    fds: &[OwnedFd],
) -> Result<(PathBuf, Vec<OwnedFd>)> {
    let wanted = &plan.process;
    match (&wanted.stdio, terminal) {
        (Stdio::Fds([i, o, e]), _) => process::connect_stdio(&fds[*i], &fds[*o], &fds[*e], wanted.uid)?,
        (Stdio::Terminal(_), Some(t)) => {
            process::connect_stdio(&t.slave, &t.slave, &t.slave, wanted.uid)?;
            // liblxc has made us a session leader already.
            rustix::process::ioctl_tiocsctty(&t.slave).map_err(|e| fail("process.terminal: TIOCSCTTY", e))?;
        }
        (Stdio::Terminal(_), None) => {}
    }
    let preserved: std::io::Result<Vec<OwnedFd>> =
        wanted.preserved.iter().map(|i| fds[*i].try_clone()).collect();
    let preserved = preserved.map_err(|e| fail("preserved descriptors", e))?;
    Ok((process::find_program(wanted)?, preserved))
}

/// Accepts connections until one says `Start`: others only asked whether we still wait. Each gets the memory to read our
/// step from. Until then no file is open, which would look like one that was forgotten: the memory's descriptor lies in a socket.
fn wait_for_start(gate: &OwnedFd, mut step: OwnedFd) -> Result<OwnedFd> {
    let (put, get) = Channel::pair().map_err(|e| fail("the gate", e))?;
    let signals = ending_signals().map_err(|e| fail("signals at the gate", e))?;
    loop {
        put.send(&(), &[step.as_fd()]).map_err(|e| fail("the gate", e))?;
        drop(step);
        let mut fds = [PollFd::new(gate, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut fds, None)).map_err(|e| fail("the gate", e))?;
        if !fds[1].revents().is_empty() {
            let signal = signals.read_signal().ok().flatten().map_or(0, |signal| signal.ssi_signo);
            exit(128 + i32::try_from(signal).unwrap_or(0));
        }
        let received = get.receive::<()>().map_err(|e| fail("the gate", e))?;
        step =
            received.and_then(|mut it| it.fds.pop()).ok_or_else(|| refuse("the gate: no memory to share"))?;
        let connection = match accept_with(gate, SocketFlags::CLOEXEC) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
            accepted => accepted.map_err(|e| fail("the gate", e))?,
        };
        let channel = Channel::from(connection);
        if channel.send(&FromGate::Ack, &[step.as_fd()]).is_err() {
            continue;
        }
        if let Ok(Some(Received { message: ToGate::Start, .. })) = channel.receive() {
            return Ok(channel.into());
        }
    }
}

/// Whoever sends one of these to a created container wants it to end. The first process of a PID namespace gets none that
/// it doesn't ask for, so it asks; the program gets all of them again.
fn ending_signals() -> nix::Result<SignalFd> {
    let mut all = SigSet::empty();
    all.extend([Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM]);
    all.thread_block()?;
    SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC)
}

/// Ends the init as a shell would when it can't execute a program.
fn end(kind: FailureKind) -> ! {
    let code = match kind {
        FailureKind::NotFound => 127,
        FailureKind::NotExecutable => 126,
        FailureKind::Other => 1,
    };
    exit(code)
}
