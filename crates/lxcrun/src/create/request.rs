//! What the init is asked to do.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::init::{FdIndex, Rootfs, Stdio};

use super::creation::Creation;
use crate::config::Plan;
use crate::error::Context;
use crate::state::Status;
use crate::{Result, mounts};

/// Descriptors on their way to the init.
#[derive(Debug, Default)]
pub(crate) struct FdTable(Vec<OwnedFd>);

impl FdTable {
    pub(crate) fn push(&mut self, fd: OwnedFd) -> FdIndex {
        self.0.push(fd);
        self.0.len() - 1
    }

    pub(crate) fn borrowed(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(AsFd::as_fd).collect()
    }
}

/// What the init can't open itself.
pub(super) struct HandedToInit {
    /// Standard input, output and error.
    pub stdio: Vec<OwnedFd>,
    /// What the program gets from 3 on.
    pub preserved: Vec<OwnedFd>,
    pub sources: mounts::Sources,
    pub gate: OwnedFd,
}

/// What the init is asked to do, with the descriptors that it needs for it.
pub(super) fn init_request(
    creation: &Creation,
    plan: &Plan,
    handed: HandedToInit,
    no_pivot: bool,
    fds: &mut FdTable,
) -> Result<protocol::init::Container> {
    let id = &creation.id;
    let mut process = plan.process.clone();
    if !plan.terminal {
        let indices: Vec<FdIndex> = handed.stdio.into_iter().map(|fd| fds.push(fd)).collect();
        process.stdio = Stdio::Fds([indices[0], indices[1], indices[2]]);
    }
    process.preserved = handed.preserved.into_iter().map(|fd| fds.push(fd)).collect();
    let tree = handed.sources.rootfs.for_init(fds);
    let mounts = mounts::for_init(id, plan, handed.sources.binds, &creation.cgroup, fds)?;
    let mut to_join = |name| match plan.namespaces.to_join(name) {
        Some(path) => {
            let file = fs::File::open(path).at(id, path.display().to_string())?;
            Ok(Some(fds.push(file.into())))
        }
        None => Ok(None),
    };
    let (mut cgroup_namespace, mount_namespace) = (to_join("cgroup")?, to_join("mount")?);
    let joined_time_namespace = to_join("time")?;
    if plan.liblxc_makes_a_cgroup_namespace_unasked() {
        const OWN: &str = "/proc/self/ns/cgroup";
        cgroup_namespace = Some(fds.push(fs::File::open(OWN).at(id, OWN)?.into()));
    }
    Ok(protocol::init::Container {
        cgroups_hidden: creation.hidden_cgroups,
        new_cgroup_namespace: !plan.cgroup.is_for_liblxc()
            && plan.cgroup.is_some()
            && plan.namespaces.is_new("cgroup"),
        new_ipc_namespace: plan.namespaces.ipc_is_for_init(),
        cgroup_namespace,
        mount_namespace,
        time_namespace: plan.time_namespace.clone(),
        joined_time_namespace,
        rootfs: Rootfs {
            tree,
            path: plan.rootfs.clone(),
            readonly: plan.rootfs_readonly,
            propagation: plan.rootfs_propagation,
            no_pivot,
        },
        mounts,
        devices: plan.devices.clone(),
        dev_links: plan.dev_links,
        hostname: plan.hostname.clone(),
        domainname: plan.domainname.clone(),
        sysctl: plan.sysctl.clone(),
        masked_paths: plan.masked_paths.clone(),
        readonly_paths: plan.readonly_paths.clone(),
        create_container_hooks: plan.create_container_hooks.clone(),
        start_container_hooks: plan.start_container_hooks.clone(),
        creating_state: creation.state.oci(Status::Creating).json(),
        created_state: creation.state.oci(Status::Created).json(),
        gate: fds.push(handed.gate),
        keyring: (!creation.state.no_new_keyring).then(|| id.keyring()),
        process,
    })
}

/// Copies of this process's standard input, output and error.
pub(crate) fn own_stdio() -> io::Result<Vec<OwnedFd>> {
    let own = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    own.iter().map(BorrowedFd::try_clone_to_owned).collect()
}
