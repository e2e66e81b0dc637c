//! Errors about a specification, told in the fields of the command that it was compiled from.

use lxcrun::FailureKind;
use lxcrun::oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::error::Error;
use crate::spec::BUILT_IN_MOUNTS;
use crate::{Command, Network};

/// Fields of a specification and those of [`Command`]. What begins with one of the left may go on with members and indices,
/// which stay.
const FIELDS: [(&str, &str); 44] = [
    ("root.path", "rootfs"),
    ("root.readonly", "readonly_rootfs"),
    ("root", "rootfs"),
    ("hostname", "hostname"),
    ("process.args", "process_config.entrypoint"),
    ("process.env", "process_config.env"),
    // The command has one field for all of them.
    ("process.user.uid", "process_config.user"),
    ("process.user.gid", "process_config.user"),
    ("process.user.additionalGids", "process_config.user"),
    ("process.user", "process_config.user"),
    ("process.terminal", "process_config.tty"),
    ("process.consoleSize", "process_config.console_size"),
    ("process.noNewPrivileges", "process_config.no_new_privileges"),
    ("process.capabilities.bounding", "process_config.capabilities"),
    ("process.capabilities.effective", "process_config.capabilities"),
    ("process.capabilities.permitted", "process_config.capabilities"),
    ("process.capabilities", "process_config.capabilities"),
    ("process.apparmorProfile", "apparmor_profile"),
    ("process.selinuxLabel", "process_label"),
    ("process.rlimits", "resources.rlimits"),
    ("process", "process_config"),
    ("linux.uidMappings", "userns"),
    ("linux.gidMappings", "userns"),
    ("linux.cgroupsPath", "cgroup_parent"),
    ("linux.mountLabel", "mount_label"),
    ("linux.seccomp", "seccomp"),
    ("linux.devices", "autocreated_devices"),
    ("linux.resources.memory.limit", "resources.memory"),
    ("linux.resources.memory.reservation", "resources.memory_reservation"),
    ("linux.resources.memory.swappiness", "resources.memory_swappiness"),
    ("linux.resources.memory.swap", "resources.memory_swap"),
    ("linux.resources.memory.disableOOMKiller", "resources.oom_kill_disable"),
    ("linux.resources.memory", "resources.memory"),
    ("linux.resources.cpu.shares", "resources.cpu_shares"),
    ("linux.resources.cpu.period", "resources.cpu_period"),
    ("linux.resources.cpu.quota", "resources.cpu_quota"),
    ("linux.resources.cpu.cpus", "resources.cpuset_cpus"),
    ("linux.resources.cpu.mems", "resources.cpuset_mems"),
    ("linux.resources.blockIO.weight", "resources.blkio_weight"),
    ("linux.resources.pids.limit", "resources.pids_limit"),
    ("linux.resources.pids", "resources.pids_limit"),
    ("linux.resources.hugepageLimits", "resources.hugepage_limits"),
    ("linux.resources", "resources"),
    ("linux.namespaces", "network, ipc, pid, uts, cgroupns, timens, userns"),
];

/// What reasons point to, likewise: only whole names, the longest first.
const POINTERS: [(&str, &str); 11] = [
    ("linux.uidMappings and gidMappings", "userns"),
    ("linux.namespaces", "network, ipc, pid, uts, cgroupns, timens and userns"),
    ("linux.cgroupsPath", "cgroup_parent"),
    ("linux.seccomp", "seccomp"),
    ("process.noNewPrivileges", "process_config.no_new_privileges"),
    ("process.selinuxLabel", "process_label"),
    ("process.capabilities", "cap_add and cap_drop"),
    ("process.terminal", "process_config.tty"),
    ("process.args", "process_config"),
    ("process.env", "process_config.env"),
    ("root.path", "rootfs"),
];

/// The same error with the field that the embedding program has written. What it has not written keeps its name.
pub(crate) fn in_command(command: &Command, spec: &Spec, error: lxcrun::Error) -> Error {
    told_by(&|field| field_of(command, spec, field), &|key| interface(command, key), error)
}

/// The same for one more process.
pub(crate) fn in_process(error: lxcrun::Error) -> Error {
    let field_of = |field: &str| match field {
        "process.cwd" => Some("process_config.working_dir".into()),
        _ if field.starts_with("process") => listed(field),
        _ => None,
    };
    told_by(&field_of, &|_| None, error)
}

type Translate<'a> = &'a dyn Fn(&str) -> Option<String>;

fn told_by(field_of: Translate<'_>, interface: Translate<'_>, error: lxcrun::Error) -> Error {
    match error {
        lxcrun::Error::Spec { id, field, reason } => match field_of(&field) {
            Some(field) => {
                let reason = POINTERS.iter().fold(reason, |text, (of, to)| text.replace(of, to));
                Error::Field { id: id.to_string(), field, reason }
            }
            None => lxcrun::Error::Spec { id, field, reason }.into(),
        },
        lxcrun::Error::Refused { id, field, key, value, log } => {
            let field = interface(&key).or_else(|| field_of(&field)).unwrap_or(field);
            let reason = format!("liblxc refused {key} = {value:?}{log}");
            Error::Field { id: id.to_string(), field, reason }
        }
        // Its exit code goes with one of the program itself.
        lxcrun::Error::Init { id, failure } if failure.kind == FailureKind::Other => {
            match said_by_init(field_of, &failure.message) {
                Some((field, reason)) => Error::Field { id: id.to_string(), field, reason },
                None => lxcrun::Error::Init { id, failure }.into(),
            }
        }
        other => other.into(),
    }
}

/// Field and reason of what the init says: `WHERE: FIELD (VALUE): WHY`, of which only the field is always there.
fn said_by_init(field_of: Translate<'_>, message: &str) -> Option<(String, String)> {
    let mut begin = 0;
    loop {
        let rest = &message[begin..];
        let length = rest.find([':', ' ']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(length);
        if let Some(field) = field_of(name) {
            let reason = rest.trim_start_matches([':', ' ']);
            return Some((field, format!("{}{reason}", &message[..begin])));
        }
        begin += message[begin..].find(": ")? + 2;
    }
}

fn field_of(command: &Command, spec: &Spec, field: &str) -> Option<String> {
    if let Some((index, rest)) = indexed(field, "mounts") {
        // Those before are ours.
        let index = index.checked_sub(BUILT_IN_MOUNTS)?;
        let rest = if rest == ".type" { ".fstype" } else { rest };
        // Those behind are of `lxc.mount.entry`.
        let is_ours = index < command.mounts.len();
        return Some(if is_ours { format!("mounts[{index}]{rest}") } else { "lxc_config".into() });
    }
    if let Some((index, rest)) = indexed(field, "linux.resources.devices") {
        // The first one denies all.
        let index = index.checked_sub(1)?;
        let allowed = command.allowed_devices.len();
        return Some(match index.checked_sub(allowed) {
            Some(created) => format!("autocreated_devices[{created}]{rest}"),
            None => format!("allowed_devices[{index}]{rest}"),
        });
    }
    if let Some((index, _)) = indexed(field, "linux.namespaces") {
        let namespaces = spec.linux().as_ref()?.namespaces().as_ref()?;
        return namespace(namespaces.get(index)?.typ()).map(str::to_owned);
    }
    if field == "process.cwd" {
        let of_process = command.process_config.working_dir.is_some();
        return Some(if of_process { "process_config.working_dir" } else { "working_dir" }.into());
    }
    if field == "lxc_config" {
        return Some(field.into());
    }
    listed(field)
}

/// By [`FIELDS`].
fn listed(field: &str) -> Option<String> {
    FIELDS.iter().find_map(|(of, to)| {
        let rest = field.strip_prefix(of)?;
        (rest.is_empty() || rest.starts_with(['.', '['])).then(|| format!("{to}{rest}"))
    })
}

/// The index and the rest of `NAME[INDEX]REST`.
fn indexed<'a>(field: &'a str, name: &str) -> Option<(usize, &'a str)> {
    let (index, rest) = field.strip_prefix(name)?.strip_prefix('[')?.split_once(']')?;
    Some((index.parse().ok()?, rest))
}

fn namespace(kind: LinuxNamespaceType) -> Option<&'static str> {
    Some(match kind {
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Cgroup => "cgroupns",
        LinuxNamespaceType::Time => "timens",
        LinuxNamespaceType::User => "userns",
        _ => return None,
    })
}

/// The field of an interface that a key of LXC's was made from.
fn interface(command: &Command, key: &str) -> Option<String> {
    let Network::Interfaces(all) = &command.network else { return None };
    let (index, setting) = key.strip_prefix("lxc.net.")?.split_once('.')?;
    all.get(index.parse::<usize>().ok()?)?;
    let member = match setting {
        "type" | "link" | "name" | "mtu" => setting,
        "hwaddr" => "mac",
        "veth.pair" => "host_name",
        "vlan.id" => "vlan_id",
        "ipv4.address" | "ipv6.address" => "addresses",
        "ipv4.gateway" => "gateway",
        "ipv6.gateway" => "gateway6",
        mode if mode.ends_with(".mode") => "mode",
        _ => return None,
    };
    Some(format!("network.interfaces[{index}].{member}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{Device, Facts, Interface, Mount, Namespace};

    #[test]
    fn errors_name_the_field_that_was_written() {
        let command = Command::builder("web", "/srv/web")
            .args(["x"])
            .mount(Mount::bind("/a", "/b"))
            .allow_device(Device::block("/dev/x", 8, 0))
            .create_device(Device::character("/dev/y", 10, 229))
            .network(Network::Interfaces(vec![Interface::veth("br0")]))
            .pid(Namespace::Host)
            .build()
            .unwrap();
        let spec = command.compile(&Facts::default()).unwrap();
        let named = |field: &str| field_of(&command, &spec, field);
        for (of, to) in [
            ("mounts[6].source", "mounts[0].source"),
            ("mounts[6].type", "mounts[0].fstype"),
            ("mounts[7].source", "lxc_config"),
            ("linux.resources.devices[1]", "allowed_devices[0]"),
            ("linux.resources.devices[2].type", "autocreated_devices[0].type"),
            ("linux.devices[0].path", "autocreated_devices[0].path"),
            ("linux.namespaces[1].path", "network"),
            ("linux.namespaces[2].path", "ipc"),
            ("linux.namespaces[3].path", "uts"),
            ("linux.resources.memory.swappiness", "resources.memory_swappiness"),
            ("linux.resources.memory.swap", "resources.memory_swap"),
            ("linux.resources.hugepageLimits[0].limit", "resources.hugepage_limits[0].limit"),
            ("process.cwd", "working_dir"),
            ("process.rlimits[0]", "resources.rlimits[0]"),
            ("linux.seccomp.syscalls[0]", "seccomp.syscalls[0]"),
        ] {
            assert_eq!(named(of).as_deref(), Some(to), "{of}");
        }
        for (said, field, reason) in [
            ("process.cwd (/x): not a directory", "working_dir", "(/x): not a directory"),
            ("process.user.uid 5000: invalid argument", "process_config.user", "5000: invalid argument"),
            (
                "error mounting \"nofs\": mounts[6]: no such device",
                "mounts[0]",
                "error mounting \"nofs\": no such device",
            ),
            ("hostname: too long", "hostname", "too long"),
        ] {
            assert_eq!(said_by_init(&named, said), Some((field.into(), reason.into())), "{said}");
        }
        assert_eq!(said_by_init(&named, "the gate: closed"), None);
        // What nobody has written.
        for of in ["mounts[5].source", "linux.maskedPaths", "linux.namespaces[0].path", "rootless"] {
            assert_eq!(named(of), None, "{of}");
        }
    }
}
