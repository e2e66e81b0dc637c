//! The container's place among the cgroups.

use std::path::Path;

use oci_spec::runtime::Spec;

use super::CreateOptions;
use crate::cgroup::{Cgroup, CgroupPath, Layout, NO_CGROUP};
use crate::config::Plan;
use crate::error::refuse;
use crate::systemd::Unit;
use crate::{ContainerId, Host, Result, rootless};

/// runc's words.
const NO_WAY_TO_KILL: &str = "Creating a rootless container with no cgroup and no private pid namespace. Such \
    configuration is strongly discouraged (as it is impossible to properly kill all container's processes)";

/// Settles where it is to be. Returns another place, for when somebody else is quicker to take that one: a container that does
/// not ask for a place may have it.
pub(super) fn choose(
    id: &ContainerId,
    root: &Path,
    spec: &Spec,
    host: &Host,
    plan: &mut Plan,
    options: &CreateOptions,
) -> Result<Option<CgroupPath>> {
    let named = spec.linux().as_ref().and_then(|l| l.cgroups_path().as_deref());
    let mut fallback =
        named.is_none_or(|path| path.as_os_str().is_empty()).then(|| CgroupPath::of_root(id, root));
    if Cgroup::new(id, host.hierarchies.clone(), &plan.cgroup.container()).is_there()
        && let Some(path) = fallback.take()
    {
        plan.cgroup = path;
    }
    if options.systemd_cgroup {
        plan.cgroup = systemd_cgroup(id, spec, host, plan, options.keep_monitor)?;
    } else if rootless::is_ordinary_user() {
        plan.cgroup = cgroup_of_user(id, plan.cgroup.clone(), named, host)?;
        if !plan.cgroup.is_some() && !plan.namespaces.is_new("pid") {
            tracing::warn!("{}", NO_WAY_TO_KILL);
        }
    }
    if let (Some(field), false) = (&plan.raw.delegation, plan.cgroup.is_some()) {
        return Err(refuse(id, field, NO_CGROUP));
    }
    Ok(fallback)
}

/// The cgroup of a container of who may not do everything: where they may make one, in a part of version 2 that was given
/// to them.
fn cgroup_of_user(
    id: &ContainerId,
    wanted: CgroupPath,
    named: Option<&Path>,
    host: &Host,
) -> Result<CgroupPath> {
    let may_make = |path: &str| Cgroup::new(id, host.hierarchies.clone(), path).can_be_made();
    if may_make(&wanted.container()) {
        // liblxc makes cgroups below the root alone. Root of a system in a container has that, and is root to liblxc, too.
        let has_root = rustix::process::geteuid().is_root() && may_make(id.as_str());
        return Ok(if has_root { wanted } else { wanted.without_liblxc() });
    }
    if named.is_some_and(|path| !path.as_os_str().is_empty()) {
        // The words are runc's.
        let reason = "unable to apply cgroup configuration: applying cgroup configuration: permission denied: this user \
                      may make no cgroup there";
        return Err(refuse(id, "linux.cgroupsPath", reason));
    }
    Ok(CgroupPath::none(id))
}

/// The cgroup of a unit of systemd that does not exist yet. An ordinary user can't take LXC's monitor out of it, and it passes
/// no controllers on to a delegated one as long as that is in: then the container's is below. A monitor that retires leaves
/// by that.
pub(crate) fn systemd_cgroup(
    id: &ContainerId,
    spec: &Spec,
    host: &Host,
    plan: &Plan,
    keep_monitor: bool,
) -> Result<CgroupPath> {
    if host.cgroup_layout() != Layout::Unified {
        return Err(refuse(id, "linux.cgroupsPath", "--systemd-cgroup needs a host with cgroup v2 alone"));
    }
    let wanted = spec.linux().as_ref().and_then(|l| l.cgroups_path().as_deref());
    let unit = Unit::new(id, wanted)?;
    let by_user = rootless::is_ordinary_user();
    if plan.raw.delegation.is_some() || (by_user && keep_monitor) {
        return Ok(CgroupPath::in_unit(id, unit));
    }
    let path = CgroupPath::of_unit(id, unit);
    Ok(if by_user { path.without_liblxc() } else { path })
}
