//! `restore`: makes a container again from what [`checkpoint`](crate::Container::checkpoint) has saved.
//!
//! CRIU makes the processes and their namespaces. What was the host's it finds in a mount namespace of its own, where
//! the root is mounted below the container's directory: the host's mounts never change.

mod paths;
mod restoration;

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::fs::{FileType, fstat};

use self::paths::paths_on_host;
use self::restoration::Restoration;
use crate::cgroup::Cgroup;
use crate::checkpoint::{self, DESCRIPTORS};
use crate::config::{Plan, Sharing};
use crate::create::{resources, systemd_cgroup};
use crate::criu::rpc::{CgroupRoot, Features, InheritFd, JoinNamespace, Options};
use crate::criu::{self, CgroupsMode, Directory};
use crate::error::{Context, refuse, unable};
use crate::{Bundle, Container, ContainerId, Host, Result, console, mounts};

const LOG: &str = "restore.log";

/// What `restore` is asked for besides the bundle.
#[derive(Debug, Default)]
pub struct RestoreOptions {
    /// Directory of the images.
    pub image_path: PathBuf,
    /// Directory for CRIU's log; by default one that goes away with the container.
    pub work_path: Option<PathBuf>,
    /// Standard input, output and error, in place of the pipes and fifos of the saved container; those of this process by
    /// default.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Where to send the master of the program's terminal.
    pub console_socket: Option<PathBuf>,
    /// Becomes readable when nobody wants the container any more: a hook that runs then is ended, and `restore` fails.
    pub cancelled: Option<OwnedFd>,
    /// Where to write the init's pid.
    pub pid_file: Option<PathBuf>,
    /// The caller won't wait for the container, nor take its terminal.
    pub detach: bool,
    /// Restore open TCP connections.
    pub tcp_established: bool,
    /// Allow unix sockets whose other end is outside.
    pub ext_unix_sk: bool,
    /// Allow a terminal from outside.
    pub shell_job: bool,
    /// Restore file locks.
    pub file_locks: bool,
    /// Give names to files that were deleted while open.
    pub link_remap: bool,
    /// What to do about cgroups.
    pub cgroups_mode: Option<CgroupsMode>,
    /// Have systemd make a scope for the container: `linux.cgroupsPath` is `slice:prefix:name`.
    pub systemd_cgroup: bool,
    /// Free what the images have twice.
    pub auto_dedup: bool,
    /// Fetch memory when it is needed.
    pub lazy_pages: bool,
    /// `TYPE:NAME` of an LSM profile in place of the saved one.
    pub lsm_profile: Option<String>,
    /// LSM context of mounts in place of the saved one.
    pub lsm_mount_context: Option<String>,
}

/// Makes a container from a bundle and the images of a checkpoint. It runs on where it was.
///
/// Its init is a child of this process, for [`Container::wait`]; when this process ends, of the nearest subreaper.
///
/// # Errors
/// Any of [`Error`]; nothing is left behind then.
pub fn restore(
    root: &Path,
    id: &ContainerId,
    bundle: &Bundle,
    mut options: RestoreOptions,
) -> Result<Container> {
    let spec = bundle.spec();
    let host = Host::probe(id)?;
    let plan = plan(id, bundle, &host, &options)?;
    let saved = saved_stdio(id, &options.image_path)?;

    let mut restoration = Restoration::begin(root, id, bundle, &plan, &host)?;
    let tree = open_root(id, &plan)?;
    let stdio = restoration.take_stdio(options.stdio.take(), &plan)?;
    check_replaceable(id, &saved, &stdio)?;
    // A fifo is another one now, whose permissions may be others, too.
    let other_permissions = saved.iter().any(|name| checkpoint::is_external(name));
    let inherited = Inherited::new(id, &plan, saved, stdio)?;
    let config_file = checkpoint::config_file(id, spec)?;
    let needed = paths_on_host(&plan, config_file.as_deref(), &options);
    let (mut criu, images, work) = restoration.spawn_criu(tree, inherited.fds, &needed, &options)?;
    restoration.note_criu(criu.pid())?;
    let (limits, limits_of_restored) = split(resources(spec, &host));
    restoration.make_cgroup(spec, criu.pid(), &limits)?;

    let request = Options {
        root: Some(restoration.root()?.display().to_string()),
        cgroup_roots: cgroup_roots(&restoration.cgroup),
        external_mounts: criu::mounts::on_host(id, &plan, &restoration.cgroup)?,
        join_namespaces: joined_namespaces(&plan),
        config_file,
        inherit_fds: inherited.names,
        skip_file_rwx_check: other_permissions.then_some(true),
        ..options.for_criu(&images, &work)
    };
    criu.check(Features { lazy_pages: options.lazy_pages.then_some(true), ..Features::default() })?;
    // Without a place of its own it goes with the container's directory.
    let log = criu::Log { path: work.path.join(LOG), stays: options.work_path.is_some() };
    let cancelled = options.cancelled.as_ref().map(AsFd::as_fd);
    let (terminal, mut devices) =
        restoration.run_criu(criu, request, &log, &plan, &limits_of_restored, cancelled)?;

    let terminal = console::hand_over(id, terminal, options.console_socket.as_deref(), false)?;
    let container = restoration.finish(options.pid_file.as_deref(), terminal)?;
    devices.keep();
    Ok(container)
}

/// What the bundle asks for, where a restore can give it.
fn plan(id: &ContainerId, bundle: &Bundle, host: &Host, options: &RestoreOptions) -> Result<Plan> {
    let mut plan = Plan::new(id, bundle.path(), bundle.spec(), host, &[])?;
    if options.systemd_cgroup {
        plan.cgroup = systemd_cgroup(id, bundle.spec(), host, &plan, false)?;
    }
    check_terminal(id, &plan, options)?;
    checkpoint::check_restorable(id, &plan)?;
    Ok(plan)
}

/// The root, attached nowhere, with a place in it for each mount.
fn open_root(id: &ContainerId, plan: &Plan) -> Result<OwnedFd> {
    let mounts::HostTree::Cloned(tree) = mounts::open_rootfs(id, plan)? else {
        return Err(unable(id, "restore", "only root can restore a container"));
    };
    criu::mounts::make_places(id, plan, &tree)?;
    Ok(tree)
}

impl RestoreOptions {
    /// What they ask CRIU for.
    fn for_criu(&self, images: &Directory, work: &Directory) -> Options {
        Options {
            evasive_devices: Some(true),
            restore_sibling: Some(true),
            tcp_established: Some(self.tcp_established),
            ext_unix_sk: Some(self.ext_unix_sk),
            shell_job: Some(self.shell_job),
            file_locks: Some(self.file_locks),
            link_remap: Some(self.link_remap),
            auto_dedup: Some(self.auto_dedup),
            lazy_pages: Some(self.lazy_pages),
            lsm_profile: self.lsm_profile.clone(),
            lsm_mount_context: self.lsm_mount_context.clone(),
            manage_cgroups_mode: self.cgroups_mode.map(CgroupsMode::number),
            empty_namespaces: Some(criu::EMPTY_NAMESPACES),
            ..criu::options(images, work, LOG)
        }
    }
}

fn check_terminal(id: &ContainerId, plan: &Plan, options: &RestoreOptions) -> Result<()> {
    if options.console_socket.is_some() && !plan.terminal {
        return Err(refuse(id, "process.terminal", "is false: a console socket would never be used"));
    }
    if plan.terminal && options.console_socket.is_none() && options.detach {
        return Err(refuse(id, "process.terminal", "needs a console socket when the container is detached"));
    }
    Ok(())
}

/// What CRIU, which makes the processes in their cgroup, can't do its work under, apart from the rest: with rules for devices it
/// could neither make device nodes nor find out what the kernel can do, and it is one process more than the container has.
fn split(mut resources: LinuxResources) -> (LinuxResources, LinuxResources) {
    let mut later = LinuxResources::default();
    later.set_devices(resources.devices().clone());
    later.set_pids(*resources.pids());
    resources.set_devices(None);
    resources.set_pids(None);
    (resources, later)
}

/// What standard input, output and error were connected with.
fn saved_stdio(id: &ContainerId, images: &Path) -> Result<Vec<String>> {
    let path = images.join(DESCRIPTORS);
    let what = format!("no checkpoint in {}: cannot read {DESCRIPTORS}", images.display());
    let text = fs::read(&path).at(id, &what)?;
    serde_json::from_slice(&text).map_err(std::io::Error::other).at(id, what)
}

/// CRIU opens what takes the place of a fifo as one, to restore its data and how it was open.
fn check_replaceable(id: &ContainerId, saved: &[String], stdio: &[OwnedFd]) -> Result<()> {
    for ((saved, fd), what) in saved.iter().zip(stdio).zip(["input", "output", "error"]) {
        if checkpoint::is_external(saved) && !is_pipe(fd) {
            let reason = "was a fifo, whose place only a fifo or a pipe can take";
            return Err(unable(id, format!("standard {what}"), reason));
        }
    }
    Ok(())
}

fn is_pipe(fd: &OwnedFd) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// The place for the processes in each hierarchy: where the bundle says, wherever they were.
fn cgroup_roots(cgroup: &Cgroup) -> Vec<CgroupRoot> {
    let path = format!("/{}", cgroup.path());
    let root =
        |controller: Option<&String>| CgroupRoot { controller: controller.cloned(), path: path.clone() };
    let controllers = cgroup.hierarchies().legacy().flat_map(|hierarchy| &hierarchy.controllers);
    controllers.map(|controller| root(Some(controller))).chain(std::iter::once(root(None))).collect()
}

/// Those that CRIU joins by itself.
fn joined_namespaces(plan: &Plan) -> Vec<JoinNamespace> {
    let kinds = [("ipc", "ipc"), ("uts", "uts"), ("user", "user")];
    let joined = kinds.into_iter().filter_map(|(of_spec, kind)| match plan.namespaces.get(of_spec) {
        Some(Sharing::Path(path)) => {
            Some(JoinNamespace { namespace: kind.into(), file: path.display().to_string() })
        }
        _ => None,
    });
    joined.collect()
}

/// Descriptors for CRIU, with what the images call them.
#[derive(Default)]
struct Inherited {
    names: Vec<InheritFd>,
    fds: Vec<OwnedFd>,
}

impl Inherited {
    /// What takes the place of the saved program's standard input, output and error, and namespaces that are others'.
    fn new(id: &ContainerId, plan: &Plan, saved: Vec<String>, stdio: Vec<OwnedFd>) -> Result<Self> {
        let mut inherited = Self::default();
        for (name, fd) in saved.into_iter().zip(stdio).filter(|(name, _)| checkpoint::is_reconnected(name)) {
            inherited.push(name, fd);
        }
        for namespace in checkpoint::external_namespaces(id, plan)? {
            let file = File::open(namespace.path).at(id, namespace.path.display().to_string())?;
            inherited.push(namespace.name.into(), file.into());
        }
        Ok(inherited)
    }

    fn push(&mut self, key: String, fd: OwnedFd) {
        self.names.push(InheritFd { key, fd: criu::inherited_fd(self.fds.len()) });
        self.fds.push(fd);
    }
}
