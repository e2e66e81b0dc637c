//! Raw LXC settings in annotations. Users write these who may not be root, so what they may set is a short list, unless the
//! administrator makes it longer.

use oci_spec::runtime::Spec;
use serde::Deserialize;

use super::raw_keys::{ANNOTATIONS, matches};
use crate::error::{refuse, unable};
use crate::{ContainerId, Result};

/// The prefix of annotations that are LXC settings.
pub const ANNOTATION_PREFIX: &str = "org.linuxcontainers.lxc.";
/// Where an administrator allows more settings in annotations.
pub const SYSTEM_CONFIG: &str = "/etc/lxcrun/lxcrun.toml";

/// Names and values, in an order that has an effect: annotations have none of their own.
pub(super) fn settings(spec: &Spec) -> Vec<(&str, &String)> {
    let all = spec.annotations().iter().flatten();
    let mut settings: Vec<(&str, &String)> =
        all.filter_map(|(key, value)| Some((key.strip_prefix(ANNOTATION_PREFIX)?, value))).collect();
    settings.sort_by_key(|(name, value)| (!goes_first(name), *name, *value));
    settings
}

/// Whether a setting is one that others add to: what LXC forgets them at.
fn goes_first(key: &str) -> bool {
    key.ends_with(".type") || key.ends_with(".devices.deny")
}

/// The part of the system's configuration that is about annotations.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SystemConfig {
    annotations: Annotations,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Annotations {
    /// Keys; a `*` at the end stands for anything.
    allow: Vec<String>,
}

/// What the administrator allows besides.
pub(super) struct Allowed(Vec<String>);

impl Allowed {
    /// Reads `annotations.allow` of the system's configuration. None is an empty one; a damaged one allows nothing.
    pub(super) fn read(id: &ContainerId) -> Result<Self> {
        let text = match std::fs::read_to_string(SYSTEM_CONFIG) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self(Vec::new())),
            read => read.map_err(|e| unable(id, SYSTEM_CONFIG, e.to_string()))?,
        };
        let config: SystemConfig =
            toml::from_str(&text).map_err(|e| unable(id, SYSTEM_CONFIG, e.message().to_owned()))?;
        Ok(Self(config.annotations.allow))
    }

    /// Fails for a key that an annotation may not set. It is judged by today's name, because what it does is the same by the old
    /// one; the administrator may have `written` either.
    pub(super) fn check(&self, id: &ContainerId, field: &str, key: &str, written: &str) -> Result<()> {
        let by_anybody = ANNOTATIONS.iter().any(|pattern| matches(pattern, key));
        let by_administrator =
            || self.0.iter().any(|pattern| allows(pattern, key) || allows(pattern, written));
        if by_anybody || by_administrator() {
            return Ok(());
        }
        let reason = format!("{key} is not allowed in an annotation (annotations.allow in {SYSTEM_CONFIG})");
        Err(refuse(id, field, reason))
    }
}

fn allows(pattern: &str, key: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => key.starts_with(prefix),
        None => key == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_in_an_order_that_has_an_effect() {
        let keys =
            ["net.0.flags", "net.0.type", "cgroup.devices.allow", "cgroup.devices.deny", "signal.halt"];
        let mut sorted: Vec<&str> = keys.to_vec();
        sorted.sort_by_key(|key| (!goes_first(key), *key));
        let expected =
            ["cgroup.devices.deny", "net.0.type", "cgroup.devices.allow", "net.0.flags", "signal.halt"];
        assert_eq!(sorted, expected);
    }
}
