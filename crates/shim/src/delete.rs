//! `delete`: containerd's way to be rid of a container whose shim is gone.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context;
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::{Message, MessageField};
use lxcrun::{Container, ContainerId};

use crate::events::timestamp;
use crate::flags::Flags;
use crate::options::remembered_root;
use crate::rootfs::unmount_root;

/// What containerd takes for a container that was killed.
const KILLED: u32 = 137;

pub fn delete(flags: &Flags) -> anyhow::Result<()> {
    let bundle = if flags.bundle.is_empty() { Path::new(".") } else { Path::new(&flags.bundle) };
    let root = remembered_root(bundle, &flags.namespace);
    let id: ContainerId = flags.id.parse()?;
    let container = Container::load(&root, &id).ok();
    let pid = container.as_ref().and_then(Container::init_pid);
    // Its monitor may have outlived the shim, and know.
    let status = container.as_ref().and_then(Container::exit_code_left_behind).map_or(KILLED, u32::from);
    lxcrun::delete(&root, &id, true)?;
    unmount_root(bundle);
    remove_socket(bundle);
    let response = DeleteResponse {
        pid: pid.and_then(|pid| pid.try_into().ok()).unwrap_or(0),
        exit_status: status,
        exited_at: MessageField::some(timestamp(SystemTime::now())),
        ..DeleteResponse::default()
    };
    std::io::stdout().write_all(&response.write_to_bytes()?).context("cannot tell what was deleted")
}

/// The socket of a shim that was killed. Others of its pod may still have theirs in use.
fn remove_socket(bundle: &Path) {
    let Ok(address) = fs::read_to_string(bundle.join("address")) else { return };
    let Some(path) = address.strip_prefix("unix://") else { return };
    if UnixStream::connect(path).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused) {
        let _ = fs::remove_file(path);
    }
}
