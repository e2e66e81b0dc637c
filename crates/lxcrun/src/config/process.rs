//! `process`.

use oci_spec::runtime::{PosixRlimitType, Spec};
use protocol::init::{Process, Stdio};
use rustix::process::Resource;
use serde::{Deserialize, Serialize};

use super::{capabilities, scheduling, seccomp};
use crate::error::refuse;
use crate::{ContainerId, Result};

/// A limit that is none.
pub(super) const UNLIMITED: u64 = u64::MAX;

/// One `process.rlimits`, or `lxc.prlimit.*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rlimit {
    pub name: PosixRlimitType,
    /// Soft limit, `u64::MAX` for none.
    pub soft: u64,
    /// Hard limit, likewise.
    pub hard: u64,
    /// The field that it comes from.
    pub field: String,
}

impl Rlimit {
    /// What the kernel calls it.
    pub(crate) fn resource(&self) -> Resource {
        resource(self.name)
    }

    /// Whether LXC calls it `name`.
    pub(super) fn is_called(&self, name: &str) -> bool {
        rlimit_of_name(name) == Some(self.name)
    }
}

/// The limit that LXC calls `name`.
pub(super) fn rlimit_of_name(name: &str) -> Option<PosixRlimitType> {
    // What oci-spec says, but for the case: `nofile` is RLIMIT_NOFILE.
    if name.contains(|c: char| !c.is_ascii_lowercase()) {
        return None;
    }
    serde_json::from_value(format!("RLIMIT_{}", name.to_uppercase()).into()).ok()
}

/// The program of a container, whose raw settings have these limits.
pub(super) fn process(id: &ContainerId, spec: &Spec, raw: &[Rlimit]) -> Result<(Process, Vec<Rlimit>)> {
    let Some(process) = spec.process() else { return Err(refuse(id, "process", "is missing")) };
    exec_process(id, spec, process, raw)
}

/// A program in the container of `spec`: its own, or that of an exec.
pub(crate) fn exec_process(
    id: &ContainerId,
    spec: &Spec,
    process: &oci_spec::runtime::Process,
    raw: &[Rlimit],
) -> Result<(Process, Vec<Rlimit>)> {
    let args = process.args().clone().unwrap_or_default();
    if args.is_empty() {
        return Err(refuse(id, "process.args", "is empty"));
    }
    if !process.cwd().is_absolute() {
        return Err(refuse(id, "process.cwd", format!("{:?} is not absolute", process.cwd())));
    }
    let env = process.env().clone().unwrap_or_default();
    for (field, list) in [("process.args", &args), ("process.env", &env)] {
        if list.iter().any(|text| text.contains('\0')) {
            return Err(refuse(id, field, "contains a NUL byte"));
        }
    }
    // The words are runc's.
    match env.iter().find(|variable| variable.find('=').is_none_or(|at| at == 0)) {
        Some(nameless) if nameless.contains('=') => {
            let reason = format!("environment variable name can't be empty: {nameless:?}");
            return Err(refuse(id, "process.env", reason));
        }
        Some(other) => {
            return Err(refuse(id, "process.env", format!("invalid environment variable: {other:?}")));
        }
        None => {}
    }
    if let Some(affinity) = process.exec_cpu_affinity() {
        // For execs, which may be too late to be told.
        scheduling::CpuAffinity::new(id, affinity)?;
    }
    let user = process.user();
    for (field, number) in [("process.user.uid", user.uid()), ("process.user.gid", user.gid())] {
        // What setresuid(2) takes for "as it is", which is root.
        if number == u32::MAX {
            return Err(refuse(id, field, format!("{number} is nobody's number")));
        }
    }
    let size = process.console_size().map(|size| {
        let cut = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
        (cut(size.width()), cut(size.height()))
    });
    let linux = spec.linux().as_ref();
    let seccomp = match linux.and_then(|l| l.seccomp().as_ref()) {
        Some(wanted) => Some(seccomp::compile(id, wanted)?),
        None => None,
    };
    let of_container = match spec.process() {
        Some(first) => rlimits(id, first)?,
        None => Vec::new(),
    };
    let rlimits = with_raw(rlimits(id, process)?, &of_container, raw);
    let named = |label: &Option<String>| label.clone().filter(|l| !l.is_empty());
    let mut groups = user.additional_gids().clone().unwrap_or_default();
    groups.sort_unstable();
    groups.dedup();
    let planned = Process {
        args,
        env,
        cwd: process.cwd().clone(),
        uid: user.uid(),
        gid: user.gid(),
        additional_gids: groups,
        umask: user.umask(),
        stdio: if process.terminal().unwrap_or(false) {
            Stdio::Terminal(size)
        } else {
            Stdio::Fds([0, 1, 2])
        },
        preserved: Vec::new(),
        scheduling: scheduling::scheduling(id, linux, process)?,
        capabilities: capabilities::capabilities(id, process.capabilities().as_ref())?,
        few_descriptors: few_descriptors(&rlimits),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        seccomp,
        apparmor_profile: named(process.apparmor_profile()),
        selinux_label: named(process.selinux_label()),
    };
    Ok((planned, rlimits))
}

/// What the init needs of `RLIMIT_NOFILE`. Where a program may have less, the init takes it from itself at last.
pub(crate) const DESCRIPTORS_OF_INIT: u64 = 64;

fn few_descriptors(limits: &[Rlimit]) -> Option<(u64, u64)> {
    let limit = limits.iter().find(|limit| limit.name == PosixRlimitType::RlimitNofile)?;
    (limit.soft < DESCRIPTORS_OF_INIT).then_some((limit.soft, limit.hard))
}

fn rlimits(id: &ContainerId, process: &oci_spec::runtime::Process) -> Result<Vec<Rlimit>> {
    let mut all: Vec<Rlimit> = Vec::new();
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let field = format!("process.rlimits[{index}]");
        if all.iter().any(|other| other.name == limit.typ()) {
            return Err(refuse(id, field, format!("a second {}", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            return Err(refuse(id, field, format!("{}: the soft limit is above the hard one", limit.typ())));
        }
        all.push(Rlimit { name: limit.typ(), soft: limit.soft(), hard: limit.hard(), field });
    }
    Ok(all)
}

/// Raw limits have the last word, but for an exec that asks for another limit than the container's own program.
fn with_raw(mut wanted: Vec<Rlimit>, of_container: &[Rlimit], raw: &[Rlimit]) -> Vec<Rlimit> {
    for limit in raw {
        let of = |all: &[Rlimit]| {
            all.iter().find(|other| other.name == limit.name).map(|other| (other.soft, other.hard))
        };
        if of(&wanted).is_none() || of(&wanted) == of(of_container) {
            wanted.retain(|other| other.name != limit.name);
            wanted.push(limit.clone());
        }
    }
    wanted
}

fn resource(limit: PosixRlimitType) -> Resource {
    match limit {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}
