//! The kernel.

use std::path::Path;

use super::{Check, text};
use crate::facts;

/// The oldest kernel with everything that a container is made of: mount_setattr(2) came last.
const OLDEST: (u32, u32) = (5, 12);

pub(super) fn checks() -> Vec<Check> {
    vec![version(), namespaces(), seccomp(), idmapped_mounts(), security_module()]
}

fn release() -> String {
    text("/proc/sys/kernel/osrelease")
}

/// Major and minor number.
fn number(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

fn is_at_least(wanted: (u32, u32)) -> bool {
    number(&release()).is_some_and(|found| found >= wanted)
}

fn version() -> Check {
    let check =
        Check::new("kernel", "mounts are made by descriptor (open_tree, move_mount, mount_setattr)").needed();
    if is_at_least(OLDEST) {
        return check.ok(format!("Linux {}", release()));
    }
    check.missing(format!("Linux {}", release()), format!("needs Linux {}.{} or newer", OLDEST.0, OLDEST.1))
}

fn namespaces() -> Check {
    let check = Check::new("namespaces", "what a container sees of its own").needed();
    let there = |name: &&str| Path::new("/proc/self/ns").join(name).exists();
    let (has, lacks): (Vec<&str>, Vec<&str>) =
        ["mnt", "pid", "uts", "ipc", "net", "cgroup", "user", "time"].iter().partition(|name| there(name));
    match lacks.as_slice() {
        [] => check.ok(has.join(" ")),
        lacks if lacks.iter().any(|name| ["mnt", "pid", "uts", "ipc", "net"].contains(name)) => check
            .missing(
                format!("no {}", lacks.join(" ")),
                "needs a kernel with CONFIG_NAMESPACES and its parts",
            ),
        lacks => {
            check.limited(format!("no {}", lacks.join(" ")), "only containers that ask for these can't run")
        }
    }
}

fn seccomp() -> Check {
    let check = Check::new("seccomp", "filters of system calls, which engines ask for by default");
    let flags = facts::supported_seccomp_flags().len();
    let found = format!(
        "libseccomp {}, {flags} of {} flags",
        facts::libseccomp_version(),
        facts::SECCOMP_FLAGS.len()
    );
    if text("/proc/sys/kernel/seccomp/actions_avail").is_empty() {
        return check.missing("the kernel has no seccomp filters", "needs CONFIG_SECCOMP_FILTER");
    }
    if flags < facts::SECCOMP_FLAGS.len() {
        return check.limited(found, "newer kernels know all flags");
    }
    check.ok(found)
}

fn idmapped_mounts() -> Check {
    let check = Check::new("id-mapped mounts", "volumes with the right owners in user namespaces");
    if is_at_least((5, 12)) {
        return check.ok("mount_setattr with MOUNT_ATTR_IDMAP; the file system has to support it, too");
    }
    check.missing(format!("Linux {}", release()), "needs Linux 5.12 or newer")
}

fn security_module() -> Check {
    let check = Check::new("security modules", "AppArmor profiles and SELinux labels");
    let modules = text("/sys/kernel/security/lsm");
    if modules.is_empty() {
        let mend = "mount securityfs, if profiles or labels are wanted";
        return check.missing("/sys/kernel/security/lsm can't be read", mend);
    }
    if modules.split(',').any(|m| m == "apparmor" || m == "selinux") {
        return check.ok(modules);
    }
    check.missing(modules, "boot with lsm=…,apparmor (or selinux), if profiles or labels are wanted")
}

#[cfg(test)]
mod tests {
    #[test]
    fn releases_have_numbers() {
        assert_eq!(super::number("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(super::number("5.12-rc1"), Some((5, 12)));
        assert_eq!(super::number("next"), None);
    }
}
