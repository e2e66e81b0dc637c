//! What is installed and mounted.

use std::path::Path;

use rustix::fs::{Access, access, statfs};

use super::{Check, program};
use crate::busybox::find_busybox;
use crate::cgroup::{Hierarchies, Layout};
use crate::config::lxcfs;
use crate::facts;

pub(super) fn checks(root: Option<&Path>) -> Vec<Check> {
    let mut checks = vec![liblxc()];
    checks.extend(cgroups());
    checks.extend([systemd(), state_root(root), cache(), lxcfs(), criu(), busybox()]);
    checks
}

fn liblxc() -> Check {
    let check = Check::new("liblxc", "carries out namespaces, cgroups and networks").needed();
    match crate::monitor::about_liblxc() {
        Err(e) => check.missing(e.to_string(), "on Debian: apt-get install liblxc1 liblxc-common"),
        Ok(liblxc) => {
            let major = liblxc.version.split('.').next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
            if major < 5 || !liblxc.takes_cgroup_path {
                return check.missing(liblxc.version, "needs LXC 5.0 or newer");
            }
            check.ok(format!("{} ({})", liblxc.version, liblxc.extensions.join(" ")))
        }
    }
}

fn cgroups() -> Vec<Check> {
    const LIMITS: [&str; 8] = ["cpu", "cpuset", "memory", "pids", "blkio", "io", "hugetlb", "rdma"];
    let layout =
        Check::new("cgroups", "limits, statistics, pause, and the list of a container's processes").needed();
    let controllers = Check::new("cgroup controllers", "what can be limited");
    let Ok(hierarchies) = Hierarchies::probe() else {
        return vec![layout.missing("/proc/self/mountinfo can't be read", "mount /proc")];
    };
    let found = match (hierarchies.layout(), hierarchies.unified()) {
        (Layout::None, _) => {
            return vec![
                layout.missing("no cgroup file system is mounted", "mount -t cgroup2 none /sys/fs/cgroup"),
            ];
        }
        (Layout::Unified, _) => "version 2",
        (Layout::Legacy, Some(_)) => "version 1, with a unified hierarchy beside it",
        (Layout::Legacy, None) => "version 1",
    };
    let has = |name: &&str| hierarchies.of(name).is_some();
    let (has, lacks): (Vec<&str>, Vec<&str>) = LIMITS.iter().partition(|name| has(name));
    // Each version has its own name for block devices.
    let block_io = has.contains(&"io") || has.contains(&"blkio");
    let lacks: Vec<&str> = lacks.into_iter().filter(|n| !(block_io && ["io", "blkio"].contains(n))).collect();
    let controllers = if lacks.is_empty() {
        controllers.ok(has.join(" "))
    } else {
        let mend =
            "enable them in the kernel, or in cgroup.subtree_control; only limits that need them are refused";
        controllers.limited(format!("{}; no {}", has.join(" "), lacks.join(" ")), mend)
    };
    vec![layout.ok(found), controllers]
}

fn systemd() -> Check {
    let check = Check::new("systemd", "cgroups as scopes, with --systemd-cgroup");
    match (Path::new("/run/systemd/system").is_dir(), facts::SYSTEMD_CGROUP) {
        (true, true) => check.ok("runs"),
        (true, false) => {
            check.limited("runs", "this version of lxcrun does not use it: leave --systemd-cgroup out")
        }
        (false, _) => check.missing("does not run", "leave --systemd-cgroup out: cgroups are made directly"),
    }
}

/// The first directory of `path` that exists: where something would have to be made.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"))
}

/// File systems that hold no files of anybody's, by their numbers in statfs(2). Source: linux/magic.h.
const KERNELS_OWN: [rustix::fs::FsWord; 9] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x27_e0eb,   // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x1980_0202, // mqueue
];

fn state_root(root: Option<&Path>) -> Check {
    let check = Check::new("state root", "where containers are remembered").needed();
    let mend = "run as another user, or name a directory with --root";
    let Some(root) = root else {
        return check.missing("this user is not root and has no XDG_RUNTIME_DIR", mend);
    };
    let (found, place) = (root.display().to_string(), existing(root));
    // Root may write to directories of the kernel's own that take no new ones, or to whom a new one means something.
    let takes_files = || match statfs(place) {
        Ok(about) if KERNELS_OWN.contains(&about.f_type) => Err(rustix::io::Errno::PERM),
        other => other.map(drop),
    };
    match access(place, Access::WRITE_OK).and_then(|()| takes_files()) {
        Ok(()) if place.is_dir() => check.ok(found),
        Ok(()) => check.missing(format!("{found}: {} is no directory", place.display()), mend),
        Err(e) => check.missing(format!("{found}: {e}"), mend),
    }
}

fn cache() -> Check {
    let check = Check::new(
        "cache",
        "the init and the monitor are executed from there; else from memory, which is slower",
    );
    let Some(directory) = crate::embedded::cache_directory() else {
        return check.missing("there is no home directory", "set HOME or XDG_CACHE_HOME");
    };
    let found = directory.display().to_string();
    match access(existing(&directory), Access::WRITE_OK) {
        Ok(()) => check.ok(found),
        Err(e) => check.limited(format!("{found}: {e}"), "make it writable"),
    }
}

fn lxcfs() -> Check {
    let meaning = "--lxc-conf lxc.lxcfs=true: /proc/meminfo and the like show a container's own limits";
    let check = Check::new("lxcfs", meaning);
    match lxcfs::mountpoint() {
        Ok(Some(top)) => match std::fs::read_dir(top.join("proc")) {
            Ok(_) => check.ok(format!("{}, for containers with lxc.lxcfs=true", top.display())),
            Err(e) => check.missing(format!("{}/proc: {e}", top.display()), "start it anew"),
        },
        Ok(None) => check.missing("not mounted", "on Debian: apt-get install lxcfs, and start it"),
        Err(e) => check.missing(format!("/proc/self/mountinfo: {e}"), "mount /proc"),
    }
}

fn criu() -> Check {
    let check = Check::new("CRIU", "checkpoint and restore");
    let Some(path) = program("criu") else {
        return check.missing("not on the PATH", "on Debian: apt-get install criu");
    };
    match crate::criu::works(&path) {
        Ok(()) => check.ok(path.display().to_string()),
        Err(reason) => check.missing(
            format!("{}: criu check: {reason}", path.display()),
            "run as root, with a CRIU that knows this kernel (docs/checkpoint.md)",
        ),
    }
}

fn busybox() -> Check {
    let check = Check::new("busybox", "the default root file system of lxcrun run -- CMD");
    match find_busybox() {
        Ok(path) => check.ok(path.display().to_string()),
        Err(reason) => check.missing(reason, "on Debian: apt-get install busybox-static; or give --rootfs"),
    }
}
