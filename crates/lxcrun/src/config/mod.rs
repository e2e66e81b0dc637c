//! From a specification to a plan. No input or output happens here: facts about the host come in through
//! [`Host`], and what the plan needs opened is opened by `create`.

mod attach;
mod capabilities;
mod devices;
mod enosys;
mod hooks;
pub(crate) mod labels;
mod lxc;
pub(crate) mod lxcfs;
mod mounts;
mod namespaces;
mod netdevices;
mod process;
mod profile;
mod raw;
mod raw_annotations;
mod raw_keys;
mod raw_values;
mod resctrl;
mod scheduling;
mod seccomp;
mod unsupported;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, Spec};
use protocol::Hook;
use protocol::init::{Device, Process, Propagation};
use protocol::monitor::Item;

pub(crate) use attach::NOTHING as ATTACH_NOTHING;
pub(crate) use capabilities::{CAPABILITIES, capability_name};
pub(crate) use hooks::{HookKind, hooks};
pub(crate) use lxc::{ATTACH_FILTER, LOG_FILE, Surroundings, render};
pub(crate) use mounts::{ATIMES, IdMap, LOCKED, MountKind, PlannedMount, attributes_of, is_mount_option};
pub(crate) use namespaces::{Namespaces, Sharing, UserNamespace, namespace_names};
pub(crate) use netdevices::NetDevice;
pub(crate) use process::{DESCRIPTORS_OF_INIT, Rlimit, exec_process};
pub(crate) use profile::WantedProfile;
pub(crate) use raw::RawSettings;
pub use raw_annotations::{ANNOTATION_PREFIX, SYSTEM_CONFIG};
pub(crate) use raw_keys::OWN as OWN_KEYS;
pub(crate) use resctrl::IntelRdt;
pub(crate) use scheduling::CpuAffinity;
pub(crate) use unsupported::check as check_supported;

use crate::cgroup::{CgroupPath, Layout};
use crate::error::refuse;
use crate::{ContainerId, Host, Result};

/// LXC's settings for the whole host: lxc.system.conf(5).
const LXC_SYSTEM_CONFIG: &str = "/etc/lxc/lxc.conf";

/// Everything that will be done for a container, decided before anything is done.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The namespaces.
    pub namespaces: Namespaces,
    /// The mappings of its user namespace, each with its field, in LXC's form.
    pub id_maps: Vec<(&'static str, String)>,
    pub intel_rdt: Option<IntelRdt>,
    /// Devices that move into its network namespace.
    pub net_devices: Vec<NetDevice>,
    /// The cgroup, below the root of every hierarchy.
    pub cgroup: CgroupPath,
    /// The root's path on the host.
    pub rootfs: PathBuf,
    pub rootfs_readonly: bool,
    pub rootfs_propagation: Option<(Propagation, bool)>,
    pub mounts: Vec<PlannedMount>,
    pub devices: Vec<Device>,
    pub dev_links: bool,
    /// The host name, in a UTS namespace that is not new.
    pub hostname: Option<String>,
    /// The name of a new UTS namespace, which liblxc sets, and its field.
    pub uts_name: Option<(String, String)>,
    pub domainname: Option<String>,
    /// The offsets of a time namespace that the init makes.
    pub time_namespace: Option<String>,
    pub sysctl: Vec<(String, String)>,
    pub masked_paths: Vec<PathBuf>,
    pub readonly_paths: Vec<PathBuf>,
    pub create_container_hooks: Vec<Hook>,
    pub start_container_hooks: Vec<Hook>,
    /// Hooks of the runtime's namespaces that run at `create`, in their order.
    pub create_runtime_hooks: Vec<Hook>,
    /// To be run if the container fails.
    pub poststop_hooks: Vec<Hook>,
    /// Settings that only LXC has.
    pub raw: RawSettings,
    pub process: Process,
    pub terminal: bool,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<i32>,
}

impl Plan {
    /// Checks `spec` and decides what to do about each of its fields.
    ///
    /// # Errors
    /// [`Error::Spec`](crate::Error::Spec) with the field, for what is wrong and for what can't be had.
    pub(crate) fn new(
        id: &ContainerId,
        bundle: &Path,
        spec: &Spec,
        host: &Host,
        lxc_config: &[(String, String)],
    ) -> Result<Self> {
        unsupported::check(id, spec)?;
        let raw = RawSettings::new(id, spec, lxc_config)?;
        raw.check_cgroup_version(id, host.cgroup_layout())?;
        let nothing = nothing_of_linux();
        let linux = spec.linux().as_ref().unwrap_or(&nothing);
        let namespaces = Namespaces::new(id, linux)?;
        namespaces.check_host_names(id, spec)?;
        let (rootfs, rootfs_readonly) = rootfs(id, bundle, spec)?;
        let (process, rlimits) = program(id, spec, host, &namespaces, &raw)?;
        if raw.has_network() && !namespaces.is_new("network") {
            let reason = "an LXC network needs a new network namespace in linux.namespaces";
            return Err(refuse(id, "lxc.net", reason));
        }
        let mounts = all_mounts(id, bundle, spec, host, &namespaces, &raw)?;
        let dev_links = mounts::dev_is_ours(&mounts);
        // `start` reads them again: by then it is too late to refuse one.
        hooks(id, spec, HookKind::Poststart)?;
        Ok(Self {
            intel_rdt: resctrl::intel_rdt(id, linux)?,
            net_devices: netdevices::net_devices(id, linux, &namespaces)?,
            id_maps: namespaces.id_maps(id, linux)?,
            cgroup: CgroupPath::new(id, linux.cgroups_path().as_deref())?,
            rootfs,
            rootfs_readonly,
            rootfs_propagation: mounts::rootfs_propagation(id, linux)?,
            devices: devices::devices(id, linux, namespaces.has_user(), dev_links)?,
            dev_links,
            mounts,
            hostname: spec.hostname().clone().filter(|_| !namespaces.is_new("uts")),
            uts_name: namespaces.uts_name(id, spec, raw.hostname.as_ref())?,
            domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
            time_namespace: namespaces.time_offsets(id, linux, &raw.time_offsets)?,
            sysctl: sysctl(id, linux, &namespaces, &raw.sysctls)?,
            masked_paths: absolute(id, "linux.maskedPaths", linux.masked_paths().as_deref())?,
            readonly_paths: from_root(linux.readonly_paths().as_deref()),
            create_container_hooks: hooks(id, spec, HookKind::CreateContainer)?,
            start_container_hooks: hooks(id, spec, HookKind::StartContainer)?,
            create_runtime_hooks: runtime_hooks(id, spec)?,
            poststop_hooks: hooks(id, spec, HookKind::Poststop)?,
            terminal: spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal).unwrap_or(false),
            oom_score_adj: oom_score_adj(spec, &raw),
            process,
            rlimits,
            namespaces,
            raw,
        })
    }

    /// Whether we make the cgroups of a container that has no LXC monitor, and hide them from liblxc.
    ///
    /// liblxc makes one in every hierarchy for its monitor, too, and moves it there: half of the work, for nothing when
    /// the monitor retires. Version 2 has a single hierarchy, and liblxc a way to be born into it.
    pub(crate) fn makes_cgroups(&self, host: &Host) -> bool {
        self.cgroup.is_some()
            && host.cgroup_layout() == Layout::Legacy
            && !self.namespaces.has_user()
            // A cgroup namespace begins where its first process is, and liblxc knows when to make it: after entering the
            // cgroups.
            && !self.namespaces.is_new("cgroup")
            && !self.liblxc_makes_a_cgroup_namespace_unasked()
            // A list of controllers that liblxc insists on.
            && !Path::new(LXC_SYSTEM_CONFIG).exists()
    }

    /// Whether liblxc puts the container, which is to be in the host's cgroup namespace, into one of its own: it does so where it
    /// joins other namespaces. A container with a user namespace has no right to come back.
    pub(crate) fn liblxc_makes_a_cgroup_namespace_unasked(&self) -> bool {
        self.cgroup.is_some()
            && !self.namespaces.has_user()
            && self.namespaces.get("cgroup").is_none()
            && !self.namespaces.for_lxc(&[]).1.is_empty()
    }

    /// Whether LXC's monitor stays in the cgroups that it is in. In version 2 a cgroup of its own is a single directory, and
    /// keeps it out of one that passes controllers down, which may have no processes. That of a unit of systemd ends with the
    /// last process in it: there the monitor is the first, and stays until the init is in.
    pub(crate) fn monitor_stays_in_cgroups(&self, host: &Host) -> bool {
        host.cgroup_layout() == Layout::Legacy || self.cgroup.is_of_unit()
    }

    /// Whether the container gets its cgroup to change: runtime-spec, config-linux.md, "Cgroup ownership".
    pub(crate) fn owns_cgroup(&self, host: &Host) -> bool {
        let writable = |mount: &PlannedMount| matches!(mount.kind, MountKind::Cgroup { readonly: false });
        host.cgroup_layout() == Layout::Unified
            && self.namespaces.is_new("cgroup")
            && self.mounts.iter().any(writable)
    }

    /// The LXC configuration, every item with the field that it comes from.
    ///
    /// # Errors
    /// [`Error::Spec`](crate::Error::Spec) for a value of more than one line: the file would have a setting more.
    pub(crate) fn lxc_config(
        &self,
        id: &ContainerId,
        spec: &Spec,
        surroundings: &Surroundings<'_>,
    ) -> Result<Vec<Item>> {
        let items = lxc::config(self, spec, surroundings);
        match items.iter().find(|item| item.value.contains(['\n', '\0'])) {
            Some(Item { key, value, field }) => {
                Err(refuse(id, field, format!("{key} = {value:?} has more than one line")))
            }
            None => Ok(items),
        }
    }
}

/// `root`: its path, which must be that of a directory, and whether it is read-only.
fn rootfs(id: &ContainerId, bundle: &Path, spec: &Spec) -> Result<(PathBuf, bool)> {
    let Some(root) = spec.root() else { return Err(refuse(id, "root", "is missing")) };
    if root.path().as_os_str().is_empty() {
        return Err(refuse(id, "root.path", "is missing"));
    }
    let mut path = bundle.join(root.path());
    if path.is_symlink() {
        // A mount is attached to what it leads to.
        path =
            path.canonicalize().map_err(|e| refuse(id, "root.path", format!("{}: {e}", path.display())))?;
    }
    if !path.is_dir() {
        return Err(refuse(id, "root.path", format!("{} is not a directory", path.display())));
    }
    Ok((path, root.readonly().unwrap_or(false)))
}

/// The container's program, with what raw settings say of it and within what can be had here, and its limits.
fn program(
    id: &ContainerId,
    spec: &Spec,
    host: &Host,
    namespaces: &Namespaces,
    raw: &RawSettings,
) -> Result<(Process, Vec<Rlimit>)> {
    let (mut process, rlimits) = process::process(id, spec, &raw.rlimits)?;
    if raw.apparmor_profile.is_some() {
        process.apparmor_profile.clone_from(&raw.apparmor_profile);
    }
    labels::settle(id, host.security, &mut process)?;
    if !namespaces.has_user() {
        capabilities::check_available(id, process.capabilities, host.capabilities)?;
    }
    Ok((process, rlimits))
}

/// The mounts of the specification, then those that raw settings ask for.
fn all_mounts(
    id: &ContainerId,
    bundle: &Path,
    spec: &Spec,
    host: &Host,
    namespaces: &Namespaces,
    raw: &RawSettings,
) -> Result<Vec<PlannedMount>> {
    let mut mounts = mounts::mounts(id, bundle, spec, host, &raw.mounts)?;
    if let Some(field) = &raw.delegation {
        check_delegation(id, field, namespaces, host)?;
        mounts.iter_mut().for_each(PlannedMount::make_cgroup_writable);
    }
    if let Some(field) = &raw.lxcfs {
        mounts.extend(lxcfs::mounts(id, field, namespaces, &mounts)?);
    }
    Ok(mounts)
}

/// `prestart` hooks are older, and go first.
fn runtime_hooks(id: &ContainerId, spec: &Spec) -> Result<Vec<Hook>> {
    Ok([hooks(id, spec, HookKind::Prestart)?, hooks(id, spec, HookKind::CreateRuntime)?].concat())
}

fn oom_score_adj(spec: &Spec, raw: &RawSettings) -> Option<i32> {
    let wanted = spec.process().as_ref().and_then(oci_spec::runtime::Process::oom_score_adj);
    wanted.filter(|_| !raw.sets_oom_score_adj())
}

/// The filter that lxc-attach loads, in LXC's words; `None` without `linux.seccomp`.
pub(crate) fn attach_filter(spec: &Spec) -> Option<String> {
    spec.linux().as_ref()?.seccomp().as_ref().map(attach::filter)
}

/// What a specification without `linux` says. oci-spec's default is a container with namespaces, masked paths and limits.
pub(crate) fn nothing_of_linux() -> Linux {
    serde_json::from_str("{}").unwrap_or_default()
}

/// Version 1 is not safe to delegate, and without a namespace the container would see all that is above its part.
fn check_delegation(id: &ContainerId, field: &str, namespaces: &Namespaces, host: &Host) -> Result<()> {
    if host.cgroup_layout() != Layout::Unified {
        return Err(refuse(id, field, "a cgroup can be delegated only on a host with cgroup v2 alone"));
    }
    if !namespaces.is_new("cgroup") {
        return Err(refuse(id, field, "needs a new cgroup namespace in linux.namespaces"));
    }
    Ok(())
}

/// `linux.sysctl`, and raw ones after it: only what the kernel keeps per namespace, in a namespace that is the container's
/// own.
fn sysctl(
    id: &ContainerId,
    linux: &Linux,
    namespaces: &Namespaces,
    raw: &[Item],
) -> Result<Vec<(String, String)>> {
    let mut all: Vec<(String, String)> = linux.sysctl().clone().unwrap_or_default().into_iter().collect();
    all.sort();
    for (key, _) in &all {
        check_sysctl(id, "linux.sysctl", key, namespaces)?;
    }
    for Item { key, value, field } in raw {
        let key = key.trim_start_matches("lxc.sysctl.");
        check_sysctl(id, field, key, namespaces)?;
        all.push((key.to_owned(), value.clone()));
    }
    Ok(all)
}

fn check_sysctl(id: &ContainerId, field: &str, key: &str, namespaces: &Namespaces) -> Result<()> {
    let dotted = key.replace('/', ".");
    let namespace = match dotted.as_str() {
        k if k.starts_with("net.") => "network",
        k if k.starts_with("fs.mqueue.") || IPC_SYSCTLS.contains(&k) => "ipc",
        "kernel.hostname" => {
            return Err(refuse(id, field, format!("{key} is what \"hostname\" is for")));
        }
        "kernel.domainname" => "uts",
        k if k.starts_with("user.") => "user",
        _ => {
            let reason = format!("{key} is not kept per namespace: it would change the host");
            return Err(refuse(id, field, reason));
        }
    };
    if !namespaces.is_private(namespace) {
        let reason = format!("{key} needs a {namespace} namespace of the container's own");
        return Err(refuse(id, field, reason));
    }
    if key.split(['.', '/']).any(|part| part.is_empty()) {
        return Err(refuse(id, field, format!("{key:?} is no name")));
    }
    Ok(())
}

/// sysctls of the IPC namespace: ipc_namespaces(7).
const IPC_SYSCTLS: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.msg_next_id",
];

/// runc takes those that are not absolute for relative to the root.
fn from_root(paths: Option<&[String]>) -> Vec<PathBuf> {
    paths.unwrap_or_default().iter().map(|path| Path::new("/").join(path)).collect()
}

fn absolute(id: &ContainerId, field: &str, paths: Option<&[String]>) -> Result<Vec<PathBuf>> {
    let paths = paths.unwrap_or_default().iter().map(PathBuf::from);
    paths
        .map(
            |p| {
                if p.is_absolute() { Ok(p) } else { Err(refuse(id, field, format!("{p:?} is not absolute"))) }
            },
        )
        .collect()
}
