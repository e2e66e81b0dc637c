//! The floor: what the kernel must do for the bundle of this benchmark, and nothing else.
//!
//! The same namespaces, cgroups, device rules, mounts, nodes, masks and capabilities, written down as
//! constants: no spec is read, no state is kept, nothing is checked twice. On cgroup v2 it makes no device
//! filter, so there it is a little too low.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};
use rustix::process::{Pid, WaitOptions, pivot_root, waitpid};
use rustix::system::sethostname;
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

const CGROUPS: &str = "/sys/fs/cgroup";
const NAME: &str = "lxcrun-bench-floor";

const LOCKED: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC).union(MountFlags::NODEV);

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let (Some(rootfs), Some(program)) = (args.next(), args.next()) else {
        eprintln!("usage: lxcrun-bench-floor ROOTFS PROGRAM");
        return ExitCode::FAILURE;
    };
    match run(Path::new(&rootfs), Path::new(&program)) {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("floor: the program ended with {status}");
            ExitCode::FAILURE
        }
        Err(err) => {
            eprintln!("floor: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(rootfs: &Path, program: &Path) -> Result<ExitStatus> {
    let cgroups = Cgroups::create()?;
    let Some(child) = clone_into(cgroups.unified.as_ref())? else {
        let err = contain(&cgroups, rootfs).map(|()| Command::new(program).env_clear().exec());
        eprintln!("floor: {err:?}");
        std::process::abort();
    };
    let (_, status) = waitpid(Some(child), WaitOptions::empty())?.context("no child")?;
    Ok(ExitStatus::from_raw(status.as_raw()))
}

/// The child's number in the parent, none in the child.
fn clone_into(cgroup: Option<&OwnedFd>) -> Result<Option<Pid>> {
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | if cgroup.is_some() { libc::CLONE_NEWCGROUP } else { 0 };
    let mut args = [0_u64; 11]; // struct clone_args, up to and with `cgroup`
    args[0] = u64::from(namespaces.cast_unsigned());
    args[4] = u64::from(libc::SIGCHLD.cast_unsigned());
    if let Some(fd) = cgroup {
        args[0] |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        args[10] = u64::from(fd.as_raw_fd().cast_unsigned());
    }
    // SAFETY: the array is laid out as the kernel's struct clone_args and its size is passed with it. No
    // CLONE_VM and no stack: the child gets a copy of this process, which has a single thread, as after fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
    match i32::try_from(pid)? {
        -1 => Err(io::Error::last_os_error()).context("clone3"),
        0 => Ok(None),
        pid => Ok(Some(Pid::from_raw(pid).context("clone3 returned no pid")?)),
    }
}

/// A fresh cgroup, in each hierarchy of v1; removed on drop.
struct Cgroups {
    dirs: Vec<PathBuf>,
    /// The directory on v2, which the child is born into.
    unified: Option<OwnedFd>,
}

impl Cgroups {
    fn create() -> Result<Self> {
        let unified = Path::new(CGROUPS).join("cgroup.procs").exists();
        let mut cgroups = Self { dirs: Vec::new(), unified: None };
        if unified {
            cgroups.add(Path::new(CGROUPS))?;
            cgroups.unified = Some(fs::File::open(&cgroups.dirs[0])?.into());
            return Ok(cgroups);
        }
        for entry in fs::read_dir(CGROUPS)? {
            let hierarchy = entry?.path();
            if !hierarchy.is_symlink() && hierarchy.join("cgroup.procs").exists() {
                cgroups.add(&hierarchy)?;
            }
        }
        Ok(cgroups)
    }

    fn add(&mut self, hierarchy: &Path) -> Result<()> {
        let dir = hierarchy.join(NAME);
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        self.dirs.push(dir.clone());
        if hierarchy.ends_with("cpuset") {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                fs::write(dir.join(file), fs::read(hierarchy.join(file))?)?;
            }
        }
        if hierarchy.ends_with("devices") {
            fs::write(dir.join("devices.deny"), "a")?;
            for rule in [
                "c *:* m",
                "b *:* m",
                "c 1:3 rwm",
                "c 1:8 rwm",
                "c 1:7 rwm",
                "c 5:0 rwm",
                "c 1:5 rwm",
                "c 1:9 rwm",
                "c 136:* rwm",
                "c 5:2 rwm",
            ] {
                fs::write(dir.join("devices.allow"), rule)?;
            }
        }
        Ok(())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for dir in &self.dirs {
            if let Err(err) = fs::remove_dir(dir) {
                eprintln!("floor: {} stays behind: {err}", dir.display());
            }
        }
    }
}

/// In the child: everything up to the exec.
fn contain(cgroups: &Cgroups, rootfs: &Path) -> Result<()> {
    if cgroups.unified.is_none() {
        for dir in &cgroups.dirs {
            fs::write(dir.join("cgroup.procs"), "0")
                .with_context(|| format!("cannot enter {}", dir.display()))?;
        }
    }
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    mount_bind_recursive(rootfs, rootfs)?;
    std::env::set_current_dir(rootfs)?;
    mounts(cgroups)?;
    devices()?;
    pivot_root(".", ".").context("pivot_root")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")?;
    masks()?;
    sethostname(b"bench")?;
    privileges()
}

/// Relative to the root file system, which is the working directory.
fn mounts(cgroups: &Cgroups) -> Result<()> {
    mount("proc", "proc", "proc", MountFlags::empty(), None).context("proc")?;
    let dev = MountFlags::NOSUID | MountFlags::STRICTATIME;
    mount("tmpfs", "dev", "tmpfs", dev, c"mode=755,size=65536k").context("dev")?;
    for dir in ["dev/pts", "dev/shm", "dev/mqueue"] {
        fs::create_dir(dir)?;
    }
    let pts = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("devpts", "dev/pts", "devpts", pts, c"newinstance,ptmxmode=0666,mode=0620,gid=5").context("pts")?;
    mount("shm", "dev/shm", "tmpfs", LOCKED, c"mode=1777,size=65536k").context("shm")?;
    mount("mqueue", "dev/mqueue", "mqueue", LOCKED, None).context("mqueue")?;
    mount("sysfs", "sys", "sysfs", LOCKED | MountFlags::RDONLY, None).context("sys")?;

    let target = "sys/fs/cgroup";
    if cgroups.unified.is_some() {
        mount("cgroup", target, "cgroup2", LOCKED | MountFlags::RDONLY, None).context("cgroup2")?;
        return Ok(());
    }
    mount("tmpfs", target, "tmpfs", LOCKED, c"mode=755").context("cgroup")?;
    for dir in &cgroups.dirs {
        let Some(hierarchy) = dir.parent().and_then(Path::file_name) else { bail!("no hierarchy") };
        let target = Path::new(target).join(hierarchy);
        fs::create_dir(&target)?;
        mount_bind(dir, &target)?;
        mount_remount(&target, MountFlags::BIND | LOCKED | MountFlags::RDONLY, "")?;
    }
    mount_remount(target, MountFlags::BIND | LOCKED | MountFlags::RDONLY, "")?;
    Ok(())
}

fn devices() -> Result<()> {
    let nodes =
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    for (name, major, minor) in nodes {
        let path = Path::new("dev").join(name);
        mknodat(CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(major, minor))?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, Path::new("dev").join(name))?;
    }
    Ok(())
}

fn masks() -> Result<()> {
    for path in ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"] {
        if mount_bind_recursive(path, path).is_ok() {
            mount_remount(path, MountFlags::BIND | LOCKED | MountFlags::RDONLY, "")?;
        }
    }
    for path in [
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
    ] {
        let _absent = mount_bind("/dev/null", path);
    }
    for path in ["/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/firmware"] {
        let _absent = mount("tmpfs", path, "tmpfs", MountFlags::RDONLY, None);
    }
    Ok(())
}

fn privileges() -> Result<()> {
    let kept = CapabilitySet::AUDIT_WRITE | CapabilitySet::KILL | CapabilitySet::NET_BIND_SERVICE;
    for capability in CapabilitySet::all().difference(kept) {
        let _unknown_to_this_kernel = remove_capability_from_bounding_set(capability);
    }
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )?;
    set_no_new_privs(true)?;
    Ok(())
}
