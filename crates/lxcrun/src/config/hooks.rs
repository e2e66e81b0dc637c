//! `hooks`.

use std::path::Path;
use std::time::Duration;

use oci_spec::runtime::Spec;
use protocol::Hook;

use crate::error::refuse;
use crate::{ContainerId, Result};

/// When a hook runs. Source: runtime-spec, config.md, "POSIX-platform Hooks".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HookKind {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

/// The hooks of one kind, checked.
pub(crate) fn hooks(id: &ContainerId, spec: &Spec, kind: HookKind) -> Result<Vec<Hook>> {
    let Some(hooks) = spec.hooks() else { return Ok(Vec::new()) };
    #[allow(deprecated)] // by the specification; Docker still uses it
    let (name, list) = match kind {
        HookKind::Prestart => ("prestart", hooks.prestart()),
        HookKind::CreateRuntime => ("createRuntime", hooks.create_runtime()),
        HookKind::CreateContainer => ("createContainer", hooks.create_container()),
        HookKind::StartContainer => ("startContainer", hooks.start_container()),
        HookKind::Poststart => ("poststart", hooks.poststart()),
        HookKind::Poststop => ("poststop", hooks.poststop()),
    };
    list.iter()
        .flatten()
        .enumerate()
        .map(|(index, hook)| {
            let field = format!("hooks.{name}[{index}]");
            check_path(id, &format!("{field}.path"), hook.path())?;
            for (part, texts) in [("args", hook.args()), ("env", hook.env())] {
                if texts.iter().flatten().any(|text| text.contains('\0')) {
                    return Err(refuse(id, format!("{field}.{part}"), "contains a NUL byte"));
                }
            }
            let timeout = match hook.timeout() {
                None => None,
                Some(seconds) => match u64::try_from(seconds) {
                    Ok(seconds @ 1..) => Some(Duration::from_secs(seconds)),
                    _ => return Err(refuse(id, format!("{field}.timeout"), "must be greater than zero")),
                },
            };
            // As in runc: a program of the host has the runtime's environment unless it is given one.
            let env = match kind {
                HookKind::CreateContainer => Some(hook.env().clone().unwrap_or_default()),
                _ => hook.env().clone(),
            };
            Ok(Hook {
                name: format!("{name} hook #{index}"),
                path: hook.path().clone(),
                args: hook.args().clone().unwrap_or_default(),
                env,
                timeout,
            })
        })
        .collect()
}

fn check_path(id: &ContainerId, field: &str, path: &Path) -> Result<()> {
    if path.is_absolute() { Ok(()) } else { Err(refuse(id, field, format!("{:?} is not absolute", path))) }
}
