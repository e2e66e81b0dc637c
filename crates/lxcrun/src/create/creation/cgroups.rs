//! The cgroups of a container that is being made: whose they are, who makes them, and what limits they have.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxMemory, LinuxResources};
use rustix::process::Pid;

use super::Creation;
use crate::cgroup::{Cgroup, CgroupPath, RawLimit};
use crate::config::Plan;
use crate::error::{Context, refuse};
use crate::{Error, Host, Result, rootless};

/// Limits below this many bytes leave no room for what the init's process has freed since it is in its cgroup, all of liblxc's
/// pages: they stay charged as long as they are in a processor's list of recently used ones.
const TINY: i64 = 1 << 20;

impl Creation {
    /// Takes the cgroup for this container alone, or that of `fallback` when another one was quicker.
    pub(in crate::create) fn claim_cgroup(
        &mut self,
        plan: &mut Plan,
        fallback: Option<CgroupPath>,
    ) -> Result<()> {
        let refused = match self.try_claim() {
            Err(refused @ Error::Spec { .. }) => refused,
            claimed => return claimed,
        };
        let Some(path) = fallback.filter(|_| plan.cgroup.unit().is_none()) else { return Err(refused) };
        let path = if plan.cgroup.is_for_liblxc() { path } else { path.without_liblxc() };
        self.state.cgroup = path.container();
        self.state.monitor_cgroups = path.monitor(self.monitor_stays_in_cgroups);
        self.cgroup = self.state.cgroup(self.cgroup.hierarchies().clone());
        self.monitor_cgroups = self.state.monitor_cgroups.each_ref().map(|path| self.cgroup.beside(path));
        self.cgroup_existed = self.cgroup.existing()?.is_some();
        plan.cgroup = path;
        self.try_claim()
    }

    fn try_claim(&mut self) -> Result<()> {
        if self.cgroup.is_none() || self.state.unit.is_some() {
            // systemd makes a unit once.
            return Ok(());
        }
        let Some(claim) = self.cgroup.claim()? else {
            let reason = format!("/{}: another container is being made in it", self.cgroup.path());
            return Err(refuse(&self.id, "linux.cgroupsPath", reason));
        };
        if !claim.made || self.cgroup_existed {
            // Somebody may have come into it before it was ours.
            self.cgroup_existed |= self.cgroup.existing()?.is_some();
        }
        self.claim = Some(claim);
        Ok(())
    }

    /// Settles which cgroups are for us to make, and which for liblxc.
    pub(in crate::create) fn divide_cgroups(&mut self, plan: &Plan, host: &Host) {
        self.hidden_cgroups = plan.makes_cgroups(host) && (!self.keep_monitor || self.cgroup_existed);
        self.own_cgroups = self.hidden_cgroups || (plan.cgroup.is_some() && !plan.cgroup.is_for_liblxc());
    }

    /// Where the monitor goes before liblxc makes the container's below its own, `lxc.cgroup.relative`: none where that is not to be.
    pub(super) fn cgroups_to_enter(&self, plan: &Plan, host: &Host) -> Result<Option<Vec<PathBuf>>> {
        if self.own_cgroups {
            Ok(None)
        } else if plan.cgroup.is_some() && (plan.cgroup.unit().is_none() || plan.cgroup.is_of_unit()) {
            host.hierarchies.roots_to_enter().at(&self.id, "cannot read /proc/PID/cgroup")
        } else {
            // In that of a unit the monitor is where it is to make the container's: systemd has put it there.
            Ok(Some(Vec::new()))
        }
    }

    /// Those that are there, and that liblxc is to use as if it had made them.
    pub(super) fn cgroups_to_take(&self) -> Result<Vec<PathBuf>> {
        if self.own_cgroups {
            return Ok(Vec::new());
        }
        if self.cgroup.is_of_unit() {
            return Ok(self.cgroup.directories().collect());
        }
        if self.cgroup_existed {
            // In all hierarchies, and fit for processes.
            self.cgroup.make()?;
            return Ok(self.cgroup.directories().collect());
        }
        Ok(self.claim.iter().map(|claim| claim.directory.clone()).collect())
    }

    /// Leaves the cgroup to the container: to its processes alone, and to its root where it may change it.
    pub(in crate::create) fn leave_cgroup(&self, plan: &Plan, host: &Host, init: Pid) -> Result<()> {
        if self.state.unit.is_some() && (self.keep_monitor || self.cgroup.is_of_unit()) && !self.own_cgroups {
            // Before there are limits, which are the container's.
            let monitor = self.monitor()?.pid();
            self.cgroup.leave_to_container(monitor).at(&self.id, "cannot move the monitor")?;
        }
        // An ordinary user can't give files away; their own are those of the container's root already.
        if plan.owns_cgroup(host) && !rootless::is_ordinary_user() {
            self.cgroup.hand_over(init, plan.process.uid)?;
        }
        Ok(())
    }

    /// Sets the limits of memory, which are no longer in `resources` then. The kernel charges more than is used, for each
    /// processor, as far as the limit has room: one that is set later finds it all taken, and may be refused for it.
    pub(in crate::create) fn limit_memory(&mut self, resources: &mut LinuxResources) -> Result<()> {
        self.memory_limit =
            resources.memory().as_ref().and_then(LinuxMemory::limit).filter(|limit| *limit > 0);
        // systemd is told everything at once.
        if resources.memory().is_none() || self.state.unit.is_some() {
            return Ok(());
        }
        let mut memory = LinuxResources::default();
        memory.set_devices(None).set_memory(*resources.memory());
        resources.set_memory(None);
        self.make_room();
        self.limit(&memory, &[])
    }

    /// Where the limit of memory is [`TINY`], has the kernel forget what is free already.
    pub(in crate::create) fn make_room(&self) {
        if self.memory_limit.is_some_and(|limit| limit < TINY) {
            self.cgroup.uncharge_freed();
        }
    }

    /// Sets limits, those of raw settings last.
    pub(in crate::create) fn limit(&self, resources: &LinuxResources, raw: &[RawLimit]) -> Result<()> {
        self.cgroup.apply(resources).map_err(|e| self.blame_limit(e))?;
        self.cgroup.apply_raw(raw, resources.devices().as_deref().unwrap_or_default())
    }

    /// An init that has ended has a likely reason. The words are runc's.
    pub(super) fn blame_limit(&self, error: Error) -> Error {
        match (self.memory_limit, self.state.init) {
            (Some(limit), Some(init)) if init.is_alive().is_ok_and(|alive| !alive) => {
                let reason = format!("container init was OOM-killed (memory limit too low?): {limit} bytes");
                refuse(&self.id, "linux.resources.memory.limit", reason)
            }
            _ => error,
        }
    }

    pub(super) fn remove_cgroups(&self) {
        let _ = self.cgroup.kill_all();
        let own = (!self.cgroup_existed).then_some(&self.cgroup);
        for problem in own.into_iter().chain(&self.monitor_cgroups).flat_map(Cgroup::remove) {
            tracing::warn!("container {}: {problem}", self.id);
        }
    }
}
