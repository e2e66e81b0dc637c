//! The LXC configuration: what liblxc is asked to do for a container.
//!
//! Namespaces, id maps, cgroups and networks are liblxc's; the rest of the specification is the init's, because
//! LXC's words for it don't carry it (mounts, seccomp) or act before an init runs (capabilities).

use std::path::Path;

use oci_spec::runtime::{Process, Spec};
use protocol::monitor::Item;

use super::Plan;
use crate::ContainerId;
use crate::cgroup::INNER;

/// The file in the container's directory that liblxc logs to.
pub(crate) const LOG_FILE: &str = "log";

/// The file in the container's directory with the filter of lxc-attach.
pub(crate) const ATTACH_FILTER: &str = "seccomp";

/// What the configuration depends on besides the plan.
pub(crate) struct Surroundings<'d> {
    /// The container's directory.
    pub directory: &'d Path,
    /// Whether the monitor stays as the container's parent.
    pub keep_monitor: bool,
    /// Whether the monitor is in the container's user namespace already.
    pub in_user_namespace: bool,
    /// Whether the monitor stays in the cgroups that it is in.
    pub monitor_stays_in_cgroups: bool,
    /// Whether cgroups are made below the monitor's own and not below those of pid 1.
    pub relative_cgroups: bool,
}

pub(super) fn config(plan: &Plan, spec: &Spec, surroundings: &Surroundings<'_>) -> Vec<Item> {
    let Surroundings { directory, keep_monitor, in_user_namespace, .. } = *surroundings;
    let mut config = Config(Vec::new());
    // First of all, so that the reason for a refusal of any other is in the log.
    config.set("lxcrun", "lxc.log.file", directory.join(LOG_FILE).display().to_string());
    config.set("lxcrun", "lxc.log.level", "ERROR");
    if let Some((field, name)) = &plan.uts_name {
        config.set(field, "lxc.uts.name", name);
    }
    config.namespaces(plan, in_user_namespace);
    config.cgroups(plan, surroundings);
    // A monitor that stays is the container's parent: when it is killed, the container goes with it, and its end
    // is known. One that retires leaves the container to the caller's subreaper.
    config.set("lxcrun", "lxc.monitor.signal.pdeath", if keep_monitor { "SIGKILL" } else { "0" });
    if keep_monitor {
        config.rights_of_attach(spec, directory);
    }
    config.left_to_the_init();
    config.0.extend(plan.raw.items.iter().cloned());
    config.0
}

struct Config(Vec<Item>);

impl Config {
    fn set(&mut self, field: &str, key: impl Into<String>, value: impl Into<String>) {
        self.0.push(Item { key: key.into(), value: value.into(), field: field.into() });
    }

    /// Those that liblxc makes, with what is in them at first, and those that it joins.
    fn namespaces(&mut self, plan: &Plan, in_user_namespace: bool) {
        let not_for_liblxc = [
            in_user_namespace.then_some("user"),
            // Made where the container's cgroup is, which liblxc does not know.
            (plan.cgroup.is_some() && !plan.cgroup.is_for_liblxc()).then_some("cgroup"),
            plan.namespaces.ipc_is_for_init().then_some("ipc"),
        ];
        let (new, joined) = plan.namespaces.for_lxc(&not_for_liblxc.map(Option::unwrap_or_default));
        self.set("linux.namespaces", "lxc.namespace.clone", new.join(" "));
        for (name, path) in joined {
            self.set("linux.namespaces", format!("lxc.namespace.share.{name}"), path.display().to_string());
        }
        if new.contains(&"net") && !plan.raw.has_network() {
            self.set("linux.namespaces", "lxc.net.0.type", "empty");
            self.set("linux.namespaces", "lxc.net.0.flags", "up");
        }
        for (field, mapping) in plan.id_maps.iter().filter(|_| !in_user_namespace) {
            self.set(field, "lxc.idmap", mapping);
        }
    }

    /// Where the container's cgroup is, and its monitor's.
    fn cgroups(&mut self, plan: &Plan, surroundings: &Surroundings<'_>) {
        if plan.cgroup.is_for_liblxc() {
            let [monitor, pivot] = plan.cgroup.monitor_for_lxc(surroundings.monitor_stays_in_cgroups);
            self.set("linux.cgroupsPath", "lxc.cgroup.dir.container", plan.cgroup.for_lxc());
            if let Some(field) = &plan.raw.delegation {
                self.set(field, "lxc.cgroup.dir.container.inner", INNER);
            }
            self.set("lxcrun", "lxc.cgroup.dir.monitor", monitor);
            self.set("lxcrun", "lxc.cgroup.dir.monitor.pivot", pivot);
        }
        if surroundings.relative_cgroups {
            self.set("lxcrun", "lxc.cgroup.relative", "1");
        }
    }

    /// The init makes root, /dev and terminals itself, and sets the label of the program, not of itself.
    fn left_to_the_init(&mut self) {
        for (key, value) in [
            ("lxc.autodev", "0"),
            ("lxc.pty.max", "0"),
            ("lxc.tty.max", "0"),
            ("lxc.console.path", "none"),
            // What its manual page says of 0 and 1 is the other way round (liblxc 5 to 7: `keyring_disable_session`).
            ("lxc.keyring.session", "1"),
            ("lxc.apparmor.profile", "unconfined"),
        ] {
            self.set("lxcrun", key, value);
        }
    }

    /// What lxc-attach asks the monitor for, or reads in the configuration, so that it gives no more rights than the
    /// container has. Capabilities, label, user and namespaces it takes from the init. And the signal of lxc-stop: a
    /// program knows SIGTERM, SIGPWR is for an init of a system.
    fn rights_of_attach(&mut self, spec: &Spec, directory: &Path) {
        if spec.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some()) {
            let file = directory.join(ATTACH_FILTER).display().to_string();
            self.set("linux.seccomp", "lxc.seccomp.profile", file);
            // Else it would believe the container's /proc that there is a filter already.
            self.set("linux.seccomp", "lxc.seccomp.allow_nesting", "1");
        }
        if spec.process().as_ref().and_then(Process::no_new_privileges) == Some(true) {
            self.set("process.noNewPrivileges", "lxc.no_new_privs", "1");
        }
        self.set("lxcrun", "lxc.signal.halt", "SIGTERM");
    }
}

/// The configuration as a file for people and for LXC's tools.
pub(crate) fn render(items: &[Item], id: &ContainerId, bundle: &Path) -> String {
    let bundle = one_line(&bundle.display().to_string());
    let mut text = format!("# container {id}, bundle {bundle}: written by lxcrun\n");
    let mut field = "";
    for item in items {
        if item.field != field {
            field = &item.field;
            text += &format!("\n# {}\n", one_line(field));
        }
        text += &format!("{} = {}\n", item.key, item.value);
    }
    text
}

/// Text for a comment. What is behind the end of a line is a setting to LXC's tools.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use oci_spec::runtime::Spec;
    use protocol::monitor::Item;

    use super::{Surroundings, render};
    use crate::cgroup::Hierarchies;
    use crate::config::Plan;
    use crate::host::SecurityModules;
    use crate::{ContainerId, Host};

    /// The LXC configuration of the default specification with `change` made to its JSON.
    fn config_of(change: impl Fn(&mut serde_json::Value), lxc_config: &[(&str, &str)]) -> String {
        config_with(change, lxc_config, false)
    }

    fn config_with(
        change: impl Fn(&mut serde_json::Value),
        lxc_config: &[(&str, &str)],
        keep_monitor: bool,
    ) -> String {
        let mut json: serde_json::Value = serde_json::from_str(crate::DEFAULT_SPEC).unwrap();
        json["root"]["path"] = "/".into();
        change(&mut json);
        let spec: Spec = serde_json::from_value(json).unwrap();
        let id: ContainerId = "web".parse().unwrap();
        let host = Host {
            capabilities: u64::MAX,
            hierarchies: Hierarchies::unified_only(),
            security: SecurityModules { apparmor: true, selinux: true },
        };
        let raw: Vec<(String, String)> = lxc_config.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let plan = Plan::new(&id, Path::new("/bundle"), &spec, &host, &raw).unwrap();
        let surroundings = Surroundings {
            directory: Path::new("/run/lxcrun/web"),
            keep_monitor,
            in_user_namespace: false,
            monitor_stays_in_cgroups: false,
            relative_cgroups: false,
        };
        render(&plan.lxc_config(&id, &spec, &surroundings).unwrap(), &id, Path::new("/bundle"))
    }

    #[test]
    fn comments_have_one_line() {
        let item = Item { key: "lxc.a".into(), value: "1".into(), field: "x\nlxc.log.file = /etc/x".into() };
        let text = render(&[item], &"web".parse().unwrap(), Path::new("/b\nlxc.include = /c"));
        let settings: Vec<&str> = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
        assert_eq!(settings, ["lxc.a = 1"]);
    }

    #[test]
    fn the_default_specification() {
        insta::assert_snapshot!(config_of(|_| {}, &[]));
    }

    #[test]
    fn namespaces_of_the_host_and_by_path() {
        let change = |json: &mut serde_json::Value| {
            json["hostname"] = "".into();
            json["linux"]["namespaces"] = serde_json::json!([
                { "type": "mount" }, { "type": "pid" }, { "type": "network", "path": "/proc/self/ns/net" }
            ]);
        };
        insta::assert_snapshot!(config_of(change, &[]));
    }

    #[test]
    fn what_lxc_attach_may_do_where_the_monitor_stays() {
        let change = |json: &mut serde_json::Value| {
            json["process"]["noNewPrivileges"] = true.into();
            json["linux"]["seccomp"] = serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW" });
        };
        insta::assert_snapshot!(config_with(change, &[], true));
    }

    #[test]
    fn a_cgroup_path() {
        insta::assert_snapshot!(config_of(|json| json["linux"]["cgroupsPath"] = "/docker/abc".into(), &[]));
    }

    #[test]
    fn an_lxc_network_replaces_the_empty_one_and_raw_settings_come_last() {
        let raw =
            [("lxc.net.0.type", "veth"), ("net.0.link", "br0"), ("utsname", "other"), ("signal.halt", "PWR")];
        insta::assert_snapshot!(config_of(|_| {}, &raw));
    }
}
