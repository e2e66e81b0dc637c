//! The monitor: the one process that calls liblxc's `start`, and for as long as it lives the container's LXC
//! monitor, which answers lxc-info, lxc-attach and the others.
//!
//! It is a program of its own because liblxc forks inside `start` and goes on in the child: that is safe only
//! with one thread, and the library may be embedded in a process with many. The runtime spawns it early, so
//! that loading liblxc overlaps with reading the specification, and sends its request when all is checked.
#![forbid(unsafe_code)]

mod tools;

use std::cell::Cell;
use std::ffi::{CStr, CString, NulError};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use lxc::{Ended, Handle, Liblxc, Next};
use nix::sched::{CloneFlags, unshare};
use protocol::Channel;
use protocol::monitor::{
    AboutLiblxc, CGROUPS, CONTROL_FD, EXIT_FILE, EXTENSIONS, Exit, FromMonitor, INIT_FD, Item, StartRequest,
    ToMonitor,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Gid, Uid};
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change, move_mount, open_tree,
    unmount,
};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_getaffinity, sched_getcpu,
    sched_setaffinity, set_thread_res_gid, set_thread_res_uid,
};

fn main() -> ExitCode {
    let Ok(control) = kernel::take_inherited(CONTROL_FD) else {
        eprintln!("lxcrun-monitor is started by lxcrun");
        return ExitCode::FAILURE;
    };
    let control = Rc::new(Channel::from(control));
    let ended = match monitor(&control) {
        Ok(ended) => ended,
        Err(reason) => Some((FromMonitor::Failed(reason), None)),
    };
    if let Some((ended, exit_file)) = ended
        && control.send(&ended, &[]).is_err()
        && let (FromMonitor::Exited(exit), Some(file)) = (ended, exit_file)
    {
        // The runtime is gone: whoever comes next finds it here, unless the container was removed meanwhile.
        leave_behind(&file, exit);
    }
    ExitCode::SUCCESS
}

fn leave_behind(file: &Path, exit: Exit) {
    let _ = std::fs::write(file, exit.code().to_string());
}

/// What to tell the runtime, and where to write an exit status when it is gone.
type Report = (FromMonitor, Option<PathBuf>);

/// Does what the runtime asks; `None` when it went away before it had asked for anything.
fn monitor(control: &Rc<Channel>) -> Result<Option<Report>, String> {
    let _ = rustix::thread::set_name(c"lxcrun-monitor");
    // A program that embeds the runtime may have others open without close-on-exec, and end before us.
    kernel::close_range(INIT_FD.unsigned_abs() + 1..=u32::MAX).map_err(|e| format!("close_range: {e}"))?;
    let liblxc = Liblxc::load();
    let Some(asked) = control.receive::<ToMonitor>().map_err(|e| format!("reading the plan: {e}"))? else {
        return Ok(None);
    };
    let liblxc = liblxc.map_err(|e| match std::error::Error::source(&e) {
        Some(source) => format!("{e}: {source}"),
        None => e.to_string(),
    })?;
    match asked.message {
        ToMonitor::Start(request) => start(&liblxc, control, request, asked.fds).map(Some),
        ToMonitor::About => Ok(Some((FromMonitor::Liblxc(about(&liblxc)), None))),
        ToMonitor::Init { .. } => Err("told of an init before a start".into()),
    }
}

fn about(liblxc: &Liblxc) -> AboutLiblxc {
    AboutLiblxc {
        version: liblxc.version(),
        takes_cgroup_path: liblxc.knows_key("lxc.cgroup.dir.container"),
        extensions: EXTENSIONS.iter().filter(|e| liblxc.has_extension(e)).map(ToString::to_string).collect(),
    }
}

/// From the request to the container's end.
fn start(
    liblxc: &Liblxc,
    control: &Rc<Channel>,
    request: StartRequest,
    fds: Vec<OwnedFd>,
) -> Result<Report, String> {
    for file in &request.enter {
        std::fs::write(file, std::process::id().to_string())
            .map_err(|e| format!("{}: {e}", file.display()))?;
    }
    if request.stay_in_cgroups {
        lxc::stay_in_cgroups();
    }
    for cgroup in &request.take_cgroups {
        lxc::take_cgroup(cgroup).map_err(|e| format!("{}: {e}", cgroup.display()))?;
    }
    lxc::end_orphans().map_err(|e| format!("a pidfd of the monitor: {e}"))?;
    let mut fds = fds.into_iter();
    let mut take = |comes: bool, what| {
        comes.then(|| fds.next().ok_or_else(|| format!("the request came without {what}"))).transpose()
    };
    let namespace = take(request.user_namespace, "its user namespace")?;
    let program = take(request.init_program, "the init's program")?;
    if let Some(namespace) = namespace {
        become_root_of(&namespace).map_err(|e| format!("joining the user namespace: {e}"))?;
    }
    leave_the_hosts_mounts_alone().map_err(|e| format!("a private mount namespace: {e}"))?;
    if let Some(instead) = &request.hide_cgroups {
        cover(CGROUPS, instead).map_err(|e| format!("hiding {CGROUPS} from liblxc: {e}"))?;
    }

    if request.claim_root {
        claim_root(&request.root.join(&request.name))
            .map_err(|e| format!("telling liblxc of a cgroup: {e}"))?;
    }

    lxc::take_for_reachable(&request.root);
    let mut container = Handle::new(liblxc, &request.name, &request.root).map_err(|e| e.to_string())?;
    if let Some(refused) = configure(&mut container, request.config)? {
        return Ok((FromMonitor::Refused(refused), None));
    }
    let init = init(program.as_ref()).map_err(|e| e.to_string())?;
    let argv: [&CStr; 1] = [&init];
    let exit_file = request.root.join(&request.name).join(EXIT_FILE);
    let how_init_ended = watch_init(Rc::clone(control), exit_file.clone(), request.root.clone());
    let processors = stay_on_one_processor();
    lxc::when_idle(move || {
        // All of liblxc that has made the container. That it stays in memory where it can't be given back is no failure.
        let _ = kernel::free_code();
        let _ = processors.map(|all| sched_setaffinity(None, &all));
    });
    let ended = container.start(&argv).map_err(|e| e.to_string())?;
    let report = how_init_ended
        .get()
        .or_else(|| exit(ended))
        .map_or_else(|| FromMonitor::Failed("liblxc could not start it".into()), FromMonitor::Exited);
    Ok((report, Some(exit_file)))
}

/// Sets every item; the first that liblxc refuses is returned.
fn configure(container: &mut Handle, config: Vec<Item>) -> Result<Option<Item>, String> {
    let user = joined(&config, "user").map(File::open).transpose().map_err(|e| e.to_string())?;
    for item in config {
        if let (Some(user), Some(foreign)) = (&user, foreign_namespace(&item)) {
            let entered = enter_unless_owned(foreign, user.as_fd());
            if entered.map_err(|e| format!("joining {}: {e}", foreign.display()))? {
                continue;
            }
        }
        if container.set(&item.key, &item.value).is_err() {
            return Ok(Some(item));
        }
    }
    Ok(None)
}

/// What liblxc is to execute in the container. It finds no such file without a program, and needs none.
fn init(program: Option<&OwnedFd>) -> Result<CString, NulError> {
    const INSIDE: &CStr = c"lxcrun-init";
    match program {
        Some(program) => CString::new(format!("/proc/self/fd/{}", program.as_raw_fd())),
        None => {
            lxc::instead_of_exec(INSIDE, lxcrun_init::take_over);
            Ok(INSIDE.into())
        }
    }
}

/// Keeps this process on the processor that it is on, and the init that it makes until that asks for all, and returns those
/// that it could use before: what both have to do is found in its caches. And what a process gives back stays charged to its
/// cgroup as long as it is in the list of recently used pages of a processor: those of two may hold as much as a small limit
/// allows.
///
/// `None` where that is forbidden. Then a container needs a larger limit, nothing else.
fn stay_on_one_processor() -> Option<CpuSet> {
    let all = sched_getaffinity(None).ok()?;
    let mut this = CpuSet::new();
    this.set(sched_getcpu());
    sched_setaffinity(None, &this).ok().map(|()| all)
}

/// Shows liblxc, and nobody else, that the first process is in the root of cgroup v2. Not for longer than it looks: a /proc
/// that something is mounted in keeps user namespaces from having one of their own.
fn claim_root(directory: &Path) -> Result<(), std::io::Error> {
    const CGROUP_OF_INIT: &str = "/proc/1/cgroup";
    let file = directory.join("cgroup-of-init");
    std::fs::write(&file, "0::/\n")?;
    let covered = cover(CGROUP_OF_INIT, &file);
    std::fs::remove_file(&file)?;
    lxc::before_cgroups(|| {
        // Nobody can undo it from outside, and the container says what it lacks.
        let _ = unmount(CGROUP_OF_INIT, UnmountFlags::DETACH);
    });
    Ok(covered?)
}

/// The path of the namespace of this kind that liblxc is to join.
fn joined<'i>(items: &'i [Item], kind: &str) -> Option<&'i str> {
    let key = format!("lxc.namespace.share.{kind}");
    items.iter().find(|item| item.key == key).map(|item| item.value.as_str())
}

/// One to join that may be somebody else's than that of the user namespace which is joined, too.
fn foreign_namespace(item: &Item) -> Option<&Path> {
    let kind = item.key.strip_prefix("lxc.namespace.share.")?;
    matches!(kind, "net" | "ipc" | "uts").then(|| Path::new(&item.value))
}

/// liblxc joins the user namespace first, and has no right to another's namespaces from then on. So the monitor enters such
/// a one itself, and the container inherits it. False where the user namespace owns it.
fn enter_unless_owned(namespace: &Path, user: BorrowedFd<'_>) -> std::io::Result<bool> {
    let namespace = File::open(namespace)?;
    let owner = kernel::owner_of(namespace.as_fd())?;
    let [owner, user] = [rustix::fs::fstat(&owner)?, rustix::fs::fstat(user)?];
    if (owner.st_dev, owner.st_ino) == (user.st_dev, user.st_ino) {
        return Ok(false);
    }
    move_into_link_name_space(namespace.as_fd(), None)?;
    Ok(true)
}

fn exit(ended: Ended) -> Option<Exit> {
    match ended {
        Ended::NotStarted => None,
        Ended::Exited(code) => Some(Exit::Code(code)),
        Ended::Signalled(signal) => Some(Exit::Signal(signal)),
    }
}

/// Looks at how the init ends, before liblxc acts on it, and returns where that is noted.
///
/// If the runtime has asked for it and still listens, this process ends there: the runtime removes the cgroups itself, and
/// liblxc's clean-up walks every file of every hierarchy, moving itself through all of them, which takes as long as all of
/// `create`. liblxc goes on where it has to tell LXC's tools of the end. It takes the death of an init by SIGHUP for a reboot
/// (reboot(2) in a PID namespace) and would start another; to everybody else it is the container's end, so liblxc hears of a
/// halt.
fn watch_init(control: Rc<Channel>, exit_file: PathBuf, root: PathBuf) -> Rc<Cell<Option<Exit>>> {
    let noted = Rc::new(Cell::new(None));
    let note = Rc::clone(&noted);
    let mut init = None;
    lxc::when_waited(move |pid, ended| {
        // Asked for once, when the init is there: liblxc has waited for helpers of its own before.
        init = init.or_else(|| init_told(&control));
        let (Some((init, end_with_it)), Some(exit)) = (init, exit(ended)) else { return Next::GoOn };
        if pid != init {
            return Next::GoOn;
        }
        note.set(Some(exit));
        if !end_with_it || tools::want_to_hear(&root) {
            return Next::Halt;
        }
        // Before the word of it, because nobody is left to write when the runtime is killed before it hears that.
        leave_behind(&exit_file, exit);
        match control.send(&FromMonitor::Exited(exit), &[]) {
            Ok(()) => Next::End,
            Err(_) => Next::Halt,
        }
    });
    noted
}

/// Which process the init is, and whether to end with it: what the runtime has said meanwhile, if anything.
fn init_told(control: &Channel) -> Option<(i32, bool)> {
    let mut said = [PollFd::from_borrowed_fd(control.as_fd(), PollFlags::IN)];
    if !poll(&mut said, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
        return None;
    }
    match control.receive::<ToMonitor>().ok()??.message {
        ToMonitor::Init { pid, end_with_it } => Some((pid, end_with_it)),
        ToMonitor::Start(_) | ToMonitor::About => None,
    }
}

/// Joins the user namespace of an ordinary user's container. liblxc is told nothing of it: to liblxc this is root, and
/// the container has no user namespace of its own.
fn become_root_of(namespace: &OwnedFd) -> rustix::io::Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User))?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    // Other credentials have made our files in /proc root's, and that is the host's.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    // liblxc drops all groups when it has this capability, and fails where the namespace forbids it. The init gets it
    // again, because it is executed by root.
    if std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny") {
        let mut sets = rustix::thread::capabilities(None)?;
        sets.effective.remove(CapabilitySet::SETGID);
        rustix::thread::set_capabilities(None, sets)?;
    }
    Ok(())
}

/// Gives this process mounts of its own, so that nothing that liblxc does to them reaches the host.
///
/// The container is configured without `lxc.rootfs.path`, because its init makes the root itself. For such a
/// container liblxc (5.0.2, measured) makes `/` a slave in the *caller's* namespace, and in the container's it
/// detaches /proc in order to mount a new one, which fails. A second mount of /proc on top is what it takes
/// away then, and the first one is still there to execute /proc/self/fd/N and for hooks.
fn leave_the_hosts_mounts_alone() -> rustix::io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| rustix::io::Errno::from_raw_os_error(e as i32))?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    cover("/proc", Path::new("/proc"))
}

/// Shows `directory` at `place`, on top of what is there. In a user namespace a mount can only be cloned with those
/// below it.
fn cover(place: &str, directory: &Path) -> rustix::io::Result<()> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, directory, flags)?;
    move_mount(&tree, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}
