//! `linux.seccomp`: compiled here, outside the container, with libseccomp; the init only loads it.

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};
use protocol::init::Seccomp;

use super::enosys;
use crate::error::refuse;
use crate::{ContainerId, Result};

const FIELD: &str = "linux.seccomp";

/// The BPF program for a profile.
pub(super) fn compile(id: &ContainerId, wanted: &LinuxSeccomp) -> Result<Seccomp> {
    check_listener(id, wanted)?;
    let failed =
        |what: String| move |e: libseccomp::error::SeccompError| refuse(id, FIELD, format!("{what}: {e}"));
    let default = action(id, wanted.default_action(), wanted.default_errno_ret())?;
    let mut filter = ScmpFilterContext::new(default).map_err(failed("libseccomp".into()))?;
    filter.set_ctl_nnp(false).map_err(failed("libseccomp".into()))?;
    let architectures: Vec<ScmpArch> =
        wanted.architectures().iter().flatten().map(|arch| architecture(*arch)).collect();
    for arch in &architectures {
        filter.add_arch(*arch).map_err(failed(format!("architecture {arch:?}")))?;
    }
    for (index, rule) in wanted.syscalls().iter().flatten().enumerate() {
        let field = format!("{FIELD}.syscalls[{index}]");
        if rule.names().is_empty() || rule.names().iter().any(String::is_empty) {
            return Err(refuse(id, field, "names no system call"));
        }
        let action = action(id, rule.action(), rule.errno_ret())?;
        if action == default {
            // libseccomp refuses a rule that says what the default says already.
            continue;
        }
        if let Some(arg) = rule.args().iter().flatten().find(|arg| arg.index() > 5) {
            let reason = format!("{} is not from 0 to 5", arg.index());
            return Err(refuse(id, format!("{field}.args.index"), reason));
        }
        for name in rule.names() {
            // A system call that this libseccomp or this machine doesn't know can't be called by its name: profiles
            // list those of all machines, so the specification's users expect them to be passed over.
            let Ok(syscall) = ScmpSyscall::from_name(name) else { continue };
            add(&mut filter, action, syscall, rule.args().as_deref().unwrap_or_default())
                .map_err(|e| refuse(id, &field, format!("{name}: {e}")))?;
        }
    }
    let mut program = enosys::prologue(wanted, &architectures);
    program.append(&mut export(&filter).map_err(|e| refuse(id, FIELD, e))?);
    let flags = flags(wanted);
    // runc counts neither that it loads the filter for all threads nor that it asks for a listener.
    let own = libc::SECCOMP_FILTER_FLAG_LOG
        | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW
        | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    tracing::debug!("seccomp filter flags: {}", flags & own);
    Ok(Seccomp { program, flags })
}

/// An agent that gets notifications must be named, and must get its listener before anything can wait for it: the
/// init still has to send it (sendmsg), and hooks of `start` write. Source: runtime-spec, config-linux.md, "Seccomp".
fn check_listener(id: &ContainerId, wanted: &LinuxSeccomp) -> Result<()> {
    if wanted.default_action() == LinuxSeccompAction::ScmpActNotify {
        let reason = "SCMP_ACT_NOTIFY cannot be used as default action";
        return Err(refuse(id, format!("{FIELD}.defaultAction"), reason));
    }
    for (index, rule) in notifying(wanted).enumerate() {
        if let Some(name) = rule.names().iter().find(|n| matches!(n.as_str(), "write" | "sendmsg")) {
            let reason = format!("SCMP_ACT_NOTIFY cannot be used for the {name} syscall");
            return Err(refuse(id, format!("{FIELD}.syscalls[{index}]"), reason));
        }
    }
    if notifies(wanted) && wanted.listener_path().is_none() {
        return Err(refuse(id, format!("{FIELD}.listenerPath"), "is missing, and SCMP_ACT_NOTIFY needs it"));
    }
    if wanted.listener_metadata().is_some() && wanted.listener_path().is_none() {
        return Err(refuse(id, format!("{FIELD}.listenerMetadata"), "needs listenerPath"));
    }
    Ok(())
}

fn notifying(wanted: &LinuxSeccomp) -> impl Iterator<Item = &LinuxSyscall> {
    wanted.syscalls().iter().flatten().filter(|r| r.action() == LinuxSeccompAction::ScmpActNotify)
}

fn notifies(wanted: &LinuxSeccomp) -> bool {
    notifying(wanted).next().is_some()
}

/// libseccomp before 2.6 writes its program only to a descriptor.
fn export(filter: &ScmpFilterContext) -> Result<Vec<u8>, String> {
    use std::io::{Read, Seek};
    let memfd =
        rustix::fs::memfd_create("seccomp", rustix::fs::MemfdFlags::CLOEXEC).map_err(|e| e.to_string())?;
    filter.export_bpf(&memfd).map_err(|e| e.to_string())?;
    let mut file = std::fs::File::from(memfd);
    let mut program = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut program)).map_err(|e| e.to_string())?;
    Ok(program)
}

/// Conditions of one rule must all hold; libseccomp can't compare one argument twice in one rule, so such
/// conditions become rules of their own, as in runc.
fn add(
    filter: &mut ScmpFilterContext,
    action: ScmpAction,
    syscall: ScmpSyscall,
    args: &[LinuxSeccompArg],
) -> Result<(), libseccomp::error::SeccompError> {
    let compares: Vec<ScmpArgCompare> = args.iter().map(compare).collect();
    let twice = (0..6).any(|index| args.iter().filter(|a| a.index() == index).count() > 1);
    if compares.is_empty() {
        filter.add_rule(action, syscall)?;
    } else if twice {
        for compare in compares {
            filter.add_rule_conditional(action, syscall, &[compare])?;
        }
    } else {
        filter.add_rule_conditional(action, syscall, &compares)?;
    }
    Ok(())
}

pub(super) fn compare(arg: &LinuxSeccompArg) -> ScmpArgCompare {
    let index = u32::try_from(arg.index()).unwrap_or(u32::MAX);
    let op = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => ScmpCompareOp::NotEqual,
        LinuxSeccompOperator::ScmpCmpLt => ScmpCompareOp::Less,
        LinuxSeccompOperator::ScmpCmpLe => ScmpCompareOp::LessOrEqual,
        LinuxSeccompOperator::ScmpCmpEq => ScmpCompareOp::Equal,
        LinuxSeccompOperator::ScmpCmpGe => ScmpCompareOp::GreaterEqual,
        LinuxSeccompOperator::ScmpCmpGt => ScmpCompareOp::Greater,
        // The specification's value is the mask, its valueTwo what is left under it.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            return ScmpArgCompare::new(
                index,
                ScmpCompareOp::MaskedEqual(arg.value()),
                arg.value_two().unwrap_or(0),
            );
        }
    };
    ScmpArgCompare::new(index, op, arg.value())
}

fn action(id: &ContainerId, action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction> {
    let has_number = matches!(action, LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace);
    if let Some(number) = errno.filter(|_| !has_number) {
        return Err(refuse(id, FIELD, format!("errnoRet {number} is not for {action}")));
    }
    let number = errno.unwrap_or(libc::EPERM.unsigned_abs());
    let too_large = || refuse(id, FIELD, format!("errnoRet {number} is no error number"));
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => {
            // A larger one is none to the C library: errno(3), MAX_ERRNO of the kernel.
            let number = i32::try_from(number).ok().filter(|number| *number <= 4095);
            ScmpAction::Errno(number.ok_or_else(too_large)?)
        }
        LinuxSeccompAction::ScmpActTrace => {
            ScmpAction::Trace(u16::try_from(number).map_err(|_| too_large())?)
        }
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActNotify => ScmpAction::Notify,
    })
}

fn flags(wanted: &LinuxSeccomp) -> u64 {
    let bit = |flag: &LinuxSeccompFilterFlag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
            libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
        }
    };
    let mut flags = match wanted.flags() {
        Some(flags) => flags.iter().fold(0, |all, flag| all | bit(flag)),
        // As runc has it: else kernels before 5.16 slow down every program with a filter.
        None => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    };
    if notifies(wanted) {
        flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        if flags & libc::SECCOMP_FILTER_FLAG_TSYNC != 0 {
            // Both want the return value: seccomp(2).
            flags |= libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
        }
    }
    flags
}

fn architecture(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
    }
}
