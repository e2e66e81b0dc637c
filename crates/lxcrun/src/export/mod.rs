//! A plain LXC configuration for a bundle: for people who run it under LXC or Proxmox by hand, without lxcrun.
//!
//! This is another translation than the runtime's own, which leaves most of a specification to the init: here
//! everything has to be said in LXC's words, and what they can't say becomes a comment that names the field. Nothing
//! of the host is looked at but whether a bind mount's source is a file, and nothing of what is made depends on LXC 7.
//! Sources: lxc.container.conf(5); `lxc_string_split_quoted` and `parse_line` of liblxc for the quoting.

mod linux;
mod mounts;
mod process;
mod text;

use oci_spec::runtime::Spec;
use protocol::monitor::Item;

use crate::config::{OWN_KEYS, RawSettings};
use crate::{Bundle, ContainerId, Error, Result};
use text::Text;

/// The configuration, as the text of a file that `lxc-start -F -n NAME -f FILE` and `lxc-execute -n NAME -f FILE` take.
///
/// What an annotation may not set when the bundle is run becomes a comment, too.
#[must_use]
pub fn plain_lxc_config(bundle: &Bundle) -> String {
    let spec = bundle.spec();
    let raw = RawSettings::of_annotations(&ContainerId::of_bundle(bundle.path()), spec);
    let settings: Vec<&Item> = raw.iter().flatten().collect();
    let mut text = Text::new(&format!(
        "LXC configuration of the bundle {}, written by lxcrun {}\n\
         Run it as root: lxc-execute -n NAME -f THIS-FILE, or lxc-start -F -n NAME -f THIS-FILE\n\
         A line that begins with \"not expressed\" names what the bundle asks for and LXC alone does not give",
        bundle.path().display(),
        env!("CARGO_PKG_VERSION"),
    ));
    root(&mut text, bundle);
    if let Some(process) = spec.process() {
        process::process(&mut text, process);
    }
    names(&mut text, spec);
    mounts::mounts(&mut text, bundle, &settings);
    if let Some(linux) = spec.linux() {
        linux::linux(&mut text, linux, &settings);
    }
    hooks(&mut text, spec);
    annotations(&mut text, raw);
    text.finish()
}

fn root(text: &mut Text, bundle: &Bundle) {
    let Some(root) = bundle.spec().root() else {
        return text.lacks("root", "is missing: set lxc.rootfs.path yourself");
    };
    let path = bundle.path().join(root.path());
    text.set("root", "lxc.rootfs.path", &format!("dir:{}", path.display()));
    if root.readonly().unwrap_or(false) {
        text.set("root", "lxc.rootfs.options", "ro");
        text.note(
            "root",
            "LXC can't make directories in a read-only root: the targets of all mounts must be there",
        );
    }
}

fn names(text: &mut Text, spec: &Spec) {
    if let Some(name) = spec.hostname().as_ref().filter(|n| !n.is_empty()) {
        text.set("hostname", "lxc.uts.name", name);
    }
    if let Some(name) = spec.domainname().as_ref().filter(|n| !n.is_empty()) {
        text.set("domainname", "lxc.sysctl.kernel.domainname", name);
    }
}

fn hooks(text: &mut Text, spec: &Spec) {
    let Some(hooks) = spec.hooks() else { return };
    #[allow(deprecated)]
    let all = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (name, hooks) in all {
        if hooks.as_ref().is_some_and(|h| !h.is_empty()) {
            let reason =
                "LXC's hooks get neither the state on standard input nor the same moments: see lxc.hook.*";
            text.lacks(&format!("hooks.{name}"), reason);
        }
    }
}

/// Settings that are LXC's own already.
fn annotations(text: &mut Text, raw: Vec<Result<Item>>) {
    for setting in raw {
        match setting {
            Ok(Item { key, .. }) if OWN_KEYS.contains(&key.as_str()) => {
                text.lacks("annotations", &format!("{key}: LXC has no such setting"));
            }
            Ok(Item { key, value, .. }) => text.set("annotations", &key, &value),
            Err(Error::Spec { field, reason, .. }) => text.lacks(&field, &reason),
            Err(other) => text.lacks("annotations", &other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut json: serde_json::Value = serde_json::from_str(crate::DEFAULT_SPEC).unwrap();
        change(&mut json);
        let bundle = Bundle::from_config("/srv/web".into(), json.to_string().into()).unwrap();
        plain_lxc_config(&bundle)
    }

    #[test]
    fn the_default_specification() {
        let text = config(|_| {});
        insta::assert_snapshot!(text);
    }

    #[test]
    fn everything_that_lxc_can_say_and_what_it_cannot() {
        let text = config(|json| {
            json["process"]["args"] = serde_json::json!(["sh", "-c", "echo \"$A\"", "it's", ""]);
            json["process"]["env"] =
                serde_json::json!(["A= padded ", "B=\"quoted\"", "C=two\nlines", "PATH=/bin"]);
            json["process"]["user"] =
                serde_json::json!({ "uid": 7, "gid": 8, "additionalGids": [9, 10], "umask": 18 });
            json["process"]["oomScoreAdj"] = 100.into();
            json["process"]["apparmorProfile"] = "web".into();
            json["process"]["capabilities"]["effective"] = serde_json::json!([]);
            json["mounts"].as_array_mut().unwrap().extend([
                serde_json::json!({ "destination": "/data dir", "type": "bind", "source": "/srv/a b",
                                    "options": ["rbind", "rro", "rslave"] }),
                serde_json::json!({ "destination": "/c", "type": "overlay", "source": "overlay",
                                    "options": ["lowerdir=/optional:/x", "upperdir=/u", "workdir=/w"] }),
            ]);
            let linux = &mut json["linux"];
            linux["resources"] = serde_json::json!({
                "memory": { "limit": 64 << 20, "swap": 96 << 20 },
                "cpu": { "quota": 50000, "period": 100000, "shares": 512 },
                "pids": { "limit": 100 },
                "network": { "classID": 5 },
                "devices": [{ "allow": false, "access": "rwm" },
                            { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" }],
                "unified": { "memory.high": "60M" },
            });
            linux["devices"] =
                serde_json::json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229 }]);
            linux["sysctl"] = serde_json::json!({ "net.ipv4.ip_forward": "1" });
            linux["uidMappings"] =
                serde_json::json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
            linux["gidMappings"] = linux["uidMappings"].clone();
            linux["namespaces"] = serde_json::json!([
                { "type": "mount" }, { "type": "pid" }, { "type": "user" }, { "type": "uts" },
                { "type": "ipc", "path": "/proc/7/ns/ipc" }
            ]);
            linux["cgroupsPath"] = "/pods/web".into();
            linux["seccomp"] = serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW" });
            json["hooks"] = serde_json::json!({ "poststop": [{ "path": "/bin/true" }] });
            json["annotations"] = serde_json::json!({ "org.linuxcontainers.lxc.prlimit.core": "0" });
        });
        insta::assert_snapshot!(text);
    }
}
