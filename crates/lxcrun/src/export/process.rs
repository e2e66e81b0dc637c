//! `process`.

use std::collections::HashSet;

use oci_spec::runtime::{Capability, LinuxCapabilities, Process, User};

use super::text::{Text, quoted_words};
use crate::config::capability_name;

pub(super) fn process(text: &mut Text, process: &Process) {
    program(text, process.args().as_deref().unwrap_or_default());
    text.set("process", "lxc.init.cwd", &process.cwd().display().to_string());
    user(text, process.user());
    for variable in process.env().iter().flatten() {
        text.set("process", "lxc.environment", variable);
    }
    text.note("process", "LXC adds container=lxc to the environment");
    capabilities(text, process.capabilities().as_ref());
    if process.no_new_privileges().unwrap_or(false) {
        text.set("process", "lxc.no_new_privs", "1");
    }
    limits(text, process);
    labels(text, process);
    // Whoever stops it means the program, and not a system that knows SIGPWR.
    text.set("process", "lxc.signal.halt", "SIGTERM");
    what_lxc_has_no_word_for(text, process);
}

fn program(text: &mut Text, args: &[String]) {
    if args.is_empty() {
        return text.lacks("process.args", "is empty");
    }
    let Some(command) = quoted_words(args) else {
        let reason = "an argument has blanks and both kinds of quotes: put it into a script";
        return text.lacks("process.args", reason);
    };
    text.set("process", "lxc.init.cmd", &command);
    text.set("process", "lxc.execute.cmd", &command);
    if args.iter().any(|word| word.is_empty() || word.contains(char::is_whitespace)) {
        let reason = "an argument has blanks: lxc-execute keeps it whole, but lxc-start of LXC 5 does not";
        text.note("process", reason);
    }
}

fn user(text: &mut Text, user: &User) {
    if (user.uid(), user.gid()) != (0, 0) {
        text.set("process", "lxc.init.uid", &user.uid().to_string());
        text.set("process", "lxc.init.gid", &user.gid().to_string());
    }
    if let Some(groups) = user.additional_gids().as_ref().filter(|g| !g.is_empty()) {
        let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
        text.set("process", "lxc.init.groups", &groups.join(","));
    }
}

fn limits(text: &mut Text, process: &Process) {
    let number = |n: u64| if n == u64::MAX { "unlimited".to_owned() } else { n.to_string() };
    for limit in process.rlimits().iter().flatten() {
        let name = limit.typ().to_string().trim_start_matches("RLIMIT_").to_lowercase();
        let value = format!("{}:{}", number(limit.soft()), number(limit.hard()));
        text.set("process", &format!("lxc.prlimit.{name}"), &value);
    }
    if let Some(adjustment) = process.oom_score_adj() {
        text.set("process", "lxc.proc.oom_score_adj", &adjustment.to_string());
    }
}

fn labels(text: &mut Text, process: &Process) {
    if let Some(profile) = process.apparmor_profile().as_ref().filter(|p| !p.is_empty()) {
        text.set("process", "lxc.apparmor.profile", profile);
    }
    if let Some(label) = process.selinux_label().as_ref().filter(|l| !l.is_empty()) {
        text.set("process", "lxc.selinux.context", label);
    }
}

fn what_lxc_has_no_word_for(text: &mut Text, process: &Process) {
    for (field, asked) in [
        ("process.user.umask", process.user().umask().is_some()),
        ("process.scheduler", process.scheduler().is_some()),
        ("process.ioPriority", process.io_priority().is_some()),
        ("process.execCPUAffinity", process.exec_cpu_affinity().is_some()),
        ("process.consoleSize", process.console_size().is_some()),
    ] {
        if asked {
            text.lacks(field, "LXC has no word for it");
        }
    }
}

/// LXC knows the bounding set alone.
fn capabilities(text: &mut Text, sets: Option<&LinuxCapabilities>) {
    let Some(sets) = sets else { return text.set("process", "lxc.cap.keep", "none") };
    let names = |set: &Option<HashSet<Capability>>| {
        let short = |c: &Capability| capability_name(*c).trim_start_matches("CAP_").to_lowercase();
        let mut names: Vec<String> = set.iter().flatten().map(short).collect();
        names.sort();
        names
    };
    let bounding = names(sets.bounding());
    let keep = if bounding.is_empty() { "none".to_owned() } else { bounding.join(" ") };
    text.set("process", "lxc.cap.keep", &keep);
    for (name, set) in [("effective", sets.effective()), ("permitted", sets.permitted())] {
        if names(set) != bounding {
            let reason = "LXC sets the bounding set alone: root has all of it, other users have none";
            text.lacks(&format!("process.capabilities.{name}"), reason);
        }
    }
    for (name, set) in [("inheritable", sets.inheritable()), ("ambient", sets.ambient())] {
        if !names(set).is_empty() {
            text.lacks(&format!("process.capabilities.{name}"), "LXC sets the bounding set alone");
        }
    }
}
