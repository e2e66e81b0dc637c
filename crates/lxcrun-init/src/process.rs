//! From init to program: everything that can't be undone, in runc's order, and the exec.

use std::collections::BTreeSet;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use protocol::init::{Capabilities, Failure, FailureKind, Process, Seccomp, Step};
use protocol::{Hook, Scheduling};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::failure::{Result, fail, refuse, words};

/// How much of a passwd is read: nobody has more users.
const MAX_PASSWD: u64 = 4 << 20;

/// Connects standard input, output and error, and hands them to the program's user so that it may reopen them.
pub fn connect_stdio(stdin: impl AsFd, stdout: impl AsFd, stderr: impl AsFd, uid: u32) -> Result<()> {
    let what = "standard input, output and error";
    rustix::stdio::dup2_stdin(stdin).map_err(|e| fail(what, e))?;
    rustix::stdio::dup2_stdout(stdout).map_err(|e| fail(what, e))?;
    rustix::stdio::dup2_stderr(stderr).map_err(|e| fail(what, e))?;
    let null = rustix::fs::makedev(1, 3);
    reopen_null(null).map_err(|e| fail(what, e))?;
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let stat = rustix::fs::fstat(fd).map_err(|e| fail(what, e))?;
        if stat.st_uid == uid || stat.st_rdev == null {
            continue;
        }
        match rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None) {
            // A user without mapping, a read-only or a foreign file system: the program can still use what it
            // inherits, it only can't reopen it by path.
            Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::ROFS) => {}
            Err(e) => return Err(fail(what, e)),
        }
    }
    Ok(())
}

/// Puts the container's null device in place of the host's, whose mount is not the container's: a checkpoint could
/// not save it. A container without one keeps the host's.
fn reopen_null(null: u64) -> rustix::io::Result<()> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(own) = rustix::fs::open("/dev/null", flags, Mode::empty()) else { return Ok(()) };
    let is_null = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| stat.st_rdev == null);
    if !is_null(own.as_fd())? {
        return Ok(());
    }
    rustix::fs::fcntl_setfl(&own, OFlags::empty())?;
    if is_null(rustix::stdio::stdin())? {
        rustix::stdio::dup2_stdin(&own)?;
    }
    if is_null(rustix::stdio::stdout())? {
        rustix::stdio::dup2_stdout(&own)?;
    }
    if is_null(rustix::stdio::stderr())? {
        rustix::stdio::dup2_stderr(&own)?;
    }
    Ok(())
}

/// Goes to `process.cwd`. Refuses a directory that is not below the root (CVE-2024-21626).
fn enter_directory(cwd: &Path) -> std::result::Result<(), Errno> {
    rustix::process::chdir(cwd)?;
    match rustix::process::getcwd(Vec::new()) {
        Ok(now) if now.to_bytes().starts_with(b"/") => Ok(()),
        Ok(_) | Err(Errno::NOENT) => Err(Errno::XDEV),
        Err(e) => Err(e),
    }
}

/// Looks the program up with the container's PATH as runc does: without one nothing is found, and nothing in a directory
/// that is relative, or empty, to the one that the program starts in. What execvp(3) finds there may be anybody's.
pub fn find_program(process: &Process) -> Result<PathBuf> {
    let Some(name) = process.args.first() else { return Err(refuse("process.args: is empty")) };
    let not = |kind, reason: &str| Failure { kind, message: format!("exec: {name:?}: {reason}") };
    if name.contains('/') {
        return match process.cwd.join(name).metadata() {
            // By this name, which a script sees: it is executed from there.
            Ok(m) if m.is_file() && m.permissions().mode() & 0o111 != 0 => Ok(name.into()),
            Ok(m) if m.is_dir() => Err(not(FailureKind::NotExecutable, "is a directory: permission denied")),
            Ok(_) => Err(not(FailureKind::NotExecutable, "permission denied")),
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                Err(not(FailureKind::NotExecutable, "permission denied"))
            }
            Err(e) => Err(not(FailureKind::NotFound, &format!("stat {name}: {}", words(&e.to_string())))),
        };
    }
    let path = process.env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or_default();
    path.split(':')
        .filter(|dir| dir.starts_with('/'))
        .map(|dir| Path::new(dir).join(name))
        .find(|p| p.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
        .filter(|_| !name.is_empty())
        .ok_or_else(|| not(FailureKind::NotFound, "executable file not found in $PATH"))
}

/// What a program needs besides its rights.
pub struct Start<'a> {
    /// Hooks of `start`, with the state that they get.
    pub hooks: &'a [Hook],
    pub state: &'a str,
    /// Notes the step that comes next, without a system call.
    pub note: &'a dyn Fn(Step),
}

/// What giving up rights needs.
pub struct Rights<'a> {
    /// Whether groups may be changed: [`Proc::allows_setgroups`](crate::proc::Proc::allows_setgroups).
    pub set_groups: bool,
    /// Hands the listener of a seccomp filter to the runtime, and returns when its agent has it.
    pub hand_over_listener: &'a dyn Fn(OwnedFd) -> Result<()>,
    /// Notes the step that comes next, without a system call.
    pub note: &'a dyn Fn(Step),
}

/// The environment of a process that has given up its rights.
pub struct Environment(Vec<String>);

/// Whether an agent hears of the filter's calls. It expects to before `start`, as with runc.
pub fn has_listener(process: &Process) -> bool {
    process.seccomp.as_ref().is_some_and(|filter| kernel::gives_listener(filter.flags))
}

/// Becomes the program, with what rights it has: never returns but with the reason why not.
pub fn become_program(
    process: &Process,
    program: &Path,
    Environment(env): Environment,
    start: &Start<'_>,
) -> Failure {
    let run_hooks = || {
        (start.note)(Step::Hooks);
        // They have no right that the program has not.
        start.hooks.iter().try_for_each(|hook| run_start_hook(hook, start.state, &env))?;
        let env = env.into_iter().map(CString::new).collect::<std::result::Result<Vec<_>, _>>();
        env.map_err(|_| refuse("process.env: contains a NUL byte"))
    };
    match run_hooks() {
        Err(failure) => failure,
        Ok(env) => {
            (start.note)(Step::Execute);
            let failure = execute(process, program, &env);
            (start.note)(Step::Failed);
            failure
        }
    }
}

/// The last that the program has of us: signals, and the descriptors `preserved`, which get the numbers from 3 on. The
/// caller must not need any other descriptor with a number below 3 + their count, nor any new one afterwards.
pub fn settle(process: &Process, preserved: Vec<OwnedFd>) -> Result<()> {
    kernel::reset_signals().map_err(|e| fail("signals", e))?;
    if !preserved.is_empty() {
        kernel::place_from(3, preserved).map_err(|e| fail("preserved descriptors", e))?;
    }
    lower_descriptors(process.few_descriptors)
}

/// All that can't be undone; `settle` is what has to come before a filter.
pub fn give_up_rights(
    process: &Process,
    rights: &Rights<'_>,
    settle: impl FnOnce() -> Result<()>,
) -> Result<Environment> {
    let note = rights.note;
    note(Step::Rights);
    let env = environment(process);
    rustix::process::umask(Mode::from_raw_mode(process.umask.unwrap_or(0o022)));
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(|e| fail("process.noNewPrivileges", e))?;
    }
    schedule(&process.scheduling)?;
    // A directory that only root or only the user may enter: one of the two is enough, as in runc.
    let entered = enter_directory(&process.cwd);
    let death_signal = rustix::process::parent_process_death_signal().map_err(|e| fail("prctl", e))?;
    let mut settle = Some(settle);
    // Without no_new_privs only a privileged process may load a filter, so it comes before the capabilities go.
    if !process.no_new_privileges {
        settle.take().map_or(Ok(()), |settle| settle())?;
        load_seccomp(process.seccomp.as_ref(), rights)?;
    }
    note(Step::Bounding);
    drop_bounding(process.capabilities)?;
    note(Step::User);
    rustix::thread::set_keep_capabilities(true).map_err(|e| fail("process.user", e))?;
    set_user(process, rights.set_groups)?;
    rustix::thread::set_keep_capabilities(false).map_err(|e| fail("process.user", e))?;
    match entered {
        Err(Errno::ACCESS) => enter_directory(&process.cwd),
        entered => entered,
    }
    .map_err(|e| fail(format!("process.cwd ({})", process.cwd.display()), e))?;
    note(Step::Capabilities);
    set_capabilities(process.capabilities)?;
    if death_signal.is_some() {
        // Whoever becomes another user has lost it (prctl(2)), and would outlive LXC's monitor.
        rustix::process::set_parent_process_death_signal(death_signal).map_err(|e| fail("prctl", e))?;
    }
    note(Step::Seccomp);
    if process.no_new_privileges {
        settle.take().map_or(Ok(()), |settle| settle())?;
        load_seccomp(process.seccomp.as_ref(), rights)?;
    }
    Ok(Environment(env))
}

/// One without an environment of its own has that of the program, as in runc.
fn run_start_hook(hook: &Hook, state: &str, env: &[String]) -> Result<()> {
    let mut hook = hook.clone();
    hook.env.get_or_insert_with(|| env.to_vec());
    hook.run(state, Path::new("/")).map_err(|e| refuse(format!("error running hook: {e}")))
}

/// Only now, because up to here we need descriptors ourselves.
fn lower_descriptors(limits: Option<(u64, u64)>) -> Result<()> {
    let Some((soft, hard)) = limits else { return Ok(()) };
    let bound = |value: u64| (value != u64::MAX).then_some(value);
    let limits = Rlimit { current: bound(soft), maximum: bound(hard) };
    setrlimit(Resource::Nofile, limits)
        .map_err(|e| fail(format!("process.rlimits: RLIMIT_NOFILE soft {soft} hard {hard}"), e))
}

fn execute(process: &Process, program: &Path, env: &[CString]) -> Failure {
    let name = process.args.first().map_or("", String::as_str);
    let args: std::result::Result<Vec<CString>, _> =
        process.args.iter().map(|a| CString::new(a.as_bytes())).collect();
    let path = CString::new(OsString::from(program).into_encoded_bytes());
    let (Ok(args), Ok(path)) = (args, path) else { return refuse("process.args: contains a NUL byte") };
    let Err(errno) = nix::unistd::execve(&path, &args, env);
    let kind = match errno {
        nix::errno::Errno::ENOENT => FailureKind::NotFound,
        nix::errno::Errno::EACCES | nix::errno::Errno::ENOEXEC => FailureKind::NotExecutable,
        _ => FailureKind::Other,
    };
    let why = words(&std::io::Error::from(errno).to_string());
    Failure { kind, message: format!("exec: {name:?}: exec {}: {why}", program.display()) }
}

/// `process.env`, where the last entry of a name counts, and HOME from the container's passwd when it has none.
fn environment(process: &Process) -> Vec<String> {
    let mut names = BTreeSet::new();
    let last = |entry: &&String| names.insert(entry.split('=').next().unwrap_or_default().to_owned());
    let mut env: Vec<String> = process.env.iter().rev().filter(last).cloned().collect();
    env.reverse();
    env.retain(|entry| entry != "HOME=");
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", home_of(process.uid)));
    }
    env
}

/// Opens a file of the image, which may have put a pipe or a device there that would keep us waiting.
fn open_regular(path: &str) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    file.metadata().ok()?.is_file().then_some(file)
}

fn home_of(uid: u32) -> String {
    let Some(passwd) = open_regular("/etc/passwd") else { return "/".into() };
    let lines = BufReader::new(passwd.take(MAX_PASSWD)).split(b'\n').map_while(std::io::Result::ok);
    let home = lines.filter_map(|line| {
        // A name may be in any encoding.
        let line = String::from_utf8_lossy(&line);
        let fields: Vec<&str> = line.split(':').collect();
        (fields.len() > 5 && fields[2].parse() == Ok(uid)).then(|| fields[5].to_owned())
    });
    home.into_iter().find(|h| !h.is_empty()).unwrap_or_else(|| "/".into())
}

/// Source: linux/sched.h.
const SCHED_DEADLINE: u32 = 6;

fn schedule(wanted: &Scheduling) -> Result<()> {
    if let Some(scheduler) = wanted.scheduler {
        kernel::set_scheduler(kernel::SchedulerAttributes {
            policy: scheduler.policy,
            flags: scheduler.flags,
            nice: scheduler.nice,
            priority: scheduler.priority,
            runtime: scheduler.runtime,
            deadline: scheduler.deadline,
            period: scheduler.period,
        })
        .map_err(|e| match e {
            // sched_setattr(2) allows it only to who may use all processors.
            Errno::PERM if scheduler.policy == SCHED_DEADLINE => {
                let reason =
                    "process scheduler can't be used together with AllowedCPUs (linux.resources.cpu.cpus)";
                fail("process.scheduler", format!("{}: {reason}", words(&e.to_string())))
            }
            e => fail("process.scheduler", e),
        })?;
    }
    if let Some(priority) = wanted.io_priority {
        kernel::set_io_priority(priority).map_err(|e| fail("process.ioPriority", e))?;
    }
    if let Some(policy) = &wanted.memory_policy {
        kernel::set_memory_policy(policy.mode, &policy.nodes)
            .map_err(|e| fail("linux.memoryPolicy: set_mempolicy", e))?;
    }
    if let Some(persona) = wanted.personality {
        kernel::set_personality(persona).map_err(|e| fail("linux.personality", e))?;
    }
    Ok(())
}

fn load_seccomp(seccomp: Option<&Seccomp>, rights: &Rights<'_>) -> Result<()> {
    let Some(seccomp) = seccomp else { return Ok(()) };
    let loaded =
        kernel::load_filter(&seccomp.program, seccomp.flags).map_err(|e| fail("linux.seccomp", e))?;
    loaded.map_or(Ok(()), rights.hand_over_listener)
}

fn set_user(process: &Process, set_groups: bool) -> Result<()> {
    if !set_groups && !process.additional_gids.is_empty() {
        let reason = "cannot set any additional groups in a rootless container";
        return Err(refuse(format!("process.user.additionalGids: {reason}")));
    }
    if set_groups {
        let groups: Vec<Gid> = process.additional_gids.iter().map(|g| Gid::from_raw(*g)).collect();
        rustix::thread::set_thread_groups(&groups).map_err(|e| fail("process.user.additionalGids", e))?;
    }
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .map_err(|e| fail(format!("process.user.gid {}", process.gid), e))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .map_err(|e| fail(format!("process.user.uid {}", process.uid), e))
}

/// How many capabilities this kernel has: their numbers are those that have a bounding set.
fn capability_count() -> u32 {
    let known = |number: u32| {
        rustix::thread::capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1 << number)).is_ok()
    };
    // Half of what is left is asked at a time: there are no holes in the numbers.
    let (mut count, mut unknown) = (0, u64::BITS);
    while count < unknown {
        let middle = u32::midpoint(count, unknown);
        if known(middle) { count = middle + 1 } else { unknown = middle }
    }
    count
}

/// Those of `count` whose bits are set.
fn capabilities(count: u32, bits: u64) -> impl Iterator<Item = CapabilitySet> {
    (0..count).map(|n| 1 << n).filter(move |bit| bits & bit != 0).map(CapabilitySet::from_bits_retain)
}

fn drop_bounding(wanted: Capabilities) -> Result<()> {
    for capability in capabilities(capability_count(), !wanted.bounding) {
        rustix::thread::remove_capability_from_bounding_set(capability)
            .map_err(|e| fail("process.capabilities.bounding", e))?;
    }
    Ok(())
}

fn set_capabilities(wanted: Capabilities) -> Result<()> {
    let count = capability_count();
    let set = |bits: u64| capabilities(count, bits).collect();
    let sets = CapabilitySets {
        effective: set(wanted.effective),
        permitted: set(wanted.permitted),
        inheritable: set(wanted.inheritable),
    };
    rustix::thread::set_capabilities(None, sets).map_err(|e| fail("process.capabilities", e))?;
    rustix::thread::clear_ambient_capability_set().map_err(|e| fail("process.capabilities.ambient", e))?;
    // One that is not inheritable can't be ambient, and asking for it has no effect: `runc spec` does.
    let ambient = wanted.ambient & wanted.inheritable & wanted.permitted;
    for capability in capabilities(count, ambient) {
        rustix::thread::configure_capability_in_ambient_set(capability, true)
            .map_err(|e| fail("process.capabilities.ambient", e))?;
    }
    Ok(())
}
