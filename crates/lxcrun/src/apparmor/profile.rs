//! The text of a generated AppArmor profile: apparmor.d(5). It promises what LXC's own generated profiles promise.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::WantedProfile;

/// What a container may do whatever else it asks for: nearly everything, because its namespaces, capabilities and
/// cgroups confine it already, but not reach the host through the kernel's files. The pinned version of the rules
/// leaves out what later ones would forbid unless it is named.
const BASE: &str = "  capability,
  dbus,
  file,
  network,
  umount,
  unix,
  # Anybody outside may signal and look at the container; the container only itself.
  signal (receive),
  signal (send) peer=@{profile_name},
  ptrace (readby, tracedby),
  ptrace (read, trace) peer=@{profile_name},
  deny /proc/kcore rwklx,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/bus/** wklx,
  deny /proc/acpi/** wklx,
  deny /sys/firmware/efi/efivars/** rwklx,
  deny /sys/kernel/debug/** rwklx,
";

/// New file systems that hold nothing of the host's.
const MOUNTS: &str = "  mount fstype=(tmpfs, ramfs, mqueue, hugetlbfs, devpts, overlay, fuse, fuse.*),
  mount fstype=proc -> /proc/,
  mount fstype=sysfs -> /sys/,
  mount fstype=cgroup2 -> /sys/fs/cgroup/,
";

/// For containers in the container: they mount what they like, trace and signal each other, and load profiles into
/// the container's own namespace of policies.
const NESTING: &str = "  mount,
  pivot_root,
  ptrace,
  signal,
  change_profile,
";

/// What may be written below /proc/sys and /sys: what the kernel keeps per namespace, or checks the writer for.
const SYSCTLS: [&str; 7] =
    ["kernel/hostname", "kernel/domainname", "kernel/msg", "kernel/sem", "kernel/shm", "fs/mqueue", "net"];
const SYS: [&str; 3] = ["fs/cgroup", "class/net", "devices/virtual/net"];
/// Where namespaces of policies are changed.
const POLICIES: &str = "kernel/security/apparmor";

/// The whole profile.
pub(super) fn text(name: &str, wanted: &WantedProfile) -> String {
    let mut text = format!(
        "# written by lxcrun\nabi <abi/3.0>,\nprofile \"{name}\" flags=(attach_disconnected,mediate_deleted) {{\n\
         {BASE}"
    );
    let mut sys: Vec<&str> = SYS.into();
    if wanted.nesting {
        text += NESTING;
        sys.push(POLICIES);
    } else {
        text += MOUNTS;
        // What is mounted elsewhere would be out of reach of the rules below.
        for path in all_but("/", &["dev", "proc", "sys"]) {
            text += &format!("  mount options in (rw, ro, bind, rbind) {path},\n");
        }
    }
    for path in all_but("/proc/sys/", &SYSCTLS).iter().chain(&all_but("/sys/", &sys)) {
        text += &format!("  deny {path} wklx,\n");
    }
    for rule in &wanted.rules {
        text += &format!("  {rule}\n");
    }
    text + "}\n"
}

/// Patterns for everything below `directory` whose path does not begin with one of `excepted`: rules have no other
/// way to say so, because those that deny have the last word.
fn all_but(directory: &str, excepted: &[&str]) -> Vec<String> {
    let mut next: BTreeMap<&str, BTreeSet<char>> = BTreeMap::new();
    for path in excepted {
        for (at, character) in path.char_indices() {
            next.entry(&path[..at]).or_default().insert(character);
        }
    }
    let pattern = |(prefix, characters): (&str, BTreeSet<char>)| {
        let characters: String = characters.into_iter().collect();
        format!("{directory}{prefix}[^{characters}]*{{,/**}}")
    };
    next.into_iter().map(pattern).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_some_paths() {
        assert_eq!(all_but("/", &["ab", "ac"]), ["/[^a]*{,/**}", "/a[^bc]*{,/**}"]);
        assert_eq!(all_but("/x/", &["a/b"]), ["/x/[^a]*{,/**}", "/x/a[^/]*{,/**}", "/x/a/[^b]*{,/**}"]);
    }

    #[test]
    fn rules_of_ones_own_come_last() {
        let wanted = WantedProfile { rules: vec!["deny /secret r,".into()], ..Default::default() };
        let text = text("a", &wanted);
        assert!(text.ends_with("  deny /secret r,\n}\n"), "{text}");
        assert!(!text.contains("pivot_root"), "{text}");
    }

    #[test]
    fn nesting_allows_mounts_and_policies() {
        let text = text("a", &WantedProfile { nesting: true, ..Default::default() });
        assert!(text.contains("\n  mount,\n") && text.contains("\n  pivot_root,\n"), "{text}");
        assert!(text.contains("deny /sys/kernel/security/[^a]*{,/**} wklx,"), "{text}");
    }
}
