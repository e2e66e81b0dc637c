//! `mounts`, with masked and read-only paths, in LXC's fstab lines and automatic mounts.

use std::path::Path;

use oci_spec::runtime::{Linux, LinuxNamespaceType, Mount, Spec};
use protocol::monitor::Item;

use super::text::Text;
use crate::Bundle;
use crate::cgroup::cgroups_are_unified;
use crate::config::{is_mount_option, nothing_of_linux};

const PROC_SYS: &str = "/proc/sys";

pub(super) fn mounts(text: &mut Text, bundle: &Bundle, settings: &[&Item]) {
    let spec = bundle.spec();
    let nothing = nothing_of_linux();
    let linux = spec.linux().as_ref().unwrap_or(&nothing);
    let all = spec.mounts().as_deref().unwrap_or_default();
    let (own, listed): (Vec<&Mount>, Vec<&Mount>) = all.iter().partition(|m| is_lxcs_own(m));
    let readonly = linux.readonly_paths().as_deref().unwrap_or_default();
    let mixed = readonly.iter().any(|path| path == PROC_SYS) && !sets_parameters(spec, settings);
    let mut automatic: Vec<&str> = own.iter().filter_map(|m| automatic(m, mixed)).collect();
    if cgroups_are_unified() && !has_cgroup_namespace(linux) {
        let all = automatic.len();
        automatic.retain(|mount| !mount.starts_with("cgroup"));
        if automatic.len() < all {
            let reason = "LXC mounts cgroup v2 for who has a cgroup namespace alone";
            text.lacks("mounts[/sys/fs/cgroup]", reason);
        }
    }
    if !automatic.is_empty() {
        text.set("mounts", "lxc.mount.auto", &automatic.join(" "));
    }
    let has = |destination: &str| own.iter().any(|m| m.destination() == Path::new(destination));
    text.set("mounts", "lxc.autodev", if has("/dev") { "1" } else { "0" });
    text.set("mounts", "lxc.pty.max", if has("/dev/pts") { "1024" } else { "0" });
    for mount in listed {
        entry(text, bundle, mount);
    }
    for path in linux.masked_paths().iter().flatten() {
        // A file can be covered by a file, a directory by a directory: the one that does not fit is passed over.
        line(text, "linux.maskedPaths", "/dev/null", path, "none", &["bind", "optional"]);
        line(text, "linux.maskedPaths", "tmpfs", path, "tmpfs", &["ro", "optional"]);
    }
    for path in readonly {
        if path == PROC_SYS && !mixed {
            text.lacks(
                "linux.readonlyPaths",
                "LXC sets kernel parameters after its mounts: /proc/sys can be written",
            );
        } else if !mixed || ![PROC_SYS, "/proc/sysrq-trigger"].contains(&path.as_str()) {
            // Those two are read-only in proc:mixed.
            let source = path.trim_start_matches('/');
            line(text, "linux.readonlyPaths", source, path, "none", &["rbind", "ro", "relative", "optional"]);
        }
    }
}

fn has_cgroup_namespace(linux: &Linux) -> bool {
    let mut listed = linux.namespaces().iter().flatten();
    listed.any(|namespace| namespace.typ() == LinuxNamespaceType::Cgroup)
}

/// Whether LXC makes it itself, better than a line could.
fn is_lxcs_own(mount: &Mount) -> bool {
    let kind = mount.typ().as_deref().unwrap_or_default();
    match mount.destination().to_str() {
        Some("/proc") => kind == "proc",
        Some("/dev") => kind == "tmpfs",
        Some("/dev/pts") => kind == "devpts",
        Some("/sys") => kind == "sysfs",
        Some("/sys/fs/cgroup") => kind == "cgroup",
        _ => false,
    }
}

/// Whether LXC is to set parameters of the kernel.
fn sets_parameters(spec: &Spec, settings: &[&Item]) -> bool {
    let sysctls = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref());
    let named = spec.domainname().as_ref().is_some_and(|name| !name.is_empty());
    let by_annotation = settings.iter().any(|item| item.key.starts_with("lxc.sysctl."));
    named || by_annotation || sysctls.is_some_and(|all| !all.is_empty())
}

/// LXC's own mount for one of the specification. With `mixed` the kernel's parameters are read-only.
fn automatic(mount: &Mount, mixed: bool) -> Option<&'static str> {
    let readonly = mount.options().iter().flatten().any(|o| o == "ro");
    Some(match mount.typ().as_deref()? {
        "proc" if mixed => "proc:mixed",
        "proc" => "proc:rw",
        "sysfs" if readonly => "sys:ro",
        "sysfs" => "sys:rw",
        "cgroup" if readonly => "cgroup:ro",
        "cgroup" => "cgroup:rw",
        _ => return None,
    })
}

/// What LXC looks for anywhere in the options, also in the middle of a path.
const LXC_WORDS: [&str; 5] = ["optional", "relative", "create=", "idmap=", "move"];

fn entry(text: &mut Text, bundle: &Bundle, mount: &Mount) {
    let field = format!("mounts[{}]", mount.destination().display());
    let kind = mount.typ().as_deref().unwrap_or_default();
    let all = mount.options().as_deref().unwrap_or_default();
    let bind = kind == "bind" || all.iter().any(|o| o == "bind" || o == "rbind");
    let mut options: Vec<&str> = Vec::new();
    for option in all {
        let name = option.as_str();
        let recursive_attribute =
            name.len() > 2 && name.starts_with('r') && is_mount_option(&name[1..]) && is_mount_option(name);
        match name {
            "defaults" => {}
            "tmpcopyup" | "idmap" | "ridmap" => {
                text.lacks(&field, &format!("option {name}: LXC has no word for it"))
            }
            "rbind" => options.push(name),
            _ if recursive_attribute && !is_propagation(&name[1..]) => {
                text.lacks(&field, &format!("option {name}: LXC changes no mounts below a mount"));
            }
            _ if LXC_WORDS.iter().any(|word| name.contains(word)) => {
                let reason = format!("option {name}: LXC would take a part of it for a word of its own");
                return text.lacks(&field, &reason);
            }
            _ => options.push(name),
        }
    }
    if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        text.lacks(
            &field,
            "uidMappings and gidMappings: LXC maps only to the container's own: idmap=container",
        );
    }
    let source = match mount.source() {
        Some(source) if bind => bundle.path().join(source).display().to_string(),
        Some(source) => source.display().to_string(),
        None => kind.to_owned(),
    };
    if bind && !options.contains(&"bind") && !options.contains(&"rbind") {
        options.insert(0, "bind");
    }
    options.push(if bind && Path::new(&source).is_file() { "create=file" } else { "create=dir" });
    line(
        text,
        &field,
        &source,
        &mount.destination().to_string_lossy(),
        if bind { "none" } else { kind },
        &options,
    );
}

fn is_propagation(option: &str) -> bool {
    matches!(option, "private" | "shared" | "slave" | "unbindable")
}

/// One line of fstab(5), its target below the root.
fn line(text: &mut Text, field: &str, source: &str, target: &str, kind: &str, options: &[&str]) {
    let fields = [source, target.trim_start_matches('/'), kind, &options.join(",")].map(escaped);
    text.set(field, "lxc.mount.entry", &format!("{} 0 0", fields.join(" ")));
}

/// Blanks and backslashes as octal numbers: getmntent(3).
fn escaped(field: &str) -> String {
    let escape = |c: char| match c {
        ' ' => "\\040".to_owned(),
        '\t' => "\\011".to_owned(),
        '\n' => "\\012".to_owned(),
        '\\' => "\\134".to_owned(),
        c => c.to_string(),
    };
    field.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn blanks_are_escaped() {
        assert_eq!(super::escaped("a b\\c\td\ne"), "a\\040b\\134c\\011d\\012e");
    }
}
