//! System calls newer than a profile: the C library takes ENOSYS for "this kernel has it not" and does without, but
//! any other answer of a filter for a failure. So a call beyond the last that the profile names gets ENOSYS, as in runc.

use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};

/// The calls of the x32 ABI have the architecture of x86-64 and this bit in their numbers: linux/unistd.h.
const X32_BIT: u32 = 0x4000_0000;

/// One instruction of classic BPF: `struct sock_filter` in linux/filter.h.
struct Instruction {
    code: u32,
    if_true: u8,
    if_false: u8,
    value: u32,
}

impl Instruction {
    /// Loads a field of `struct seccomp_data`, by its offset.
    fn load(offset: u32) -> Self {
        Self { code: libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, if_true: 0, if_false: 0, value: offset }
    }

    /// Goes on at the next instruction when the comparison holds, else `over` instructions later.
    fn unless(comparison: u32, value: u32, over: u8) -> Self {
        Self { code: libc::BPF_JMP | comparison | libc::BPF_K, if_true: 0, if_false: over, value }
    }

    fn answer_enosys() -> Self {
        let value = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
        Self { code: libc::BPF_RET | libc::BPF_K, if_true: 0, if_false: 0, value }
    }

    fn bytes(&self) -> [u8; 8] {
        let [low, high] = u16::try_from(self.code).unwrap_or_default().to_ne_bytes();
        let [a, b, c, d] = self.value.to_ne_bytes();
        [low, high, self.if_true, self.if_false, a, b, c, d]
    }
}

/// What to run before the filter of `wanted`: nothing when the filter lets unknown calls pass, or says ENOSYS itself.
pub(super) fn prologue(wanted: &LinuxSeccomp, architectures: &[ScmpArch]) -> Vec<u8> {
    use LinuxSeccompAction::{ScmpActAllow, ScmpActLog, ScmpActTrace};
    let permissive = matches!(wanted.default_action(), ScmpActAllow | ScmpActLog | ScmpActTrace);
    if permissive || wanted.default_errno_ret() == Some(libc::ENOSYS.unsigned_abs()) {
        return Vec::new();
    }
    let mut known: Vec<ScmpArch> = std::iter::once(ScmpArch::native()).collect();
    for arch in architectures {
        if *arch != ScmpArch::Native && !known.contains(arch) {
            known.push(*arch);
        }
    }
    let instructions = known.into_iter().flat_map(|arch| block(wanted, arch).unwrap_or_default());
    instructions.flat_map(|instruction| instruction.bytes()).collect()
}

/// The answer for one architecture.
fn block(wanted: &LinuxSeccomp, arch: ScmpArch) -> Option<Vec<Instruction>> {
    let audit = audit_arch(arch)?;
    let last = last_call(wanted, arch)?;
    let (number, architecture) = (0, 4);
    let mut rest = vec![Instruction::load(number)];
    match arch {
        // The other ABI has a block of its own, or none.
        ScmpArch::X8664 => {
            let mut other = Instruction::unless(libc::BPF_JGE, X32_BIT, 0);
            other.if_true = 2;
            rest.push(other);
        }
        ScmpArch::X32 => rest.push(Instruction::unless(libc::BPF_JGE, X32_BIT, 2)),
        _ => {}
    }
    rest.push(Instruction::unless(libc::BPF_JGT, last, 1));
    rest.push(Instruction::answer_enosys());
    let over = u8::try_from(rest.len()).ok()?;
    let mut block = vec![Instruction::load(architecture), Instruction::unless(libc::BPF_JEQ, audit, over)];
    block.append(&mut rest);
    Some(block)
}

/// The highest number that the profile names, whatever it says about it.
fn last_call(wanted: &LinuxSeccomp, arch: ScmpArch) -> Option<u32> {
    let names = wanted.syscalls().iter().flatten().flat_map(|rule| rule.names());
    let numbers = names.filter_map(|name| ScmpSyscall::from_name_by_arch(name, arch).ok());
    // Negative ones are libseccomp's own, for calls that this architecture has not.
    numbers.filter_map(|call| u32::try_from(i32::from(call)).ok()).max()
}

/// The kernel's number of an architecture: linux/audit.h.
fn audit_arch(arch: ScmpArch) -> Option<u32> {
    const BITS_64: u32 = 0x8000_0000;
    const LITTLE: u32 = 0x4000_0000;
    const N32: u32 = 0x2000_0000;
    Some(match arch {
        ScmpArch::X86 => LITTLE | 3,
        ScmpArch::X8664 | ScmpArch::X32 => BITS_64 | LITTLE | 62,
        ScmpArch::Arm => LITTLE | 40,
        ScmpArch::Aarch64 => BITS_64 | LITTLE | 183,
        ScmpArch::Mips => 8,
        ScmpArch::Mips64 => BITS_64 | 8,
        ScmpArch::Mips64N32 => BITS_64 | N32 | 8,
        ScmpArch::Mipsel => LITTLE | 8,
        ScmpArch::Mipsel64 => BITS_64 | LITTLE | 8,
        ScmpArch::Mipsel64N32 => BITS_64 | LITTLE | N32 | 8,
        ScmpArch::Ppc => 20,
        ScmpArch::Ppc64 => BITS_64 | 21,
        ScmpArch::Ppc64Le => BITS_64 | LITTLE | 21,
        ScmpArch::S390 => 22,
        ScmpArch::S390X => BITS_64 | 22,
        ScmpArch::Parisc => 15,
        ScmpArch::Parisc64 => BITS_64 | 15,
        ScmpArch::Riscv64 => BITS_64 | LITTLE | 243,
        ScmpArch::Loongarch64 => BITS_64 | LITTLE | 258,
        ScmpArch::M68k => 4,
        ScmpArch::Sh => LITTLE | 42,
        ScmpArch::Sheb => 42,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prologue_of(profile: &str) -> Vec<u8> {
        let wanted: LinuxSeccomp = serde_json::from_str(profile).unwrap();
        prologue(&wanted, &[ScmpArch::X8664, ScmpArch::X32])
    }

    #[test]
    fn a_filter_that_lets_unknown_calls_pass_gets_none() {
        for action in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"] {
            let profile = format!(
                r#"{{"defaultAction":"{action}","syscalls":[{{"names":["mkdir"],"action":"SCMP_ACT_KILL"}}]}}"#
            );
            assert!(prologue_of(&profile).is_empty(), "{action}");
        }
        assert!(prologue_of(r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38}"#).is_empty());
    }

    #[test]
    fn each_architecture_gets_whole_instructions() {
        let profile = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":
            [{"names":["read","no_such_call"],"action":"SCMP_ACT_ALLOW"}]}"#;
        let prologue = prologue_of(profile);
        assert_eq!(prologue.len() % 8, 0);
        assert!(prologue.len() >= 6 * 8);
    }
}
