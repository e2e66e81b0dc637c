//! `linux.seccomp` in LXC's own words, for lxc-attach: the init has the real filter.
//!
//! lxc-attach asks the monitor for `lxc.seccomp.profile` and loads what that file says; when it can't make sense of it,
//! it warns and goes on without. So the file never allows more than the specification: what LXC can't say stays
//! forbidden, and where that would not be so, nothing at all is allowed, which ends the process before its program.

use std::collections::BTreeSet;

use libseccomp::{ScmpAction, ScmpArch, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::seccomp::compare;

/// A filter under which nothing happens.
pub(crate) const NOTHING: &str = "2\nallowlist kill\n";

/// The file for a profile.
pub(super) fn filter(wanted: &LinuxSeccomp) -> String {
    translate(wanted).unwrap_or_else(|reason| format!("{NOTHING}# {reason}\n"))
}

fn translate(wanted: &LinuxSeccomp) -> Result<String, String> {
    let architectures = architectures(wanted)?;
    let default = word(wanted.default_action(), wanted.default_errno_ret())?;
    let kind = if default == "allow" { "denylist" } else { "allowlist" };
    let mut lines = BTreeSet::new();
    for rule in wanted.syscalls().iter().flatten() {
        let action = word(rule.action(), rule.errno_ret())?;
        if action == default {
            continue; // liblxc refuses such a rule, and with it the file.
        }
        for (name, args) in calls(rule) {
            if fits(name, &args, architectures) {
                let args: String = args.iter().copied().map(argument).collect();
                lines.insert(format!("{name} {action} {args}"));
            } else if default == "allow" {
                return Err(format!("{name}: LXC can't compare its arguments"));
            } else {
                lines.insert(format!("# {name}: LXC can't compare its arguments"));
            }
        }
    }
    let lines: Vec<String> = lines.into_iter().collect();
    Ok(format!("2\n{kind} {default}\n{}\n", lines.join("\n")))
}

/// Those that LXC puts every rule on, which the profile must name, too: it ends a process that calls through another.
fn architectures(wanted: &LinuxSeccomp) -> Result<&'static [ScmpArch], String> {
    let named = wanted.architectures().as_deref().unwrap_or_default();
    let (needed, others): (&[Arch], &[ScmpArch]) = match std::env::consts::ARCH {
        "x86_64" => (&[Arch::ScmpArchX86, Arch::ScmpArchX32], &[ScmpArch::X86, ScmpArch::X32]),
        "aarch64" => (&[Arch::ScmpArchArm], &[ScmpArch::Arm]),
        machine => return Err(format!("not known for {machine}")),
    };
    match needed.iter().find(|arch| !named.contains(arch)) {
        Some(missing) => Err(format!("LXC would allow the same through {missing:?}")),
        None => Ok(others),
    }
}

fn word(action: LinuxSeccompAction, errno: Option<u32>) -> Result<String, String> {
    Ok(match action {
        LinuxSeccompAction::ScmpActKill
        | LinuxSeccompAction::ScmpActKillThread
        | LinuxSeccompAction::ScmpActKillProcess => "kill".into(),
        LinuxSeccompAction::ScmpActTrap => "trap".into(),
        LinuxSeccompAction::ScmpActErrno => {
            format!("errno {}", errno.unwrap_or(libc::EPERM.unsigned_abs()))
        }
        LinuxSeccompAction::ScmpActAllow => "allow".into(),
        other => return Err(format!("LXC has no word for {other}")),
    })
}

/// Each known call of a rule with conditions that must hold together: see `seccomp::add`.
fn calls(rule: &LinuxSyscall) -> impl Iterator<Item = (&str, Vec<LinuxSeccompArg>)> {
    let args = rule.args().clone().unwrap_or_default();
    let twice = (0..6).any(|index| args.iter().filter(|a| a.index() == index).count() > 1);
    let cases = if twice { args.into_iter().map(|arg| vec![arg]).collect() } else { vec![args] };
    let known = rule.names().iter().filter(|name| ScmpSyscall::from_name(name).is_ok());
    known.flat_map(move |name| cases.clone().into_iter().map(move |args| (name.as_str(), args)))
}

/// Whether libseccomp takes the comparisons the way liblxc asks for them: exactly, for each architecture by itself. It
/// doesn't for calls that 32-bit programs make through socketcall(2) and ipc(2).
fn fits(name: &str, args: &[LinuxSeccompArg], others: &[ScmpArch]) -> bool {
    let compares: Vec<_> = args.iter().map(compare).collect();
    let takes = |arch: ScmpArch| {
        let mut filter = ScmpFilterContext::new(ScmpAction::KillThread)?;
        filter.add_arch(arch)?;
        filter.remove_arch(ScmpArch::native())?;
        filter
            .add_rule_conditional_exact(ScmpAction::Allow, ScmpSyscall::from_name(name)?, &compares)
            .map(drop)
    };
    args.is_empty() || others.iter().all(|arch| takes(*arch).is_ok())
}

/// `[index,value,operator,mask]`
fn argument(arg: LinuxSeccompArg) -> String {
    let (operator, value, mask) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => ("!=", arg.value(), 0),
        LinuxSeccompOperator::ScmpCmpLt => ("<", arg.value(), 0),
        LinuxSeccompOperator::ScmpCmpLe => ("<=", arg.value(), 0),
        LinuxSeccompOperator::ScmpCmpEq => ("==", arg.value(), 0),
        LinuxSeccompOperator::ScmpCmpGe => (">=", arg.value(), 0),
        LinuxSeccompOperator::ScmpCmpGt => (">", arg.value(), 0),
        LinuxSeccompOperator::ScmpCmpMaskedEq => ("&=", arg.value_two().unwrap_or(0), arg.value()),
    };
    format!("[{},{value},{operator},{mask}]", arg.index())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn filter_of(default: &str, architectures: &Value, calls: &Value) -> String {
        let profile = json!({ "defaultAction": default, "architectures": architectures, "syscalls": calls });
        filter(&serde_json::from_value(profile).unwrap())
    }

    fn everywhere() -> Value {
        json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"])
    }

    #[test]
    fn a_profile_is_said_in_lxcs_words() {
        let calls = json!([
            { "names": ["read", "no_such_call", "write"], "action": "SCMP_ACT_ALLOW" },
            { "names": ["clone"], "action": "SCMP_ACT_ALLOW",
              "args": [{ "index": 0, "value": 2_114_060_288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }] },
            { "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                { "index": 0, "value": 0, "op": "SCMP_CMP_EQ" }, { "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }] },
            { "names": ["ptrace"], "action": "SCMP_ACT_KILL" },
            { "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 },
        ]);
        let expected = "2\nallowlist errno 1\nclone allow [0,0,&=,2114060288]\npersonality allow [0,0,==,0]\n\
            personality allow [0,8,==,0]\nptrace kill \nread allow \nwrite allow \n";
        assert_eq!(filter_of("SCMP_ACT_ERRNO", &everywhere(), &calls), expected);
    }

    #[test]
    fn what_lxc_cannot_say_stays_forbidden() {
        let no_vsock = json!([{ "index": 0, "value": 40, "op": "SCMP_CMP_NE" }]);
        let allowed = json!([{ "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": no_vsock }]);
        let text = filter_of("SCMP_ACT_ERRNO", &everywhere(), &allowed);
        assert!(!text.contains("socket allow"), "{text}");
        let forbidden = json!([{ "names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": no_vsock }]);
        let logged = json!([{ "names": ["read"], "action": "SCMP_ACT_LOG" }]);
        for (architectures, calls) in
            [(everywhere(), forbidden), (json!(["SCMP_ARCH_X86_64"]), json!([])), (everywhere(), logged)]
        {
            let text = filter_of("SCMP_ACT_ALLOW", &architectures, &calls);
            assert!(text.starts_with(NOTHING) && text.lines().count() == 3, "{text}");
        }
    }
}
