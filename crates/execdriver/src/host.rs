//! What containers need of the host, looked at once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kernel::{MountInfo, MountedFilesystem};
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;

use crate::error::{Error, Result};

/// The namespaces that every container has, by their names in /proc/PID/ns.
const NAMESPACES: [&str; 5] = ["mnt", "pid", "ipc", "uts", "net"];

/// Facts about the host.
#[derive(Debug, Clone)]
pub(crate) struct HostFacts {
    /// liblxc's release.
    pub liblxc: String,
    /// The machine's memory, in bytes.
    pub memory: u64,
    pub apparmor: bool,
    /// What this process can hand on.
    pub capabilities: BTreeSet<String>,
    pub swap_is_counted: bool,
}

impl HostFacts {
    /// Looks at the host, and refuses one that can't run containers.
    pub(crate) fn probe() -> Result<Self> {
        check_descriptors(getrlimit(Resource::Nofile).current)?;
        let liblxc = lxcrun::find_liblxc().map_err(|e| missing("liblxc", e.to_string()))?;
        check_namespaces()?;
        // Mount points need not be text.
        let mounts = fs::read("/proc/thread-self/mountinfo").map_err(|e| missing("/proc", e.to_string()))?;
        let mounts = String::from_utf8_lossy(&mounts);
        check_cgroups(&mounts)?;
        let memory = rustix::system::sysinfo();
        Ok(Self {
            liblxc,
            memory: memory.totalram.saturating_mul(u64::from(memory.mem_unit)),
            apparmor: fs::read_to_string("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|s| s.starts_with('Y')),
            capabilities: capabilities()?,
            swap_is_counted: swap_is_counted(&mounts),
        })
    }
}

fn missing(what: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::Missing { what: what.into(), reason: reason.into() }
}

/// Descriptors that this process and LXC's monitor, which inherits the limit, need for one container.
const DESCRIPTORS: u64 = 64;

fn check_descriptors(limit: Option<u64>) -> Result<()> {
    match limit {
        Some(limit) if limit < DESCRIPTORS => {
            let reason =
                format!("RLIMIT_NOFILE is {limit}: LXC needs {DESCRIPTORS}, and many containers need more");
            Err(missing("file descriptors", reason))
        }
        _ => Ok(()),
    }
}

fn check_namespaces() -> Result<()> {
    for name in NAMESPACES {
        if !Path::new("/proc/thread-self/ns").join(name).exists() {
            return Err(missing(format!("{name} namespaces"), "this kernel has none"));
        }
    }
    let own = rustix::thread::capabilities(None).map_err(|e| missing("namespaces", e.to_string()))?;
    if !own.effective.contains(CapabilitySet::SYS_ADMIN) {
        return Err(missing(
            "namespaces",
            "making them needs CAP_SYS_ADMIN, which this process has not: is it root?",
        ));
    }
    Ok(())
}

fn check_cgroups(mounts: &str) -> Result<()> {
    match hierarchies(mounts).next() {
        Some(_) => Ok(()),
        None => Err(missing("cgroups", "no cgroup file system is mounted below /sys/fs/cgroup")),
    }
}

/// Mount points, file system types and options of all cgroup hierarchies: proc_pid_mountinfo(5).
fn hierarchies(mounts: &str) -> impl Iterator<Item = (PathBuf, &str, &str)> {
    MountInfo::all(mounts).filter_map(|mount| {
        let MountedFilesystem { fstype, options } = mount.filesystem()?;
        let mountpoint = PathBuf::from(mount.raw_place()?);
        let ours = matches!(fstype, "cgroup" | "cgroup2") && mountpoint.starts_with("/sys/fs/cgroup");
        ours.then_some((mountpoint, fstype, options))
    })
}

fn swap_is_counted(mounts: &str) -> bool {
    match legacy_memory(mounts) {
        Some(mountpoint) => mountpoint.join("memory.memsw.limit_in_bytes").exists(),
        // The root of the unified hierarchy does not tell; kernels without swap don't count it.
        None => Path::new("/proc/swaps").exists(),
    }
}

/// Where the memory controller of version 1 is, if it is one.
fn legacy_memory(mounts: &str) -> Option<PathBuf> {
    hierarchies(mounts)
        .find(|(_, _, options)| options.split(',').any(|o| o == "memory"))
        .map(|(path, ..)| path)
}

/// What this process may use and hand on.
fn capabilities() -> Result<BTreeSet<String>> {
    let own = rustix::thread::capabilities(None).map_err(|e| missing("capabilities", e.to_string()))?;
    let has = |number: usize| {
        let bit = CapabilitySet::from_bits_retain(1 << number);
        own.permitted.contains(bit) && rustix::thread::capability_is_in_bounding_set(bit).unwrap_or(false)
    };
    let names = lxcrun::capability_names().into_iter().enumerate();
    let full = |name: String| if name.starts_with("CAP_") { name } else { format!("CAP_{name}") };
    Ok(names.filter(|(number, _)| has(*number)).map(|(_, name)| full(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_cgroups_is_told_so() {
        let error = check_cgroups("25 1 8:1 / / rw - ext4 /dev/sda rw\n").unwrap_err();
        assert!(error.to_string().contains("cgroups"), "{error}");
        check_cgroups("31 30 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n").unwrap();
    }
}
