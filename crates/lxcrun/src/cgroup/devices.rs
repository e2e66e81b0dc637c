//! `linux.resources.devices`: files of version 1, a BPF program on version 2.
//!
//! Both begin with everything denied, and the last rule that says something about an access decides.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use kernel::{BpfInstruction, attach_device_program, device_programs, load_device_program};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::limits::Setting;
use super::v1::Refusal;

const FIELD: &str = "linux.resources.devices";

/// Kinds of access, with the numbers that BPF programs get (`BPF_DEVCG_ACC_*`).
const ACCESS: [(char, u8); 3] = [('r', 2), ('w', 4), ('m', 1)];
const ALL: u8 = 7;

/// One rule, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    allow: bool,
    device: Device,
    access: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Device {
    /// Every device: what was said before does not count any more.
    Any,
    /// `b` or `c`, and the numbers; `None` for all.
    Of { kind: char, major: Option<u32>, minor: Option<u32> },
}

impl Rule {
    /// One of the specification; several where it is about both kinds of devices, but not about all of them.
    fn new(rule: &LinuxDeviceCgroup) -> Result<Vec<Self>, Refusal> {
        let letters = rule.access().as_deref().filter(|a| !a.is_empty()).unwrap_or("rwm");
        let mut access = 0;
        for letter in letters.chars() {
            match ACCESS.iter().find(|(known, _)| *known == letter) {
                Some((_, bit)) => access |= bit,
                // There are configurations that deny "rwa", which runc takes: no access at all is what is meant.
                None if letter == 'a' && !rule.allow() => access = ALL,
                None => {
                    return Err((FIELD, format!("access {letters:?} has other letters than r, w and m")));
                }
            }
        }
        let number = |n: Option<i64>| match n {
            None | Some(-1) => Ok(None),
            Some(n) => u32::try_from(n).map(Some).map_err(|_| (FIELD, format!("{n} is no device number"))),
        };
        let (allow, major, minor) = (rule.allow(), number(rule.major())?, number(rule.minor())?);
        let kinds = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::A if (access, major, minor) == (ALL, None, None) => {
                return Ok(vec![Self { allow, device: Device::Any, access }]);
            }
            // To version 1 a rule with this letter is about every access to every device, whatever else it says.
            LinuxDeviceType::A => "bc",
            LinuxDeviceType::B => "b",
            LinuxDeviceType::C | LinuxDeviceType::U => "c",
            LinuxDeviceType::P => return Err((FIELD, "\"p\" is no type of a device rule".into())),
        };
        let of = |kind| Self { allow, device: Device::Of { kind, major, minor }, access };
        Ok(kinds.chars().map(of).collect())
    }

    /// One of LXC's, `c 10:229 rwm`, as version 1 has it in its files: `a` is every access to every device.
    pub(super) fn of_lxc(allow: bool, text: &str) -> Result<Vec<Self>, String> {
        let none = || format!("{text:?} is no rule: TYPE MAJOR:MINOR ACCESS, or a");
        let words: Vec<&str> = text.split_whitespace().collect();
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(allow).set_typ(None).set_major(None).set_minor(None).set_access(Some("rwm".into()));
        if words.first() != Some(&"a") {
            let [kind, numbers, access] = words[..] else { return Err(none()) };
            let kind = match kind {
                "b" => LinuxDeviceType::B,
                "c" => LinuxDeviceType::C,
                _ => return Err(none()),
            };
            let number = |text: &str| match text {
                "*" => Ok(None),
                text => text.parse::<u32>().map(|n| Some(n.into())).map_err(|_| none()),
            };
            let (major, minor) = numbers.split_once(':').ok_or_else(none)?;
            rule.set_typ(Some(kind)).set_major(number(major)?).set_minor(number(minor)?);
            rule.set_access(Some(access.into()));
        }
        Self::new(&rule).map_err(|(_, reason)| reason)
    }

    const fn always(kind: char, major: Option<u32>, minor: Option<u32>, access: u8) -> Self {
        Self { allow: true, device: Device::Of { kind, major, minor }, access }
    }

    /// Whether it says something about devices that `other` says something about, too.
    fn meets(&self, other: &Self) -> bool {
        let (Device::Of { kind, major, minor }, Device::Of { kind: k, major: ma, minor: mi }) =
            (&self.device, &other.device)
        else {
            return true;
        };
        let same = |a: &Option<u32>, b: &Option<u32>| a.is_none() || b.is_none() || a == b;
        kind == k && same(major, ma) && same(minor, mi) && self.access & other.access != 0
    }

    /// Whether it is about all devices that `other` is about.
    fn covers(&self, other: &Self) -> bool {
        let (Device::Of { kind, major, minor }, Device::Of { kind: k, major: ma, minor: mi }) =
            (&self.device, &other.device)
        else {
            return self.device == Device::Any;
        };
        kind == k && (major.is_none() || major == ma) && (minor.is_none() || minor == mi)
    }

    /// The devices that it is about in the words of systemd, which knows no minor number without its major one.
    fn name_for_systemd(&self) -> String {
        let Device::Of { kind, major, minor } = &self.device else { return "*".into() };
        let name = if *kind == 'b' { "block" } else { "char" };
        match (major, minor) {
            (None, _) => format!("{name}-*"),
            (Some(major), None) => format!("{name}-{major}"),
            (Some(major), Some(minor)) => format!("/dev/{name}/{major}:{minor}"),
        }
    }

    /// As version 1 has it in its files.
    fn text(&self) -> String {
        let Device::Of { kind, major, minor } = &self.device else { return "a *:* rwm".into() };
        let number = |n: &Option<u32>| n.map_or_else(|| "*".into(), |n| n.to_string());
        format!("{kind} {}:{} {}", number(major), number(minor), letters(self.access))
    }
}

fn letters(access: u8) -> String {
    ACCESS.iter().filter(|(_, bit)| access & bit != 0).map(|(letter, _)| letter).collect()
}

/// What every container may use, whatever its list says: it may make any node, use the specification's default
/// devices, and tunnels (as in runc; a node for those is not there by itself, and they need CAP_NET_ADMIN).
const ALWAYS_ALLOWED: [Rule; 11] = [
    Rule::always('c', None, None, 1),
    Rule::always('b', None, None, 1),
    Rule::always('c', Some(1), Some(3), ALL),
    Rule::always('c', Some(1), Some(5), ALL),
    Rule::always('c', Some(1), Some(7), ALL),
    Rule::always('c', Some(1), Some(8), ALL),
    Rule::always('c', Some(1), Some(9), ALL),
    Rule::always('c', Some(5), Some(0), ALL),
    Rule::always('c', Some(5), Some(2), ALL),
    Rule::always('c', Some(136), None, ALL),
    Rule::always('c', Some(10), Some(200), ALL),
];

/// The rules in force: whether they begin with everything allowed, and those that say something after that. `last` are those
/// that come even after what every container may use.
fn in_force(rules: &[LinuxDeviceCgroup], last: &[Rule]) -> Result<(bool, Vec<Rule>), Refusal> {
    let mut default = false;
    let mut rest = Vec::new();
    let rules: Vec<Vec<Rule>> = rules.iter().map(Rule::new).collect::<Result<_, _>>()?;
    for rule in rules.into_iter().flatten().chain(ALWAYS_ALLOWED).chain(last.iter().cloned()) {
        if rule.device == Device::Any {
            default = rule.allow;
            rest.clear();
        } else {
            rest.push(rule);
        }
    }
    // What only says what is so anyway: most of all in privileged containers.
    if default && rest.iter().all(|rule| rule.allow) {
        rest.clear();
    }
    Ok((default, rest))
}

/// The writes of version 1. The kernel's lists know no order: a hole in a rule for more devices can't be had.
pub(super) fn v1_settings(rules: &[LinuxDeviceCgroup]) -> Result<Vec<Setting>, Refusal> {
    let (default, rest) = in_force(rules, &[])?;
    let file = |allow: bool| if allow { "devices.allow" } else { "devices.deny" };
    let mut all = vec![Setting::new(FIELD, "devices", file(default), "a *:* rwm")];
    for (index, rule) in rest.iter().enumerate() {
        let earlier = rest[..index].iter().find(|e| {
            e.allow != rule.allow && rule.allow == default && e.device != rule.device && e.meets(rule)
        });
        if let Some(earlier) = earlier
            && !ALWAYS_ALLOWED.contains(rule)
        {
            let reason = format!("cgroup v1 cannot except {:?} from {:?}", rule.text(), earlier.text());
            return Err((FIELD, reason));
        }
        all.push(Setting::new(FIELD, "devices", file(rule.allow), rule.text()));
    }
    Ok(all)
}

/// What systemd is told of the rules: devices and the letters of accesses, as in systemd.resource-control(5), `DeviceAllow=`;
/// `None` where it is to allow everything. It has no exceptions, and no minor number without its major one: where it allows
/// more than the rules do, our program denies that.
pub(super) fn for_systemd(
    rules: &[LinuxDeviceCgroup],
    last: &[Rule],
) -> Result<Option<Vec<(String, String)>>, Refusal> {
    let (default, rest) = in_force(rules, last)?;
    if default {
        return Ok(None);
    }
    let mut allowed: Vec<Rule> = Vec::new();
    for rule in rest {
        if rule.allow {
            allowed.push(rule);
        } else {
            allowed.iter_mut().filter(|a| rule.covers(a)).for_each(|a| a.access &= !rule.access);
        }
    }
    // Of several entries for one name systemd takes the last.
    let mut names: BTreeMap<String, u8> = BTreeMap::new();
    for rule in allowed.iter().filter(|rule| rule.access != 0) {
        *names.entry(rule.name_for_systemd()).or_default() |= rule.access;
    }
    Ok(Some(names.into_iter().map(|(name, access)| (name, letters(access))).collect()))
}

/// The name of our programs, to tell them from those of others.
const PROGRAM: &std::ffi::CStr = c"lxcrun_devices";

/// Whether our program is still there: a hook may have put another one in its place.
pub(super) fn is_attached(directory: &Path) -> std::io::Result<bool> {
    let attached = device_programs(File::open(directory)?.as_fd())?;
    Ok(attached.iter().any(|(_, name)| name.as_bytes() == PROGRAM.to_bytes()))
}

/// Puts the rules of version 2 into force, in the place of those that were set before.
pub(super) fn attach(directory: &Path, rules: &[LinuxDeviceCgroup], last: &[Rule]) -> Result<(), Refusal> {
    let (default, rest) = in_force(rules, last)?;
    let failed =
        |what: &str, e: std::io::Error| (FIELD, format!("cannot {what} {}: {e}", directory.display()));
    let cgroup = File::open(directory).map_err(|e| failed("open", e))?;
    let attached =
        device_programs(cgroup.as_fd()).map_err(|e| failed("ask for the programs of", e.into()))?;
    let ours = attached.iter().find(|(_, name)| name.as_bytes() == PROGRAM.to_bytes());
    if ours.is_none() && default && rest.is_empty() {
        return Ok(());
    }
    let program = load_device_program(PROGRAM, &compile(default, &rest))
        .map_err(|e| failed("load a program for", e.into()))?;
    attach_device_program(cgroup.as_fd(), program.as_fd(), ours.map(|(fd, _)| fd.as_fd()))
        .map_err(|e| failed("attach a program to", e.into()))
}

/// The registers of the program: its context first, then what was loaded from it.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
/// The accesses that no rule has decided yet.
const LEFT: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// Instructions, by their codes in the kernel's documentation (bpf/standardization/instruction-set).
fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> BpfInstruction {
    BpfInstruction { code, registers: to | from << 4, offset, immediate }
}
fn load(to: u8, offset: i16) -> BpfInstruction {
    instruction(0x61, to, CONTEXT, offset, 0)
}
fn copy(to: u8, from: u8) -> BpfInstruction {
    instruction(0xbc, to, from, 0, 0)
}
fn set(to: u8, value: i32) -> BpfInstruction {
    instruction(0xb4, to, 0, 0, value)
}
fn and(to: u8, mask: i32) -> BpfInstruction {
    instruction(0x54, to, 0, 0, mask)
}
fn shift_right(to: u8, bits: i32) -> BpfInstruction {
    instruction(0x74, to, 0, 0, bits)
}
/// Goes on behind `skipped` instructions if the register has another value.
fn skip_unless(register: u8, value: u32, skipped: i16) -> BpfInstruction {
    instruction(0x56, register, 0, skipped, value.cast_signed())
}
fn skip_if(register: u8, value: u32, skipped: i16) -> BpfInstruction {
    instruction(0x16, register, 0, skipped, value.cast_signed())
}
fn exit() -> BpfInstruction {
    instruction(0x95, 0, 0, 0, 0)
}

/// The program: it gets type, numbers and accesses of what a process wants (`struct bpf_cgroup_dev_ctx`), and says 1
/// for yes. Rules are gone through from the last to the first, each decides on those accesses that are left.
fn compile(default: bool, rules: &[Rule]) -> Vec<BpfInstruction> {
    let mut program = vec![
        load(KIND, 0),
        load(MAJOR, 4),
        load(MINOR, 8),
        copy(LEFT, KIND),
        // The type is in the low half, the accesses in the high one.
        shift_right(LEFT, 16),
        and(KIND, 0xffff),
    ];
    for rule in rules.iter().rev() {
        let Device::Of { kind, major, minor } = &rule.device else { continue };
        let decision = if rule.allow {
            vec![and(LEFT, i32::from(!rule.access & ALL)), skip_unless(LEFT, 0, 2), set(RESULT, 1), exit()]
        } else {
            vec![
                copy(RESULT, LEFT),
                and(RESULT, i32::from(rule.access)),
                skip_if(RESULT, 0, 2),
                set(RESULT, 0),
                exit(),
            ]
        };
        let kind = if *kind == 'b' { 1 } else { 2 };
        let conditions: Vec<(u8, u32)> = [(KIND, Some(kind)), (MAJOR, *major), (MINOR, *minor)]
            .into_iter()
            .filter_map(|(register, value)| Some((register, value?)))
            .collect();
        // At most three conditions and five instructions of a decision.
        let mut behind = conditions.len() + decision.len();
        for (register, value) in conditions {
            behind -= 1;
            program.push(skip_unless(register, value, i16::try_from(behind).unwrap_or(i16::MAX)));
        }
        program.extend(decision);
    }
    program.extend([set(RESULT, i32::from(default)), exit()]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: &str) -> Vec<LinuxDeviceCgroup> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn systemd_is_told_what_is_allowed() {
        let json = r#"[{"allow":false},{"allow":true,"type":"b","major":8,"minor":0,"access":"rw"},
                       {"allow":true,"type":"c","major":89},{"allow":false,"type":"c","major":89,"access":"w"},
                       {"allow":true,"type":"b","minor":5,"access":"r"},{"allow":false,"type":"b","major":8,"minor":1}]"#;
        let told = for_systemd(&rules(json), &[]).unwrap().unwrap();
        let has = |name: &str, access: &str| told.contains(&(name.into(), access.into()));
        assert!(has("/dev/block/8:0", "rw") && has("char-89", "rm") && has("block-*", "rm"), "{told:?}");
        assert!(has("char-136", "rwm") && has("char-*", "m") && has("/dev/char/1:3", "rwm"), "{told:?}");
        let all = r#"[{"allow":true},{"allow":false,"type":"b","major":8,"minor":0}]"#;
        assert_eq!(for_systemd(&rules(all), &[]).unwrap(), None);
    }

    /// Runs a program as the kernel would.
    fn allows(program: &[BpfInstruction], kind: u32, numbers: (u32, u32), access: u32) -> bool {
        let context = [access << 16 | kind, numbers.0, numbers.1];
        let mut registers = [0_u32; 11];
        let mut at = 0;
        loop {
            let BpfInstruction { code, registers: r, offset, immediate } = program[at];
            let (to, from) = (usize::from(r & 15), usize::from(r >> 4));
            let value = immediate.cast_unsigned();
            let skip = match code {
                0x61 => {
                    registers[to] = context[usize::try_from(offset).unwrap() / 4];
                    false
                }
                0xbc => {
                    registers[to] = registers[from];
                    false
                }
                0xb4 => {
                    registers[to] = value;
                    false
                }
                0x54 => {
                    registers[to] &= value;
                    false
                }
                0x74 => {
                    registers[to] >>= value;
                    false
                }
                0x56 => registers[to] != value,
                0x16 => registers[to] == value,
                0x95 => return registers[0] == 1,
                other => panic!("instruction {other:#x}"),
            };
            at += 1 + if skip { usize::try_from(offset).unwrap() } else { 0 };
        }
    }

    const BLOCK: u32 = 1;
    const CHAR: u32 = 2;
    const MAKE: u32 = 1;
    const READ: u32 = 2;
    const WRITE: u32 = 4;

    fn program(json: &str) -> Vec<BpfInstruction> {
        let (default, rest) = in_force(&rules(json), &[]).unwrap();
        compile(default, &rest)
    }

    #[test]
    fn what_is_not_allowed_is_denied() {
        let program = program("[]");
        assert!(allows(&program, CHAR, (1, 3), READ | WRITE));
        assert!(allows(&program, BLOCK, (8, 0), MAKE));
        assert!(!allows(&program, BLOCK, (8, 0), READ));
        assert!(!allows(&program, BLOCK, (1, 3), READ), "a block device is no character device");
    }

    #[test]
    fn the_last_rule_that_fits_decides_on_each_access() {
        let program = program(
            r#"[{"allow":true,"type":"b","major":8,"access":"rw"},
                {"allow":false,"type":"b","major":8,"minor":1,"access":"w"}]"#,
        );
        assert!(allows(&program, BLOCK, (8, 0), READ | WRITE));
        assert!(allows(&program, BLOCK, (8, 1), READ));
        assert!(!allows(&program, BLOCK, (8, 1), READ | WRITE));
        // From two rules together.
        assert!(allows(&program, BLOCK, (8, 1), READ | MAKE));
    }

    #[test]
    fn a_rule_for_all_devices_ends_what_came_before() {
        let all = program(r#"[{"allow":false,"type":"b","major":8},{"allow":true,"access":"rwm"}]"#);
        assert_eq!(all.len(), 8);
        assert!(allows(&all, BLOCK, (8, 0), READ | WRITE | MAKE));
        let none = program(r#"[{"allow":true,"access":"rwm"},{"allow":false,"access":"rwm"}]"#);
        assert!(!allows(&none, BLOCK, (8, 0), READ));
    }

    #[test]
    fn a_device_can_be_denied_where_others_are_allowed() {
        let json = r#"[{"allow":true},{"allow":false,"type":"c","major":10,"minor":229,"access":"rwm"}]"#;
        let program = program(json);
        assert!(!allows(&program, CHAR, (10, 229), READ));
        assert!(allows(&program, CHAR, (10, 229), MAKE), "every container may make nodes");
        assert!(allows(&program, CHAR, (10, 228), READ));
        let v1: Vec<String> = v1_settings(&rules(json)).unwrap().into_iter().map(|s| s.value).collect();
        assert_eq!(v1[..2], ["a *:* rwm", "c 10:229 rwm"]);
    }

    #[test]
    fn rules_of_lxc_come_last() {
        let of_lxc = |texts: &[(bool, &str)]| {
            let last: Vec<Rule> = texts.iter().flat_map(|(a, t)| Rule::of_lxc(*a, t).unwrap()).collect();
            let (default, rest) = in_force(&[], &last).unwrap();
            compile(default, &rest)
        };
        let one = of_lxc(&[(true, "c 10:229 rwm"), (false, "c 1:3 w"), (true, "b 8:* r")]);
        assert!(allows(&one, CHAR, (10, 229), READ | WRITE));
        assert!(!allows(&one, CHAR, (1, 3), WRITE), "also before what every container may use");
        assert!(allows(&one, BLOCK, (8, 7), READ));
        assert!(!allows(&of_lxc(&[(false, "a")]), CHAR, (1, 3), READ));
        for wrong in ["", "c", "c 1:3", "c 1 rwm", "x 1:3 r", "c 1:3 z", "c 1:-3 r", "c 1:3 r x"] {
            assert!(Rule::of_lxc(true, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn version_1_makes_no_holes() {
        let json = r#"[{"allow":true,"type":"b","major":8},{"allow":false,"type":"b","major":8,"minor":1}]"#;
        assert!(v1_settings(&rules(json)).unwrap_err().1.contains("cannot except"));
        let same =
            r#"[{"allow":true,"type":"b","major":8},{"allow":false,"type":"b","major":8,"access":"w"}]"#;
        assert!(v1_settings(&rules(same)).is_ok());
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for json in [r#"[{"allow":true,"access":"rx"}]"#, r#"[{"allow":true,"type":"p"}]"#] {
            assert_eq!(in_force(&rules(json), &[]).unwrap_err().0, FIELD);
        }
        assert!(in_force(&rules(r#"[{"allow":true,"type":"c","major":4294967296}]"#), &[]).is_err());
    }

    /// On a host where we may: the kernel's verifier is the judge.
    #[test]
    fn the_kernel_takes_the_program() {
        let long: Vec<Rule> = (0..500).map(|n| Rule::always('c', Some(n), None, ALL)).collect();
        match load_device_program(PROGRAM, &compile(false, &long)) {
            Err(rustix::io::Errno::PERM | rustix::io::Errno::NOSYS) => {}
            loaded => drop(loaded.unwrap()),
        }
    }
}
