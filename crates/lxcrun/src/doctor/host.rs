//! What is installed and mounted.

use std::path::Path;

use rustix::fs::{Access, access};

use super::{Check, program};
use crate::cgroup::{Hierarchies, Layout};
use crate::config::lxcfs;
use crate::facts;

pub(super) fn checks(root: &Path) -> Vec<Check> {
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

fn state_root(root: &Path) -> Check {
    let check = Check::new("state root", "where containers are remembered").needed();
    let found = root.display().to_string();
    match access(existing(root), Access::WRITE_OK) {
        Ok(()) => check.ok(found),
        Err(e) => {
            check.missing(format!("{found}: {e}"), "run as another user, or name a directory with --root")
        }
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
    match program("criu") {
        Some(path) => check.ok(path.display().to_string()),
        None => check.missing("not on the PATH", "on Debian: apt-get install criu"),
    }
}

fn busybox() -> Check {
    let check = Check::new("busybox", "the default root file system of lxcrun run -- CMD");
    match ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists()) {
        Some(path) => check.ok(path),
        None => check.missing("not installed", "on Debian: apt-get install busybox-static; or give --rootfs"),
    }
}
