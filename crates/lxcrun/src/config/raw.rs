//! Raw LXC settings: what only LXC gives, from a program that embeds us, from `--lxc-conf`, or from annotations.
//!
//! They are applied after everything that is generated. What is liblxc's stays as it is; what is ours to do, because LXC would
//! do it too early or elsewhere, goes to a place of its own. `raw_keys` knows the names, `raw_values` the values, and
//! `raw_annotations` what annotations may say.

use std::collections::BTreeMap;

use oci_spec::runtime::{Mount, Spec};
use protocol::monitor::Item;

use super::lxcfs;
use super::process::Rlimit;
use super::profile::{GENERATED, WantedProfile};
use super::raw_annotations::{self, ANNOTATION_PREFIX, Allowed};
use super::raw_keys::{self, DELEGATION};
use super::raw_values;
use crate::cgroup::{Layout, RawLimit};
use crate::error::refuse;
use crate::{ContainerId, Result};

/// Settings, translated and checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct RawSettings {
    /// For liblxc.
    pub items: Vec<Item>,
    /// `lxc.mount.entry`: LXC would mount it where the init mounts over it, so it becomes a mount like any other.
    pub mounts: Vec<Mount>,
    /// `lxc.apparmor.profile`: the program's, like `process.apparmorProfile`, and the last word.
    pub apparmor_profile: Option<String>,
    /// What `lxc.apparmor.profile=generated` and the settings beside it ask for.
    pub wanted_profile: WantedProfile,
    /// The field that asks for a cgroup of the container's own to change.
    pub delegation: Option<String>,
    /// The field that asks for LXCFS over the container's /proc.
    pub lxcfs: Option<String>,
    /// `lxc.uts.name`: of a new namespace alone, where liblxc would name the host.
    pub hostname: Option<Item>,
    /// `lxc.prlimit.*`, which execs have, too.
    pub rlimits: Vec<Rlimit>,
    /// `lxc.time.offset.*`: clock, seconds and nanoseconds, and the field.
    pub time_offsets: BTreeMap<&'static str, (i64, u32, String)>,
    /// `lxc.cgroup.*` and `lxc.cgroup2.*`: ours, because those of the specification are set later than liblxc's.
    pub limits: Vec<RawLimit>,
    /// `lxc.sysctl.*`, checked like those of the specification: LXC would set the host's, too.
    pub sysctls: Vec<Item>,
    /// The network that settings of LXC 1.x, which have no number, are about.
    unnumbered: u32,
    /// The first one of all: field and key.
    first: Option<(String, String)>,
}

impl RawSettings {
    /// The settings of `spec`'s annotations, then those of `trusted`.
    pub(crate) fn new(id: &ContainerId, spec: &Spec, trusted: &[(String, String)]) -> Result<Self> {
        let mut settings = Self::default();
        let annotations = raw_annotations::settings(spec);
        if !annotations.is_empty() {
            let allowed = Allowed::read(id)?;
            for (name, value) in annotations {
                settings.annotate(id, &allowed, name, value)?;
            }
        }
        for (key, value) in trusted {
            let key = raw_keys::full_name(key);
            raw_keys::check(id, "lxc_config", &key)?;
            let key = settings.translate(id, &key);
            settings.add(id, "lxc_config", &key, value)?;
        }
        settings.wanted_profile.check(id)?;
        Ok(settings)
    }

    /// The settings of `spec`'s annotations, for a file that LXC reads without us: each by today's name, or why it can't be had.
    pub(crate) fn of_annotations(id: &ContainerId, spec: &Spec) -> Vec<Result<Item>> {
        let annotations = raw_annotations::settings(spec);
        if annotations.is_empty() {
            return Vec::new();
        }
        let allowed = match Allowed::read(id) {
            Ok(allowed) => allowed,
            Err(e) => return vec![Err(e)],
        };
        let mut settings = Self::default();
        let mut annotate = |(name, value): (&str, &String)| {
            let key = settings.annotate(id, &allowed, name, value)?;
            Ok(Item { key, value: value.clone(), field: annotation(name) })
        };
        annotations.into_iter().map(&mut annotate).collect()
    }

    /// Adds a setting of an annotation, and returns today's name of it.
    fn annotate(&mut self, id: &ContainerId, allowed: &Allowed, name: &str, value: &str) -> Result<String> {
        let field = annotation(name);
        let written = raw_keys::full_name(name);
        raw_keys::check(id, &field, &written)?;
        let key = self.translate(id, &written);
        allowed.check(id, &field, &key, &written)?;
        self.add(id, &field, &key, value)?;
        Ok(key)
    }

    /// Adds a setting by today's name.
    fn add(&mut self, id: &ContainerId, field: &str, key: &str, value: &str) -> Result<()> {
        if let Some(instead) = raw_keys::instead_of(key) {
            return Err(refuse(id, field, format!("{key} can't be set: {instead}")));
        }
        if value.contains('\n') || value.contains('\0') {
            return Err(refuse(id, field, format!("the value of {key} has more than one line")));
        }
        if self.first.is_none() {
            self.first = Some((field.into(), key.into()));
        }
        let item = Item { key: key.into(), value: value.into(), field: field.into() };
        self.keep(item).map_err(|reason| refuse(id, field, format!("{key}: {reason}")))
    }

    /// Puts a setting where it belongs, or says what is wrong with its value.
    fn keep(&mut self, item: Item) -> Result<(), String> {
        let Item { key, value, field } = &item;
        if key == DELEGATION {
            self.delegation = raw_values::switch(value)?.then(|| field.clone());
        } else if key == lxcfs::KEY {
            self.lxcfs = raw_values::switch(value)?.then(|| field.clone());
        } else if key == "lxc.mount.entry" {
            self.mounts.push(raw_values::mount_entry(value)?);
        } else if key == "lxc.apparmor.profile" {
            let name = Some(value.clone()).filter(|name| !name.is_empty());
            let before = std::mem::replace(&mut self.apparmor_profile, name);
            takes_back(value, before.is_some())?;
            self.wanted_profile.generate(field, value == GENERATED);
        } else if let Some(setting) = key.strip_prefix("lxc.apparmor.") {
            self.wanted_profile.set(field, setting, value)?;
        } else if key == "lxc.uts.name" {
            takes_back(value, self.hostname.is_some())?;
            self.hostname = Some(item).filter(|item| !item.value.is_empty());
        } else if let Some(name) = key.strip_prefix("lxc.prlimit.") {
            let limit = raw_values::rlimit(&format!("{field}: {key}"), name, value)?;
            takes_back(value, self.rlimits.iter().any(|other| other.is_called(name)))?;
            self.rlimits.retain(|other| !other.is_called(name));
            self.rlimits.extend(limit);
        } else if let Some(clock) = key.strip_prefix("lxc.time.offset.") {
            let clock = match clock {
                "boot" => "boottime",
                "monotonic" => "monotonic",
                _ => return Err("is neither boot nor monotonic".into()),
            };
            let (seconds, nanoseconds) = raw_values::time_offset(value)?;
            self.time_offsets.insert(clock, (seconds, nanoseconds, field.clone()));
        } else if key.starts_with("lxc.sysctl.") {
            takes_back(value, self.sysctls.iter().any(|other| other.key == *key))?;
            self.sysctls.retain(|other| other.key != *key);
            self.sysctls.extend(Some(item).filter(|item| !item.value.is_empty()));
        } else if ["lxc.prlimit", "lxc.sysctl", "lxc.time.offset", "lxc.net"].contains(&key.as_str()) {
            // liblxc would take its own list of them back, in which there is nothing, or our network.
            return Err("has no name after it".into());
        } else if key.strip_prefix("lxc.net.").is_some_and(|number| !number.contains('.')) {
            return Err("has no setting after it".into());
        } else if key.starts_with("lxc.cgroup") {
            self.limits.push(RawLimit::new(item)?);
        } else {
            if let Some((number, setting)) = network(key) {
                self.check_network(number, setting, value)?;
            }
            self.items.push(item);
        }
        Ok(())
    }

    /// Fails for what liblxc would pass over, or take for something else.
    fn check_network(&self, number: &str, setting: &str, value: &str) -> Result<(), String> {
        let kind = format!("lxc.net.{number}.type");
        match setting {
            "type" if value == "none" => {
                Err("the host's network is had by no network namespace in linux.namespaces".into())
            }
            // liblxc forgets what was said before it.
            "type" if self.items.iter().any(|item| item.key != kind && is_of(item, number)) => {
                Err(format!("comes before all else that is said of lxc.net.{number}"))
            }
            "type" => Ok(()),
            _ if !self.items.iter().any(|item| item.key == kind) => Err(format!("comes after {kind}")),
            "flags" if value != "up" => Err(format!("{value:?} is not up, the only flag that there is")),
            "mtu" if !value.parse().is_ok_and(|mtu: u32| mtu > 0) => {
                Err(format!("{value:?} is no number of bytes"))
            }
            "name" | "veth.pair" if value.len() > INTERFACE_NAME => Err(format!(
                "{value:?} is longer than the {INTERFACE_NAME} characters of an interface's name"
            )),
            _ => Ok(()),
        }
    }

    /// Today's name of a key. Networks of LXC 1.x have no number: each `type` begins the next one.
    fn translate(&mut self, id: &ContainerId, key: &str) -> String {
        let mut new = raw_keys::renamed(key);
        if let Some(rest) = new.strip_prefix("lxc.network.") {
            if rest == "type" {
                let taken = self.items.iter().filter_map(|item| network(&item.key)?.0.parse::<u32>().ok());
                self.unnumbered = taken.max().map_or(0, |last| last.saturating_add(1));
            }
            let index = self.unnumbered;
            new = format!("lxc.net.{index}.{rest}");
        }
        if new != key {
            tracing::warn!("container {id}: {key} is called {new} today");
        }
        new
    }

    /// Whether the container gets its network from LXC and not an empty one.
    pub(crate) fn has_network(&self) -> bool {
        self.items.iter().any(|i| i.key.starts_with("lxc.net."))
    }
}

impl RawSettings {
    /// Fails for limits of a cgroup version that this host does not have: liblxc passes them over in silence.
    pub(crate) fn check_cgroup_version(&self, id: &ContainerId, layout: Layout) -> Result<()> {
        let (wrong, instead) = match layout {
            Layout::Unified => {
                ("lxc.cgroup.", "this host has cgroup v2 alone: lxc.cgroup2.* are its settings")
            }
            Layout::Legacy => {
                ("lxc.cgroup2.", "this host's controllers are of cgroup v1: it is lxc.cgroup.*")
            }
            Layout::None => ("lxc.cgroup", "this host has no cgroup file system mounted"),
        };
        match self.limits.iter().map(RawLimit::item).find(|item| item.key.starts_with(wrong)) {
            Some(Item { key, field, .. }) => Err(refuse(id, field, format!("{key} can't be set: {instead}"))),
            None => Ok(()),
        }
    }

    /// Whether LXC sets how much the OOM killer wants the init: then it has the last word.
    pub(crate) fn sets_oom_score_adj(&self) -> bool {
        self.items.iter().any(|item| item.key == "lxc.proc.oom_score_adj")
    }

    /// The first setting of all: its field and its key.
    pub(crate) fn first(&self) -> Option<(&str, &str)> {
        self.first.as_ref().map(|(field, key)| (field.as_str(), key.as_str()))
    }

    /// Whether liblxc has something to do when the container has ended: network devices to give back, hooks to run.
    pub(crate) fn needs_liblxc_at_the_end(&self) -> bool {
        self.has_network() || self.items.iter().any(|i| i.key.starts_with("lxc.hook."))
    }

    /// Fails for what liblxc does at the container's end, where its monitor is not there any more. Network devices that
    /// go away with their namespace need nobody.
    pub(crate) fn check_without_monitor(&self, id: &ContainerId) -> Result<()> {
        let at_the_end = |item: &&Item| match network(&item.key) {
            // The kernel destroys a device in a namespace that ends, unless it is hardware.
            Some((_, "type")) => item.value == "phys",
            Some((_, "l2proxy")) => item.value != "0",
            Some((_, setting)) => setting == "script.down",
            None => matches!(item.key.as_str(), "lxc.hook.stop" | "lxc.hook.post-stop"),
        };
        let Some(item) = self.items.iter().find(at_the_end) else { return Ok(()) };
        let Item { key, value, field } = item;
        let reason = format!(
            "{key} = {value} needs LXC's monitor at the container's end, which stays under run without --detach, the \
             shim and the exec driver"
        );
        Err(refuse(id, field, reason))
    }
}

/// Fails for an empty value that has no effect: in LXC it takes back what was said before.
fn takes_back(value: &str, said_before: bool) -> Result<(), String> {
    if value.is_empty() && !said_before {
        return Err("has no value, and nothing was said before it that it could take back".into());
    }
    Ok(())
}

/// `IFNAMSIZ` of netdevice(7), without the NUL.
const INTERFACE_NAME: usize = 15;

/// What an annotation is called in errors.
fn annotation(name: &str) -> String {
    format!("annotations[{ANNOTATION_PREFIX}{}]", name.escape_debug())
}

/// Whether a setting is about the network device of this number.
fn is_of(item: &Item, number: &str) -> bool {
    network(&item.key).is_some_and(|(other, _)| other == number)
}

/// The number of a network device, and its setting.
fn network(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix("lxc.net.")?.split_once('.')
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<RawSettings> {
        let trusted: Vec<(String, String)> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        RawSettings::new(&"x".parse().unwrap(), &Spec::default(), &trusted)
    }

    fn lines(pairs: &[(&str, &str)]) -> Vec<String> {
        settings(pairs).unwrap().items.into_iter().map(|i| format!("{}={}", i.key, i.value)).collect()
    }

    #[test]
    fn names_of_lxc_1_are_translated() {
        assert_eq!(
            lines(&[("lxc.rebootsignal", "INT"), ("lxc.haltsignal", "PWR")]),
            ["lxc.signal.reboot=INT", "lxc.signal.halt=PWR"]
        );
        let named = settings(&[("utsname", "a"), ("limit.nofile", "5")]).unwrap();
        assert_eq!(named.hostname.unwrap().value, "a");
        assert!(named.rlimits[0].is_called("nofile"));
        let networks = [
            ("network.type", "veth"),
            ("network.ipv4", "10.0.0.2/24"),
            ("network.type", "macvlan"),
            ("network.link", "d0"),
        ];
        let expected = [
            "lxc.net.0.type=veth",
            "lxc.net.0.ipv4.address=10.0.0.2/24",
            "lxc.net.1.type=macvlan",
            "lxc.net.1.link=d0",
        ];
        assert_eq!(lines(&networks), expected);
    }

    #[test]
    fn networks_with_and_without_numbers_are_different_ones() {
        let networks = [
            ("net.3.type", "veth"),
            ("network.type", "empty"),
            ("network.flags", "up"),
            ("net.3.link", "br0"),
        ];
        let expected =
            ["lxc.net.3.type=veth", "lxc.net.4.type=empty", "lxc.net.4.flags=up", "lxc.net.3.link=br0"];
        assert_eq!(lines(&networks), expected);
    }

    #[test]
    fn a_setting_that_liblxc_would_forget_is_refused() {
        for key in ["net.0.link", "network.name", "net.1.type"] {
            let error = settings(&[("net.1.flags", "up"), (key, "x")]).unwrap_err().to_string();
            assert!(error.contains("lxc.net.1.flags: comes after lxc.net.1.type"), "{error}");
        }
    }

    #[test]
    fn what_the_life_cycle_depends_on_is_refused() {
        for key in [
            "rootfs",
            "lxc.rootfs.path",
            "init_cmd",
            "log.file",
            "lxc.monitor.unshare",
            "cgroup.dir.container",
            "pts",
            "ephemeral",
            "hook.autodev",
            "hook.clone",
            "hook.destroy",
            "keyring.session",
        ] {
            let error = settings(&[(key, "x")]).unwrap_err().to_string();
            assert!(error.contains("can't be set"), "{key}: {error}");
        }
    }

    #[test]
    fn limits_of_the_other_cgroup_version_are_refused() {
        let check = |key: &str, layout| {
            settings(&[(key, "1")]).unwrap().check_cgroup_version(&"x".parse().unwrap(), layout)
        };
        let error = check("cgroup.pids.max", Layout::Unified).unwrap_err().to_string();
        assert!(error.contains("lxc.cgroup.pids.max can't be set"), "{error}");
        assert!(check("cgroup2.pids.max", Layout::Legacy).is_err());
        assert!(check("cgroup2.pids.max", Layout::None).is_err());
        assert!(check("cgroup2.pids.max", Layout::Unified).is_ok());
        assert!(check("cgroup.pids.max", Layout::Legacy).is_ok());
    }

    #[test]
    fn an_apparmor_profile_is_the_programs_and_not_for_liblxc() {
        let named = settings(&[("lxc.aa_profile", "b")]).unwrap();
        assert_eq!((named.apparmor_profile.as_deref(), named.items.as_slice()), (Some("b"), [].as_slice()));
    }

    #[test]
    fn settings_of_a_generated_profile_need_one() {
        let raw = ("apparmor.raw", "deny /x w,");
        let wanted = settings(&[raw, ("apparmor.profile", "generated")]).unwrap().wanted_profile;
        assert_eq!(
            (wanted.is_generated(), wanted.rules.as_slice()),
            (true, ["deny /x w,".to_owned()].as_slice())
        );
        for wrong in [&[raw][..], &[("apparmor.allow_nesting", "2")], &[("apparmor.other", "1")]] {
            assert!(settings(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_key_is_one_word() {
        for key in ["prlimit.x=1\nlxc.hook.post-stop", "lxc.signal.halt ", "hook.mount#", "sysctl.a/b"] {
            let error = settings(&[(key, "")]).unwrap_err().to_string();
            assert!(error.contains("is no name of an LXC setting") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_last_limit_of_a_name_counts_and_an_empty_one_is_none() {
        let limits = |pairs: &[(&str, &str)]| {
            let all = settings(pairs).unwrap().rlimits;
            all.iter().map(|limit| limit.soft).collect::<Vec<_>>()
        };
        assert_eq!(limits(&[("prlimit.nofile", "5"), ("prlimit.nofile", "6")]), [6]);
        assert!(limits(&[("prlimit.nofile", "5"), ("prlimit.nofile", "")]).is_empty());
        assert!(settings(&[("prlimit.files", "5")]).is_err());
    }

    #[test]
    fn an_empty_value_takes_something_back_or_is_refused() {
        for key in ["prlimit.nofile", "uts.name", "utsname", "apparmor.profile", "sysctl.net.ipv4.ip_forward"]
        {
            let error = settings(&[(key, "")]).unwrap_err().to_string();
            assert!(error.contains("has no value"), "{key}: {error}");
            settings(&[(key, "5"), (key, "")]).unwrap();
        }
        let both = settings(&[("sysctl.net.a", "5"), ("sysctl.net.b", "6"), ("sysctl.net.a", "")]).unwrap();
        assert_eq!(both.sysctls.iter().map(|s| s.key.as_str()).collect::<Vec<_>>(), ["lxc.sysctl.net.b"]);
        assert!(settings(&[("prlimit", "")]).is_err());
    }

    #[test]
    fn what_is_done_at_the_end_needs_the_monitor() {
        let check =
            |pairs: &[(&str, &str)]| settings(pairs).unwrap().check_without_monitor(&"x".parse().unwrap());
        let at_the_end = [
            ("hook.post-stop", "/x"),
            ("hook.stop", "/x"),
            ("net.0.type", "phys"),
            ("net.1.script.down", "/x"),
            ("net.1.l2proxy", "1"),
        ];
        for (key, value) in at_the_end {
            let error = check(&[("net.1.type", "veth"), (key, value)]).unwrap_err().to_string();
            assert!(error.contains(&format!("lxc.{key} = {value} needs LXC's monitor")), "{error}");
        }
        assert!(check(&[("net.0.type", "veth"), ("hook.pre-start", "/x"), ("hook.version", "1")]).is_ok());
    }

    #[test]
    fn a_mount_entry_becomes_a_mount() {
        let found =
            settings(&[("mount.entry", "/srv/a\\040b srv/x none bind,ro,create=dir 0 0")]).unwrap().mounts;
        assert_eq!(found[0].destination(), Path::new("/srv/x"));
        assert_eq!(found[0].source().as_deref(), Some(Path::new("/srv/a b")));
        assert_eq!(found[0].options().as_deref(), Some(["bind".to_owned(), "ro".to_owned()].as_slice()));
    }
}
