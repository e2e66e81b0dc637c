//! Which capabilities a program gets.

use std::collections::BTreeSet;

use lxcrun::capability_names;

/// What every container gets unless its command says otherwise.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A name that is none of a capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {0:?}")]
pub(crate) struct CapabilityError(pub String);

/// Names of the kernel, with `CAP_`.
pub(crate) type Capabilities = BTreeSet<String>;

/// One entry of a list.
#[derive(PartialEq, Eq)]
enum Entry {
    All,
    One(String),
}

/// With or without `CAP_`, in any case.
fn parse(name: &str) -> Result<Entry, CapabilityError> {
    let upper = name.to_uppercase();
    if upper == "ALL" {
        return Ok(Entry::All);
    }
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let known = capability_names().into_iter().any(|n| n.strip_prefix("CAP_").unwrap_or(&n) == bare);
    if known { Ok(Entry::One(format!("CAP_{bare}"))) } else { Err(CapabilityError(name.into())) }
}

fn parse_all(names: &[String]) -> Result<Vec<Entry>, CapabilityError> {
    names.iter().map(|name| parse(name)).collect()
}

/// The names of a list, where `all` is everything in `available`.
pub(crate) fn exactly(names: &[String], available: &Capabilities) -> Result<Capabilities, CapabilityError> {
    let mut set = Capabilities::new();
    for entry in parse_all(names)? {
        match entry {
            Entry::All => set.extend(available.iter().cloned()),
            Entry::One(name) => drop(set.insert(name)),
        }
    }
    Ok(set)
}

/// A privileged program has everything `available` to begin with, any other the default set; what is added and dropped
/// changes that.
///
/// Whoever drops `all` gets only what is added by name. Whoever adds `all` gets everything `available` but what is
/// dropped by name. What is both added and dropped by name is added.
pub(crate) fn adjusted(
    add: &[String],
    drop: &[String],
    privileged: bool,
    available: &Capabilities,
) -> Result<Capabilities, CapabilityError> {
    let (add, drop) = (parse_all(add)?, parse_all(drop)?);
    let mut set: Capabilities = match (privileged || add.contains(&Entry::All), drop.contains(&Entry::All)) {
        (_, true) => Capabilities::new(),
        (true, false) => available.clone(),
        (false, false) => DEFAULT_CAPABILITIES.iter().map(ToString::to_string).collect(),
    };
    set.retain(|name| !drop.contains(&Entry::One(name.clone())));
    set.extend(add.into_iter().filter_map(|entry| match entry {
        Entry::One(name) => Some(name),
        Entry::All => None,
    }));
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    fn tweak(add: &[&str], drop: &[&str]) -> Vec<String> {
        let available = names(&["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"]).into_iter().collect();
        adjusted(&names(add), &names(drop), false, &available).unwrap().into_iter().collect()
    }

    #[test]
    fn names_are_taken_with_and_without_prefix_in_any_case() {
        for name in ["sys_admin", "SYS_ADMIN", "cap_sys_admin", "CAP_Sys_Admin"] {
            assert!(tweak(&[name], &[]).contains(&"CAP_SYS_ADMIN".to_owned()), "{name}");
        }
        assert_eq!(tweak(&[], &[]).len(), DEFAULT_CAPABILITIES.len());
        assert_eq!(tweak(&[], &["chown"]).len(), DEFAULT_CAPABILITIES.len() - 1);
    }

    #[test]
    fn all_is_everything_and_nothing() {
        assert_eq!(tweak(&["net_admin"], &["all"]), ["CAP_NET_ADMIN"]);
        assert_eq!(tweak(&["ALL"], &["CAP_KILL"]), ["CAP_CHOWN", "CAP_SYS_ADMIN"]);
        assert!(tweak(&["all"], &["all"]).is_empty());
    }

    #[test]
    fn unknown_names_are_refused_by_name() {
        for name in ["", "CAP_", "CAP_CAP_KILL", "sysadmin", "all "] {
            let refused = adjusted(&names(&[name]), &[], false, &Capabilities::new()).unwrap_err();
            assert_eq!(refused, CapabilityError(name.into()));
        }
    }
}
