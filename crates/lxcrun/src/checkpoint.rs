//! `checkpoint`: saves all processes of a container to image files, from which [`restore`](crate::restore) makes them
//! again.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::fs::{FileType, FlockOperation, fstat};
use rustix::process::Pid;

use crate::cgroup::wait_for_end;
use crate::config::{Plan, Sharing};
use crate::criu::rpc::{Features, Kind, Options, PageServerInfo};
use crate::criu::{self, CgroupsMode, Criu, Directory};
use crate::error::{Context, refuse, unable};
use crate::state::Status;
use crate::{Container, ContainerId, Error, Host, Result};

const LOG: &str = "dump.log";
/// Where runc writes what standard input, output and error were connected with.
pub(crate) const DESCRIPTORS: &str = "descriptors.json";
/// How CRIU's name of a file begins that is not in the images.
const EXTERNAL_FILE: &str = "file[";
/// CRIU's files where the caller names no directory for them.
pub(crate) const WORK: &str = "criu.work";
/// A file of CRIU options for this container.
const CONFIG_ANNOTATION: &str = "org.criu.config";
/// CRIU options for all containers; runc's, where there are none of ours.
const CONFIGS: [&str; 2] = ["/etc/criu/lxcrun.conf", "/etc/criu/runc.conf"];

/// What a checkpoint is asked for.
#[derive(Debug, Default)]
pub struct CheckpointOptions {
    /// Directory for the images.
    pub image_path: PathBuf,
    /// Directory for CRIU's log; by default one that goes away with the container.
    pub work_path: Option<PathBuf>,
    /// Images that these build on, relative to `image_path`.
    pub parent_path: Option<PathBuf>,
    /// Let the container run on.
    pub leave_running: bool,
    /// Save open TCP connections.
    pub tcp_established: bool,
    /// Leave out connections that are being made.
    pub tcp_skip_in_flight: bool,
    /// Save files that are open but deleted by giving them a name.
    pub link_remap: bool,
    /// Allow unix sockets whose other end is outside.
    pub ext_unix_sk: bool,
    /// Allow a terminal from outside.
    pub shell_job: bool,
    /// Leave memory behind, for a page server to fetch it from here.
    pub lazy_pages: bool,
    /// Gets a zero byte when lazy pages can be fetched.
    pub status_fd: Option<OwnedFd>,
    /// Address and port of a page server that takes the memory.
    pub page_server: Option<(String, u16)>,
    /// Save file locks.
    pub file_locks: bool,
    /// Save memory only, and let the container run on.
    pub pre_dump: bool,
    /// What to do about cgroups.
    pub cgroups_mode: Option<CgroupsMode>,
    /// Free what parent images have twice.
    pub auto_dedup: bool,
}

impl Container {
    /// Saves all processes. They have ended afterwards, unless `options` say otherwise.
    ///
    /// # Errors
    /// [`Error::Status`] unless it is running or paused, [`Error::Criu`] with CRIU's reason. The container runs on, and
    /// a directory that was made for the images is gone.
    pub fn checkpoint(&self, options: &CheckpointOptions) -> Result<()> {
        self.directory.lock(FlockOperation::LockExclusive)?;
        let saved = self.checkpoint_locked(options);
        self.directory.unlock();
        saved
    }

    fn checkpoint_locked(&self, options: &CheckpointOptions) -> Result<()> {
        let id = self.id();
        match self.status() {
            Status::Running | Status::Paused => {}
            status => return Err(self.cannot("checkpoint", status)),
        }
        let (Some(init), Some(pid)) = (self.init_pidfd()?, self.init_pid().and_then(Pid::from_raw)) else {
            return Err(self.cannot("checkpoint", Status::Stopped));
        };
        let spec = self.directory.spec()?;
        check_seccomp_agent(id, &spec)?;
        let mut plan = Plan::new(id, &self.state.bundle, &spec, &Host::probe(id)?, &[])?;
        plan.rootfs.clone_from(&self.state.rootfs);
        check_restorable(id, &plan)?;
        // From the command line or a program: the specification does not know them.
        if self.state.lxc_settings {
            let reason = "the container has raw LXC settings, and LXC takes no part in a restore";
            return Err(unable(id, "checkpoint", reason));
        }

        let parent = options.parent_path.as_deref();
        let images = NewDirectory::make(id, &options.image_path)?;
        check_parent(id, &images.0.path, parent)?;
        let work = work_directory(id, options.work_path.as_deref(), self.directory.path())?;
        let mut request = self.options(options, &plan, pid, &images.0, &work)?;
        request.config_file = config_file(id, &spec)?;
        if !options.pre_dump {
            request.external_mounts = criu::mounts::of_container(id, &plan, self.cgroup()?, pid)?;
            write_descriptors(id, &images.0.path, &self.state.stdio)?;
        }
        // CRIU freezes and thaws the container itself, and waits for ever when somebody else does. It has the lock as long as it
        // lives, also when this process is killed.
        let held = self.directory.hold_freezer()?;
        let its_hold = held.iter().map(|file| file.try_clone().map(OwnedFd::from));
        let its_hold = its_hold.collect::<io::Result<_>>().at(id, "the freezer's lock")?;
        let mut criu = Criu::spawn(id, "checkpoint", its_hold, Some(self.directory.note_for_criu()?))?;
        criu.check(Features {
            mem_track: (options.pre_dump || parent.is_some()).then_some(true),
            lazy_pages: options.lazy_pages.then_some(true),
        })?;
        let kind = if options.pre_dump { Kind::PreDump } else { Kind::Dump };
        let log = criu::Log { path: work.path.join(LOG), stays: true };
        criu.run(kind, request, &log, |_| Ok(()))?;
        images.keep();
        if !options.leave_running && !options.pre_dump {
            // CRIU has killed them. What is frozen takes its signal when it is thawed.
            self.cgroup()?.kill_all()?;
            wait_for_end(&init).at(id, "cannot wait for the init's end")?;
        }
        Ok(())
    }

    fn options(
        &self,
        options: &CheckpointOptions,
        plan: &Plan,
        init: Pid,
        images: &Directory,
        work: &Directory,
    ) -> Result<Options> {
        let freezer = self.cgroup()?.directory("freezer").map(|(directory, _)| directory);
        let parent = options.parent_path.as_deref().map(|p| p.display().to_string());
        let page_server = options.page_server.as_ref().map(|(address, port)| PageServerInfo {
            address: Some(address.clone()),
            port: Some((*port).into()),
        });
        Ok(Options {
            pid: Some(init.as_raw_nonzero().get()),
            root: Some(plan.rootfs.display().to_string()),
            leave_running: Some(options.leave_running),
            tcp_established: Some(options.tcp_established),
            tcp_skip_in_flight: Some(options.tcp_skip_in_flight),
            link_remap: Some(options.link_remap),
            ext_unix_sk: Some(options.ext_unix_sk),
            shell_job: Some(options.shell_job),
            lazy_pages: Some(options.lazy_pages),
            status_fd: options.status_fd.as_ref().map(AsRawFd::as_raw_fd),
            page_server,
            file_locks: Some(options.file_locks),
            track_memory: Some(options.pre_dump || parent.is_some()),
            parent_images: parent,
            manage_cgroups_mode: options.cgroups_mode.map(CgroupsMode::number),
            empty_namespaces: Some(criu::EMPTY_NAMESPACES),
            auto_dedup: Some(options.auto_dedup),
            freeze_cgroup: freezer.map(|d| d.display().to_string()),
            external: external_namespaces(self.id(), plan)?
                .into_iter()
                .map(|n| n.for_dump())
                .chain(self.state.stdio.iter().filter(|name| is_external(name)).cloned())
                .collect(),
            ..criu::options(images, work, LOG)
        })
    }
}

/// The descriptor that a seccomp agent has is no part of the container: it can't be saved with it, and calls would wait
/// for an answer for ever.
fn check_seccomp_agent(id: &ContainerId, spec: &Spec) -> Result<()> {
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    if seccomp.is_some_and(|seccomp| seccomp.listener_path().is_some()) {
        let reason = "criu cannot save the connection with a seccomp agent";
        return Err(refuse(id, "linux.seccomp.listenerPath", reason));
    }
    Ok(())
}

/// Fails for what would be missing after a restore: raw settings are applied by `create` alone.
pub(crate) fn check_restorable(id: &ContainerId, plan: &Plan) -> Result<()> {
    if let Some((field, key)) = plan.raw.first() {
        let reason = format!("{key} is a setting of LXC's, and LXC takes no part in a restore");
        return Err(refuse(id, field, reason));
    }
    if plan.intel_rdt.is_some() {
        return Err(refuse(id, "linux.intelRdt", "is not made again by a restore"));
    }
    for kind in ["cgroup", "mount", "time"] {
        if let Some(Sharing::Path(_)) = plan.namespaces.get(kind) {
            return Err(refuse(
                id,
                "linux.namespaces",
                format!("criu cannot join a {kind} namespace at a restore"),
            ));
        }
    }
    Ok(())
}

/// A namespace of somebody else, which is not saved.
pub(crate) struct ExternalNamespace<'p> {
    /// CRIU's name of its kind.
    kind: &'static str,
    /// Its name in the images: runc's.
    pub name: &'static str,
    pub path: &'p Path,
    inode: u64,
}

impl ExternalNamespace<'_> {
    fn for_dump(&self) -> String {
        format!("{}[{}]:{}", self.kind, self.inode, self.name)
    }
}

/// The network and PID namespaces that the container has joined. Others are saved, and joined by CRIU at a restore.
pub(crate) fn external_namespaces<'p>(
    id: &ContainerId,
    plan: &'p Plan,
) -> Result<Vec<ExternalNamespace<'p>>> {
    let kinds = [("network", "net", "extRootNetNS"), ("pid", "pid", "extRootPidNS")];
    let joined = kinds.into_iter().filter_map(|(of_spec, kind, name)| match plan.namespaces.get(of_spec) {
        Some(Sharing::Path(path)) => Some((kind, name, path.as_path())),
        _ => None,
    });
    joined
        .map(|(kind, name, path)| {
            let inode = fs::metadata(path).at(id, path.display().to_string())?.ino();
            Ok(ExternalNamespace { kind, name, path, inode })
        })
        .collect()
}

/// A directory that is removed again unless it is kept, if it was not there before.
struct NewDirectory(Directory, Option<PathBuf>);

impl NewDirectory {
    fn make(id: &ContainerId, path: &Path) -> Result<Self> {
        let new = match fs::DirBuilder::new().mode(0o700).recursive(false).create(path) {
            Ok(()) => Some(path.to_owned()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => None,
            Err(_) => {
                make_directory(id, path)?;
                Some(path.to_owned())
            }
        };
        Ok(Self(Directory::open(id, path)?, new))
    }

    fn keep(mut self) {
        self.1 = None;
    }
}

impl Drop for NewDirectory {
    fn drop(&mut self) {
        if let Some(path) = &self.1 {
            let _ = fs::remove_dir_all(path);
        }
    }
}

fn make_directory(id: &ContainerId, path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(path);
    made.at(id, format!("cannot make the directory {}", path.display()))
}

/// The directory of CRIU's log.
pub(crate) fn work_directory(id: &ContainerId, wanted: Option<&Path>, state: &Path) -> Result<Directory> {
    let path = wanted.map_or_else(|| state.join(WORK), Path::to_owned);
    make_directory(id, &path)?;
    Directory::open(id, &path)
}

fn check_parent(id: &ContainerId, images: &Path, parent: Option<&Path>) -> Result<()> {
    let Some(parent) = parent else { return Ok(()) };
    let unusable = |reason: String| Err(unable(id, "--parent-path", reason));
    if parent.is_absolute() {
        return unusable(format!("{} is not relative to the directory of the images", parent.display()));
    }
    if !images.join(parent).is_dir() {
        return unusable(format!("{} is not a directory", images.join(parent).display()));
    }
    Ok(())
}

/// A file with more options for CRIU. They can run programs: `features` lists the annotation among the unsafe ones, which
/// engines don't take from anybody.
pub(crate) fn config_file(id: &ContainerId, spec: &Spec) -> Result<Option<String>> {
    let Some(path) = spec.annotations().as_ref().and_then(|a| a.get(CONFIG_ANNOTATION)) else {
        return Ok(CONFIGS.iter().find(|path| Path::new(path).exists()).map(ToString::to_string));
    };
    if path.is_empty() {
        return Ok(None);
    }
    if !Path::new(path).is_absolute() {
        let reason = format!("{path} is not an absolute path");
        return Err(refuse(id, format!("annotations[{CONFIG_ANNOTATION}]"), reason));
    }
    Ok(Some(path.clone()))
}

/// Writes what standard input, output and error were connected with at `create`, for `restore` to reconnect them.
fn write_descriptors(id: &ContainerId, images: &Path, stdio: &[String]) -> Result<()> {
    let names: Vec<&str> = (0..3).map(|i| stdio.get(i).map_or("", String::as_str)).collect();
    let path = images.join(DESCRIPTORS);
    let json = serde_json::to_vec(&names).map_err(io::Error::other);
    json.and_then(|json| fs::write(&path, json)).at(id, format!("cannot write {}", path.display()))
}

/// What an open file is called in the images: `pipe:[123]`, `file[MOUNT:INODE]` for a fifo, or its path.
///
/// A fifo on the host has no path in the container, so CRIU knows it by its mount and inode, in hexadecimal. Both are
/// those of the open file, and stay as they are as long as anybody has it open.
pub(crate) fn name_of(fd: &OwnedFd) -> String {
    let name = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let name = name.map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if name.starts_with("pipe:") { name } else { fifo_name(fd).unwrap_or(name) }
}

fn fifo_name(fd: &OwnedFd) -> Option<String> {
    let stat = fstat(fd).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
        return None;
    }
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    let mount: u64 = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
    Some(format!("{EXTERNAL_FILE}{mount:x}:{:x}]", stat.st_ino))
}

/// Whether CRIU is to leave a file of this name outside of the images.
pub(crate) fn is_external(name: &str) -> bool {
    name.starts_with(EXTERNAL_FILE)
}

/// Whether a restore puts another file in the place of the one with this name.
pub(crate) fn is_reconnected(name: &str) -> bool {
    name.starts_with("pipe:") || is_external(name)
}

impl Error {
    /// A refusal of CRIU.
    pub(crate) fn of_criu(id: &ContainerId, verb: &'static str, reason: impl Into<String>) -> Self {
        Self::Criu { id: id.clone(), verb, reason: reason.into() }
    }
}
