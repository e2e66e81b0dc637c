//! The features document: runtime-spec, features.md and features-linux.md.
//!
//! It says what this build does, not what this host can (`lxcrun doctor` says that). What the code knows by a table is
//! taken from there; whether a field is fulfilled is asked of the check that refuses it.

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use crate::{ContainerId, OCI_VERSION, config, facts};

/// What this runtime can do.
#[must_use]
pub fn features() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": facts::HOOKS,
        "mountOptions": facts::mount_options(),
        "linux": {
            "namespaces": facts::namespaces(),
            "capabilities": facts::capability_names(),
            "cgroup": {
                "v1": true,
                "v2": facts::CGROUP_V2,
                "systemd": facts::SYSTEMD_CGROUP,
                "systemdUser": facts::SYSTEMD_CGROUP,
                "rdma": true
            },
            "seccomp": {
                "enabled": true,
                "actions": facts::SECCOMP_ACTIONS,
                "operators": facts::SECCOMP_OPERATORS,
                "archs": facts::SECCOMP_ARCHITECTURES,
                "knownFlags": facts::SECCOMP_FLAGS,
                "supportedFlags": facts::supported_seccomp_flags()
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": fulfils(&json!({ "mountLabel": "x" })) },
            "intelRdt": {
                "enabled": fulfils(&json!({ "intelRdt": { "closID": "x" } })),
                "schemata": fulfils(&json!({ "intelRdt": { "schemata": ["x"] } })),
                "monitoring": fulfils(&json!({ "intelRdt": { "enableMonitoring": true } }))
            },
            "memoryPolicy": { "modes": facts::MEMORY_POLICY_MODES, "flags": facts::MEMORY_POLICY_FLAGS },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": fulfils(&json!({ "netDevices": { "x": {} } })) }
        },
        "annotations": {
            "io.github.seccomp.libseccomp.version": facts::libseccomp_version(),
            "org.linuxcontainers.lxc.version": facts::liblxc_version(),
            "org.lxcrun.checkpoint.enabled": "true",
            "org.lxcrun.version": env!("CARGO_PKG_VERSION")
        },
        "potentiallyUnsafeConfigAnnotations": facts::UNSAFE_ANNOTATIONS
    })
}

/// Whether a specification with this in `linux` is not refused for want of code.
fn fulfils(linux: &Value) -> bool {
    let spec: Result<Spec, _> = serde_json::from_value(json!({ "ociVersion": OCI_VERSION, "linux": linux }));
    let id = "features".parse::<ContainerId>();
    matches!((id, spec), (Ok(id), Ok(spec)) if config::check_supported(&id, &spec).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_one() {
        let features = serde_json::from_value::<oci_spec::runtime::Features>(features()).unwrap();
        assert_eq!(features.oci_version_max(), OCI_VERSION);
        let linux = features.linux().as_ref().unwrap();
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 8);
        assert_eq!(linux.memory_policy().as_ref().unwrap().modes().as_ref().unwrap().len(), 7);
    }

    #[test]
    fn a_field_that_is_refused_is_no_feature() {
        assert!(fulfils(&json!({ "sysctl": {} })));
        // Not a field of the specification that this build could parse.
        assert!(!fulfils(&json!({ "namespaces": [{ "type": "none" }] })));
    }
}
