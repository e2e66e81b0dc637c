//! The listener of a seccomp filter, on its way to the agent that answers for the container's system calls.

use std::os::fd::OwnedFd;

use oci_spec::runtime::Spec;
use serde::Serialize;

use crate::error::refuse;
use crate::state::OciState;
use crate::{ContainerId, Result, console};

/// What an agent gets with the descriptor. Source: runtime-spec, config-linux.md, "The Container Process State".
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    /// What the descriptors are, in their order.
    fds: [&'static str; 1],
    /// The process under the filter, as this runtime sees it.
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: &'a OciState,
}

/// Sends `listener` of the process `pid` to the agent at `linux.seccomp.listenerPath`.
pub(crate) fn send(
    id: &ContainerId,
    spec: &Spec,
    state: &OciState,
    pid: i32,
    listener: &OwnedFd,
) -> Result<()> {
    let field = "linux.seccomp.listenerPath";
    let seccomp = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    let Some((seccomp, path)) = seccomp.and_then(|s| Some((s, s.listener_path().as_ref()?))) else {
        return Err(refuse(id, field, "is missing"));
    };
    let message = ContainerProcessState {
        oci_version: spec.version(),
        fds: ["seccompFd"],
        pid,
        metadata: seccomp.listener_metadata().as_deref(),
        state,
    };
    let send = || -> std::io::Result<()> {
        let json = serde_json::to_vec(&message)?;
        console::send_with(path, &json, listener)
    };
    // The words are runc's.
    let failed = |e| format!("failed to connect with seccomp agent at {}: {e}", path.display());
    send().map_err(|e| refuse(id, field, failed(e)))
}
