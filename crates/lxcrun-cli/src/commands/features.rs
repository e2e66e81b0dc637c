//! `features`: what this runtime can do. Source: runtime-spec, features.md and features-linux.md.

use serde_json::{Value, json};

/// The features document.
pub fn features() -> Value {
    let liblxc = lxc::Liblxc::load().map_or_else(|_| "missing".into(), |l| l.version());
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": lxcrun::OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": lxcrun::MOUNT_OPTIONS,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": lxcrun::capability_names(),
            "cgroup": { "v1": true, "v2": false, "systemd": false, "systemdUser": false, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": lxcrun::SECCOMP_ACTIONS,
                "operators": [
                    "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT",
                    "SCMP_CMP_MASKED_EQ"
                ],
                "archs": lxcrun::SECCOMP_ARCHITECTURES,
                "knownFlags": lxcrun::SECCOMP_FLAGS,
                "supportedFlags": lxcrun::SECCOMP_FLAGS
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": false },
            "memoryPolicy": {},
            "mountExtensions": { "idmap": { "enabled": false } },
            "netDevices": { "enabled": false }
        },
        "annotations": {
            "org.linuxcontainers.lxc.version": liblxc,
            "io.github.seccomp.libseccomp.version": lxcrun::libseccomp_version()
        },
        "potentiallyUnsafeConfigAnnotations": ["org.linuxcontainers.lxc."]
    })
}
