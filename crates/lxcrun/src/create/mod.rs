//! `create`: everything up to, but not including, the user's program.

mod creation;
mod place;
mod request;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Spec};
use protocol::init::ToInit;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cgroup::{CgroupPath, Layout};
use crate::checkpoint::name_of;
use crate::config::Plan;
use crate::container::Container;
use crate::error::{Context, refuse, unable};
use crate::resctrl::Resctrl;
use crate::{Bundle, ContainerId, Host, Result, console, mounts, netdevices, process, rootless};

use creation::Creation;
pub(crate) use place::systemd_cgroup;
pub(crate) use request::{FdTable, own_stdio};
use request::{HandedToInit, init_request};

/// What `create` is asked for besides the bundle.
#[derive(Debug, Default)]
pub struct CreateOptions {
    /// Standard input, output and error of a program without a terminal; those of this process by default.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Where to send the master of the program's terminal.
    pub console_socket: Option<PathBuf>,
    /// Where to send a pidfd of the process.
    pub pidfd_socket: Option<PathBuf>,
    /// Have the terminal leave LF as it is and not make CR LF of it: for output that goes to another terminal, which does
    /// that, or to a file. For a terminal that is not sent to a console socket.
    pub plain_newlines: bool,
    /// Becomes readable when nobody wants the container any more. Hooks end then, and `create` and `start` fail; without hooks
    /// neither waits for anybody.
    pub cancelled: Option<OwnedFd>,
    /// Where to write the init's pid.
    pub pid_file: Option<PathBuf>,
    /// Descriptors that the program gets from 3 on.
    pub preserve_fds: Vec<OwnedFd>,
    /// Move the root instead of pivot_root(2), for a root on a ramdisk.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// Have systemd make a scope for the container: `linux.cgroupsPath` is `slice:prefix:name`.
    pub systemd_cgroup: bool,
    /// Give the container a copy of `root.path` in its own directory, which goes away with it.
    pub copy_rootfs: bool,
    /// Variables that the program gets besides those of the specification, `NAME=value`.
    pub environment: Vec<String>,
    /// Give the program a socket for messages of sd_notify(3), which [`Container::notify_socket`] listens at.
    pub notify: bool,
    /// Raw LXC settings from somebody who may do anything with this host: name, with or without `lxc.`, and value.
    pub lxc_config: Vec<(String, String)>,
    /// Leave LXC's monitor as the container's parent, so that this process can wait for its end and LXC's tools see
    /// the container. Otherwise the init becomes a child of the nearest subreaper.
    pub keep_monitor: bool,
}

/// Makes a container from a bundle. Its program waits for [`Container::start`].
///
/// # Errors
/// Any of [`crate::Error`]; nothing is left behind then.
pub fn create(root: &Path, id: &ContainerId, bundle: &Bundle, options: CreateOptions) -> Result<Container> {
    let spec = bundle.spec();
    check_paths(id, root, bundle)?;
    let host = Host::probe(id)?;
    rootless::check(id, spec)?;
    let mut plan = Plan::new(id, bundle.path(), spec, &host, &options.lxc_config)?;
    check_terminal(id, &plan, &options)?;
    if !options.keep_monitor {
        plan.raw.check_without_monitor(id)?;
    }
    let user_namespace = rootless::user_namespace(id, &plan)?;
    let fallback_cgroup = place::choose(id, root, spec, &host, &mut plan, &options)?;
    let binds = mounts::open_binds(id, &plan)?;
    let resctrl = plan.intel_rdt.as_ref().map(|wanted| Resctrl::new(id, wanted)).transpose()?;

    let mut creation = Creation::begin(root, id, bundle, &plan, &host, options.keep_monitor)?;
    let checked = Checked { plan, user_namespace, fallback_cgroup, binds, resctrl };
    let made = make(&mut creation, spec, &host, checked, options);
    made.map_err(|e| creation.blame_delete(e))
}

/// What was settled before anything was made.
struct Checked {
    plan: Plan,
    user_namespace: Option<OwnedFd>,
    /// Another place for its cgroup.
    fallback_cgroup: Option<CgroupPath>,
    binds: Vec<mounts::HostTree>,
    resctrl: Option<Resctrl>,
}

/// The steps that change something. Whichever fails, `creation` undoes them.
fn make(
    creation: &mut Creation,
    spec: &Spec,
    host: &Host,
    checked: Checked,
    mut options: CreateOptions,
) -> Result<Container> {
    let id = &creation.id.clone();
    let Checked { mut plan, user_namespace, fallback_cgroup, binds, resctrl } = checked;
    creation.cancelled = options.cancelled.take().filter(|_| spec.hooks().is_some());
    creation.claim_cgroup(&mut plan, fallback_cgroup)?;
    creation.divide_cgroups(&plan, host);
    creation.state.resctrl.clone_from(&resctrl);
    creation.state.no_new_keyring = options.no_new_keyring;
    creation.generate_profile(&mut plan)?;
    let sources = open_sources(creation, &mut plan, binds, &mut options)?;
    let gate = creation.bind_gate()?;
    let config = creation.start_liblxc(spec, host, &plan, user_namespace.as_ref())?;
    let init = creation.meet_init(&config)?;

    let mut limits = resources(spec, host);
    creation.limit_memory(&mut limits)?;
    creation.leave_cgroup(&plan, host, init)?;
    ask_init(creation, &plan, sources, gate, &mut options)?;
    creation.until_mounted(&plan)?;
    // Only now: rules for devices also go for making their nodes. Before the hooks, which may want to change some.
    creation.limit(&limits, &plan.raw.limits)?;
    if let (Some(resctrl), Some(wanted)) = (resctrl, &plan.intel_rdt) {
        resctrl.apply(id, wanted, init)?;
    }
    let mut devices = netdevices::move_into(id, &plan.net_devices, init)?;
    if !plan.create_runtime_hooks.is_empty() {
        creation.run_hooks(&plan.create_runtime_hooks)?;
        creation.cgroup.leave_devices_to_hooks()?;
    }
    creation.proceed()?;
    let terminal = creation.until_ready(spec)?;
    tracing::debug!("the init waits at its gate; init: closing the pipe to signal completion");

    process::set_rlimits(id, init, &plan.rlimits)?;
    process::set_oom_score_adj(id, init, plan.oom_score_adj)?;
    let terminal = tell_sockets(id, init, terminal, &options)?;
    let container = creation.finish(options.pid_file.as_deref(), terminal)?;
    devices.keep();
    Ok(container)
}

/// Makes what the container has in its own directory, and opens the trees that it is made of.
fn open_sources(
    creation: &mut Creation,
    plan: &mut Plan,
    mut binds: Vec<mounts::HostTree>,
    options: &mut CreateOptions,
) -> Result<mounts::Sources> {
    if options.copy_rootfs {
        plan.rootfs = creation.copy_rootfs(&plan.rootfs)?;
    }
    if options.notify {
        binds.push(creation.make_notify_directory(plan)?);
    }
    plan.process.env.append(&mut options.environment);
    let rootfs = mounts::open_rootfs(&creation.id, plan)?;
    if options.copy_rootfs {
        mounts::allow_programs(&creation.id, &rootfs)?;
    }
    Ok(mounts::Sources { rootfs, binds })
}

/// Tells the init what to make, and hands it the descriptors that it needs for that.
fn ask_init(
    creation: &mut Creation,
    plan: &Plan,
    sources: mounts::Sources,
    gate: OwnedFd,
    options: &mut CreateOptions,
) -> Result<()> {
    let stdio = options.stdio.take().map_or_else(own_stdio, |fds| Ok(fds.into()));
    let stdio = stdio.at(&creation.id, "standard input, output and error")?;
    if !plan.terminal {
        creation.state.stdio = stdio.iter().map(name_of).collect();
    }
    let preserved = std::mem::take(&mut options.preserve_fds);
    let handed = HandedToInit { stdio, preserved, sources, gate };
    let mut fds = FdTable::default();
    let request = init_request(creation, plan, handed, options.no_pivot, &mut fds)?;
    creation.send(&ToInit::Prepare(Box::new(request)), &fds)
}

/// Sends the terminal and a pidfd to who listens for them. A terminal that nobody does is the caller's.
fn tell_sockets(
    id: &ContainerId,
    init: Pid,
    terminal: Option<OwnedFd>,
    options: &CreateOptions,
) -> Result<Option<OwnedFd>> {
    let socket = options.console_socket.as_deref();
    let terminal = console::hand_over(id, terminal, socket, options.plain_newlines)?;
    if let Some(socket) = &options.pidfd_socket {
        let pidfd = pidfd_open(init, PidfdFlags::empty()).at(id, "the init has ended")?;
        console::send_pidfd(id, socket, b"standard", &pidfd)?;
    }
    Ok(terminal)
}

/// `linux.resources`; no device is allowed that it does not allow, also when it says nothing.
pub(crate) fn resources(spec: &Spec, host: &Host) -> LinuxResources {
    let mut resources = spec.linux().as_ref().and_then(|l| l.resources().clone()).unwrap_or_default();
    if host.cgroup_layout() != Layout::None && resources.devices().is_none() {
        resources.set_devices(Some(Vec::new()));
    }
    resources
}

/// Both are written down, in JSON and in lines.
fn check_paths(id: &ContainerId, root: &Path, bundle: &Bundle) -> Result<()> {
    for (what, path) in [("state root", root), ("bundle", bundle.path())] {
        match path.to_str() {
            None => return Err(unable(id, what, format!("{} is not UTF-8", path.display()))),
            Some(text) if text.contains(char::is_control) => {
                return Err(unable(id, what, format!("{text:?} has a control character")));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn check_terminal(id: &ContainerId, plan: &Plan, options: &CreateOptions) -> Result<()> {
    if options.console_socket.is_some() && !plan.terminal {
        return Err(refuse(id, "process.terminal", "is false: a console socket would never be used"));
    }
    if plan.terminal && options.console_socket.is_none() && !options.keep_monitor {
        return Err(refuse(id, "process.terminal", "needs a console socket when the container is detached"));
    }
    Ok(())
}
