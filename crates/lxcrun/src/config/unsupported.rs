//! Properties of other platforms than Linux. Each is refused by name: a container that runs without what its
//! specification asks for is worse than one that doesn't run.

use oci_spec::runtime::Spec;

use crate::error::refuse;
use crate::{ContainerId, Result};

pub(crate) fn check(id: &ContainerId, spec: &Spec) -> Result<()> {
    let mut asked: Vec<&str> = Vec::new();
    let mut ask = |field, is_set: bool| {
        if is_set {
            asked.push(field);
        }
    };
    if let Some(process) = spec.process() {
        ask("process.commandLine", process.command_line().is_some());
        ask("process.user.username", process.user().username().is_some());
    }
    ask("solaris", spec.solaris().is_some());
    ask("windows", spec.windows().is_some());
    ask("vm", spec.vm().is_some());
    ask("zos", spec.zos().is_some());
    match asked.as_slice() {
        [] => Ok(()),
        [field, ..] => Err(refuse(id, *field, "is not a property of a Linux container")),
    }
}
