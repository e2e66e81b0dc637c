//! `process.capabilities`.

use std::collections::HashSet;

use oci_spec::runtime::{Capability, LinuxCapabilities};
use protocol::init::Capabilities;

use crate::error::refuse;
use crate::{ContainerId, Result};

/// Every capability of Linux, by its number. Source: linux/capability.h.
pub(crate) const CAPABILITIES: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// Its name, as the specification and capabilities(7) have it.
pub(crate) fn capability_name(capability: Capability) -> String {
    format!("CAP_{capability}")
}

/// The bit of a capability in the kernel's sets.
fn capability_bits(capability: Capability) -> u64 {
    CAPABILITIES.iter().position(|c| *c == capability).map_or(0, |number| 1 << number)
}

/// Those that can't be made ambient: the kernel wants them permitted and inheritable. Where nothing is inheritable nobody
/// counts on them: buildah asks for all of them in vain for every `RUN`, and podman shows warnings as output of a build.
fn warn_of_ambient(id: &ContainerId, wanted: Capabilities) {
    let vain = wanted.ambient & !(wanted.permitted & wanted.inheritable);
    if wanted.inheritable == 0 {
        if vain != 0 {
            tracing::debug!("container {id}: no ambient capability can be raised: none is inheritable");
        }
        return;
    }
    for capability in CAPABILITIES.into_iter().filter(|c| capability_bits(*c) & vain != 0) {
        let name = capability_name(capability);
        tracing::warn!(
            "container {id}: can't raise ambient capability {name}: it is not permitted and inheritable"
        );
    }
}

/// All five sets. Without `process.capabilities` a program gets none, as in runc.
pub(super) fn capabilities(id: &ContainerId, wanted: Option<&LinuxCapabilities>) -> Result<Capabilities> {
    let Some(wanted) = wanted else { return Ok(Capabilities::default()) };
    let bits = |set: &Option<HashSet<Capability>>| {
        set.iter().flatten().fold(0, |all, capability| all | capability_bits(*capability))
    };
    let wanted = Capabilities {
        bounding: bits(wanted.bounding()),
        effective: bits(wanted.effective()),
        inheritable: bits(wanted.inheritable()),
        permitted: bits(wanted.permitted()),
        ambient: bits(wanted.ambient()),
    };
    check_consistent(id, wanted)?;
    warn_of_ambient(id, wanted);
    Ok(wanted)
}

/// What capset(2) refuses whoever asks. The init would hear so when it is started, and `create` is where runc says it.
fn check_consistent(id: &ContainerId, wanted: Capabilities) -> Result<()> {
    for (field, excess, what) in [
        ("process.capabilities.effective", wanted.effective & !wanted.permitted, "permitted"),
        ("process.capabilities.inheritable", wanted.inheritable & !wanted.bounding, "in the bounding set"),
    ] {
        let name = CAPABILITIES.into_iter().find(|c| capability_bits(*c) & excess != 0).map(capability_name);
        if let Some(name) = name {
            let reason = format!("unable to apply caps: operation not permitted: {name} is not {what}");
            return Err(refuse(id, field, reason));
        }
    }
    Ok(())
}

/// Nobody can give what he doesn't have, except in a user namespace of the container's own.
pub(super) fn check_available(id: &ContainerId, wanted: Capabilities, own: u64) -> Result<()> {
    let asked = wanted.effective | wanted.permitted | wanted.inheritable;
    let missing: Vec<String> = CAPABILITIES
        .into_iter()
        .filter(|c| capability_bits(*c) & asked & !own != 0)
        .map(capability_name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let reason = format!(
        "unable to apply caps: operation not permitted: lxcrun itself does not have {}",
        missing.join(", ")
    );
    Err(refuse(id, "process.capabilities", reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel() {
        assert_eq!(capability_name(Capability::SysAdmin), "CAP_SYS_ADMIN");
        assert_eq!(capability_bits(Capability::Chown), 1);
        assert_eq!(capability_bits(Capability::SysAdmin), 1 << 21);
        assert_eq!(capability_bits(Capability::CheckpointRestore), 1 << 40);
    }
}
