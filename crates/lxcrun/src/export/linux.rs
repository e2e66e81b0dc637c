//! `linux`: namespaces, mappings, cgroups, devices and the rest.

use oci_spec::runtime::{
    Linux, LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespaceType, LinuxPersonalityDomain, LinuxResources,
};
use protocol::monitor::Item;

use super::text::Text;
use crate::cgroup;

pub(super) fn linux(text: &mut Text, linux: &Linux, settings: &[&Item]) {
    let networks: Vec<u32> = settings.iter().filter_map(|item| network_number(&item.key)).collect();
    namespaces(text, linux, !networks.is_empty());
    for (field, kind, mappings) in
        [("linux.uidMappings", 'u', linux.uid_mappings()), ("linux.gidMappings", 'g', linux.gid_mappings())]
    {
        for m in mappings.iter().flatten() {
            let value = format!("{kind} {} {} {}", m.container_id(), m.host_id(), m.size());
            text.set(field, "lxc.idmap", &value);
        }
    }
    cgroup_path(text, linux.cgroups_path().as_ref().and_then(|p| p.to_str()));
    if let Some(resources) = linux.resources() {
        limits(text, resources);
    }
    devices(text, linux);
    let mut sysctl: Vec<_> = linux.sysctl().iter().flatten().collect();
    sysctl.sort();
    for (key, value) in sysctl {
        text.set("linux.sysctl", &format!("lxc.sysctl.{key}"), value);
    }
    if let Some(personality) = linux.personality() {
        let arch = match personality.domain() {
            LinuxPersonalityDomain::PerLinux32 => "linux32",
            LinuxPersonalityDomain::PerLinux => "linux64",
        };
        text.set("linux.personality", "lxc.arch", arch);
    }
    offsets(text, linux);
    for (field, asked, instead) in [
        ("linux.seccomp", linux.seccomp().is_some(), "translate it into a file for lxc.seccomp.profile"),
        ("linux.rootfsPropagation", linux.rootfs_propagation().is_some(), "LXC makes all mounts shared"),
        ("linux.mountLabel", linux.mount_label().is_some(), "LXC has no word for it"),
        ("linux.intelRdt", linux.intel_rdt().is_some(), "LXC has no word for it"),
        ("linux.memoryPolicy", linux.memory_policy().is_some(), "LXC has no word for it"),
    ] {
        if asked {
            text.lacks(field, instead);
        }
    }
    net_devices(text, linux, networks.into_iter().max().unwrap_or(0));
}

/// Devices with the numbers after `last`.
fn net_devices(text: &mut Text, linux: &Linux, last: u32) {
    const FIELD: &str = "linux.netDevices";
    let mut all: Vec<_> = linux.net_devices().iter().flatten().collect();
    all.sort_by_key(|(name, _)| *name);
    for ((name, device), number) in all.into_iter().zip(last.saturating_add(1)..) {
        let inside = device.name().as_ref().filter(|inside| !inside.is_empty()).unwrap_or(name);
        for (setting, value) in [("type", "phys"), ("link", name), ("name", inside), ("flags", "up")] {
            text.set(FIELD, &format!("lxc.net.{number}.{setting}"), value);
        }
        let lost = format!("{name}: its addresses stay behind: see lxc.net.{number}.ipv4.address");
        text.lacks(FIELD, &lost);
    }
}

/// The number of the network device that a setting is about.
fn network_number(key: &str) -> Option<u32> {
    key.strip_prefix("lxc.net.")?.split('.').next()?.parse().ok()
}

/// `own_network` is whether the network is that of annotations.
fn namespaces(text: &mut Text, linux: &Linux, own_network: bool) {
    const FIELD: &str = "linux.namespaces";
    let listed = linux.namespaces().as_deref().unwrap_or_default();
    let find = |kind: LinuxNamespaceType| listed.iter().find(|n| n.typ() == kind);
    // What is not cloned is the host's.
    let mut new = vec!["mnt"];
    for (kind, name) in [
        (LinuxNamespaceType::User, "user"),
        (LinuxNamespaceType::Pid, "pid"),
        (LinuxNamespaceType::Uts, "uts"),
        (LinuxNamespaceType::Ipc, "ipc"),
        (LinuxNamespaceType::Network, "net"),
        (LinuxNamespaceType::Cgroup, "cgroup"),
        (LinuxNamespaceType::Time, "time"),
    ] {
        let Some(namespace) = find(kind) else { continue };
        match namespace.path().as_ref().filter(|p| !p.as_os_str().is_empty()) {
            Some(path) => {
                text.set(FIELD, &format!("lxc.namespace.share.{name}"), &path.display().to_string())
            }
            None => new.push(name),
        }
    }
    text.set(FIELD, "lxc.namespace.clone", &new.join(" "));
    if new.contains(&"net") && !own_network {
        text.set(FIELD, "lxc.net.0.type", "empty");
        text.set(FIELD, "lxc.net.0.flags", "up");
    }
    if let Some(mount) = find(LinuxNamespaceType::Mount).and_then(|n| n.path().as_ref()) {
        text.lacks(FIELD, &format!("mount namespace {}: LXC always makes one", mount.display()));
    }
}

fn cgroup_path(text: &mut Text, path: Option<&str>) {
    const FIELD: &str = "linux.cgroupsPath";
    match path.unwrap_or_default() {
        "" => {}
        path if path.contains(':') => text.lacks(FIELD, "LXC does not ask systemd for a scope"),
        path => {
            // Not `lxc.cgroup.dir`: LXC would put its monitor into it, too, and leave a cgroup of its own there.
            let path = path.trim_matches('/');
            text.set(FIELD, "lxc.cgroup.dir.container", path);
            text.set(FIELD, "lxc.cgroup.dir.monitor", &format!("{path}.monitor"));
            text.set(FIELD, "lxc.cgroup.dir.monitor.pivot", &format!("{path}.pivot"));
        }
    }
}

/// The limits in files of cgroup v2, by the runtime's own conversion, one resource after another: what one of them
/// can't have says so and leaves the others alone.
fn limits(text: &mut Text, resources: &LinuxResources) {
    let mut parts = vec![LinuxResources::default(); 7];
    parts[0].set_memory(*resources.memory());
    parts[1].set_cpu(resources.cpu().clone());
    parts[2].set_pids(*resources.pids());
    parts[3].set_block_io(resources.block_io().clone());
    parts[4].set_hugepage_limits(resources.hugepage_limits().clone());
    parts[5].set_network(resources.network().clone());
    parts[6].set_rdma(resources.rdma().clone()).set_unified(resources.unified().clone());
    for part in parts {
        match cgroup::v2_files(&part) {
            Ok(files) => {
                for (field, file, value) in files {
                    text.set(field, &format!("lxc.cgroup2.{file}"), &value);
                }
            }
            Err((field, reason)) => text.lacks(field, &reason),
        }
    }
    for rule in resources.devices().iter().flatten() {
        let verb = if rule.allow() { "allow" } else { "deny" };
        text.set("linux.resources.devices", &format!("lxc.cgroup2.devices.{verb}"), &device_rule(rule));
    }
    text.note("linux.resources", "LXC passes over lxc.cgroup2.* on hosts with cgroup v1");
}

/// `c 1:3 rwm`, or `a` for everything.
fn device_rule(rule: &LinuxDeviceCgroup) -> String {
    let number = |n: Option<i64>| n.filter(|n| *n >= 0).map_or("*".to_owned(), |n| n.to_string());
    let kind = match rule.typ() {
        Some(LinuxDeviceType::B) => "b",
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => "c",
        _ => return "a".into(),
    };
    let access = rule.access().as_deref().filter(|a| !a.is_empty()).unwrap_or("rwm");
    format!("{kind} {}:{} {access}", number(rule.major()), number(rule.minor()))
}

fn devices(text: &mut Text, linux: &Linux) {
    for device in linux.devices().iter().flatten() {
        let path = device.path().display().to_string();
        let target = path.trim_start_matches('/');
        let entry = format!("{path} {target} none bind,create=file,optional 0 0");
        text.set("linux.devices", "lxc.mount.entry", &entry);
        text.note(
            "linux.devices",
            &format!("{path} is the host's node: its number, mode and owner are the host's"),
        );
    }
}

fn offsets(text: &mut Text, linux: &Linux) {
    let mut all: Vec<_> = linux.time_offsets().iter().flatten().collect();
    all.sort_by_key(|(name, _)| name.as_str());
    for (name, offset) in all {
        let key = match name.as_str() {
            "boottime" => "lxc.time.offset.boot",
            _ => "lxc.time.offset.monotonic",
        };
        text.set("linux.timeOffsets", key, &format!("{}s", offset.secs().unwrap_or(0)));
        if offset.nanosecs().is_some_and(|n| n != 0) {
            text.lacks(
                "linux.timeOffsets",
                &format!("{name}.nanosecs: LXC takes seconds or nanoseconds, not both"),
            );
        }
    }
}
