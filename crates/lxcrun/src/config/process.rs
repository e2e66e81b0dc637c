//! `process`.

use oci_spec::runtime::{PosixRlimitType, Spec, User};
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
    check_program(id, process)?;
    check_environment(id, process)?;
    if let Some(affinity) = process.exec_cpu_affinity() {
        // For execs, which may be too late to be told.
        scheduling::CpuAffinity::new(id, affinity)?;
    }
    check_user(id, process)?;
    let linux = spec.linux().as_ref();
    let seccomp = linux.and_then(|l| l.seccomp().as_ref()).map(|wanted| seccomp::compile(id, wanted));
    let seccomp = seccomp.transpose()?;
    let of_container = spec.process().as_ref().map(|first| rlimits(id, first)).transpose()?;
    let rlimits = with_raw(rlimits(id, process)?, &of_container.unwrap_or_default(), raw);
    let user = process.user();
    let named = |label: &Option<String>| label.clone().filter(|l| !l.is_empty());
    let planned = Process {
        args: process.args().clone().unwrap_or_default(),
        env: process.env().clone().unwrap_or_default(),
        cwd: process.cwd().clone(),
        uid: user.uid(),
        gid: user.gid(),
        additional_gids: additional_gids(user),
        umask: user.umask(),
        stdio: stdio(process),
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

fn check_program(id: &ContainerId, process: &oci_spec::runtime::Process) -> Result<()> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(refuse(id, "process.args", "is empty"));
    }
    if !process.cwd().is_absolute() {
        return Err(refuse(id, "process.cwd", format!("{:?} is not absolute", process.cwd())));
    }
    for (field, list) in [("process.args", process.args()), ("process.env", process.env())] {
        if list.iter().flatten().any(|text| text.contains('\0')) {
            return Err(refuse(id, field, "contains a NUL byte"));
        }
    }
    Ok(())
}

/// Fails for what is no `NAME=value`. The words are runc's.
fn check_environment(id: &ContainerId, process: &oci_spec::runtime::Process) -> Result<()> {
    let mut env = process.env().iter().flatten();
    let reason = match env.find(|variable| variable.find('=').is_none_or(|at| at == 0)) {
        None => return Ok(()),
        Some(nameless) if nameless.contains('=') => {
            format!("environment variable name can't be empty: {nameless:?}")
        }
        Some(other) => format!("invalid environment variable: {other:?}"),
    };
    Err(refuse(id, "process.env", reason))
}

fn check_user(id: &ContainerId, process: &oci_spec::runtime::Process) -> Result<()> {
    let user = process.user();
    for (field, number) in [("process.user.uid", user.uid()), ("process.user.gid", user.gid())] {
        // What setresuid(2) takes for "as it is", which is root.
        if number == u32::MAX {
            return Err(refuse(id, field, format!("{number} is nobody's number")));
        }
    }
    Ok(())
}

/// Each once.
fn additional_gids(user: &User) -> Vec<u32> {
    let mut groups = user.additional_gids().clone().unwrap_or_default();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// A terminal of the size that is wanted, or descriptors, which are not known yet.
fn stdio(process: &oci_spec::runtime::Process) -> Stdio {
    if !process.terminal().unwrap_or(false) {
        return Stdio::Fds([0, 1, 2]);
    }
    let cut = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    Stdio::Terminal(process.console_size().map(|size| (cut(size.width()), cut(size.height()))))
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
