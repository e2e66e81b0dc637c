//! Who calls, and what they may do.

use super::{Check, program, text};
use crate::facts::capability_names;

/// Without these, root can't make containers.
const NEEDED: [&str; 5] = ["CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_SETPCAP"];

pub(super) fn checks() -> Vec<Check> {
    vec![capabilities(), user_namespaces(), subordinate_ids(), mapping_helpers()]
}

fn capabilities() -> Check {
    let check = Check::new("capabilities", "nobody can give a container what they have not").needed();
    let permitted = match rustix::thread::capabilities(None) {
        Ok(sets) => sets.permitted.bits(),
        Err(e) => return check.missing(format!("capget: {e}"), "mount /proc, allow capget"),
    };
    if !rustix::process::geteuid().is_root() {
        let found = "not root: the container's own user namespace gives them";
        return check.limited(found, "run as root for what reaches beyond it: networks, devices, limits");
    }
    let lacks: Vec<String> = capability_names()
        .into_iter()
        .enumerate()
        .filter(|(number, _)| permitted & (1 << number) == 0)
        .map(|(_, name)| name)
        .collect();
    let found = format!("root without {}", lacks.join(" "));
    if lacks.is_empty() {
        check.ok("root with all of them")
    } else if lacks.iter().any(|name| NEEDED.contains(&name.as_str())) {
        check.missing(found, "run with more rights: in a container, privileged")
    } else {
        check.limited(found, "containers that ask for these are refused; run with more rights to have them")
    }
}

fn user_namespaces() -> Check {
    let check =
        Check::new("user namespaces", "containers whose root is nobody outside, and containers without root");
    let most = text("/proc/sys/user/max_user_namespaces");
    if most.is_empty() || most == "0" {
        return check.missing("none can be made", "sysctl user.max_user_namespaces=15000, CONFIG_USER_NS");
    }
    if text("/proc/sys/kernel/unprivileged_userns_clone") == "0"
        || text("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1"
    {
        let mend = "sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0";
        return check.limited("for root only", mend);
    }
    check.ok(format!("up to {most}"))
}

fn subordinate_ids() -> Check {
    let check =
        Check::new("subordinate ids", "more than one user in a user namespace of somebody other than root");
    let uid = rustix::process::getuid().as_raw();
    let passwd = text("/etc/passwd");
    let own = passwd.lines().find(|l| l.split(':').nth(2) == Some(&uid.to_string()));
    let name = own.and_then(|l| l.split(':').next()).map_or_else(|| uid.to_string(), str::to_owned);
    let has = |file: &str| {
        text(file)
            .lines()
            .any(|l| l.split(':').next().is_some_and(|who| who == name || who == uid.to_string()))
    };
    match (has("/etc/subuid"), has("/etc/subgid")) {
        (true, true) => check.ok(format!("{name} is in /etc/subuid and /etc/subgid")),
        _ => check.missing(
            format!("{name} is not in both /etc/subuid and /etc/subgid"),
            format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"),
        ),
    }
}

fn mapping_helpers() -> Check {
    let check = Check::new("newuidmap, newgidmap", "map subordinate ids for somebody other than root");
    match (program("newuidmap"), program("newgidmap")) {
        (Some(uid), Some(_)) => check.ok(uid.display().to_string()),
        _ => check.missing("not on the PATH", "on Debian: apt-get install uidmap"),
    }
}
