//! A task: one container, with LXC's monitor as its parent, and the processes executed in it.
//!
//! The monitor belongs to the container and not to this process: whoever kills the shim leaves both alive. Whatever
//! happens to the container, a thread of its own waits for it and tells containerd.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::{Context, bail, ensure};
use containerd_shim_protos::api::{CreateTaskRequest, ExecProcessRequest};
use containerd_shim_protos::events::task::{TaskExecStarted, TaskExit, TaskOOM, TaskStart};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::types::mount::Mount;
use lxcrun::oci_spec::runtime::{LinuxIdMapping, Process as ProcessSpec, Spec};
use lxcrun::{Bundle, Container, ContainerId, CreateOptions, ExecOptions, ExecProcess, OomWatch, Signal};
use rustix::event::{PollFd, PollFlags, poll};

use crate::events::{Events, timestamp};
use crate::io::{Owner, Uris};
use crate::options::{self, Options};
use crate::process::{Exited, Process, lock};
use crate::rootfs::{Rootfs, unmount_root};

/// What a thread may need that waits and tells: after the end of its monitor it reads a container's specification, too. Only
/// what it has touched is memory.
const STACK: usize = 1 << 20;

/// A container and its processes.
pub struct Task {
    pub id: ContainerId,
    pub bundle: PathBuf,
    pub options: Options,
    pub init: Process,
    /// The state root.
    pub root: PathBuf,
    /// The images that it is restored from when it starts.
    pub images: Option<PathBuf>,
    namespace: String,
    pub events: Events,
    mappings: OnceLock<Mappings>,
    container: OnceLock<Container>,
    /// The same one, as its creator has it, when it has ended.
    ended: Mutex<Option<Container>>,
    execs: Mutex<HashMap<String, Arc<Exec>>>,
}

/// A process executed in a task.
pub struct Exec {
    pub id: String,
    pub process: Process,
    spec: ProcessSpec,
    running: OnceLock<Arc<ExecProcess>>,
}

impl Task {
    /// What is asked for. There is nothing of it until [`create`](Self::create).
    pub fn new(request: &CreateTaskRequest, namespace: &str, events: &Events) -> anyhow::Result<Self> {
        let id: ContainerId = request.id.parse()?;
        let options = Options::of(&request.options)?;
        let bundle = PathBuf::from(&request.bundle);
        let root = options.state_root(namespace);
        let images =
            [&request.checkpoint, &options.criu_image_path].into_iter().find(|path| !path.is_empty());
        let uris = Uris {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        Ok(Self {
            images: images.map(PathBuf::from),
            id,
            bundle,
            options,
            init: Process::new(uris),
            root,
            namespace: namespace.into(),
            events: events.clone(),
            mappings: OnceLock::new(),
            container: OnceLock::new(),
            ended: Mutex::new(None),
            execs: Mutex::default(),
        })
    }

    /// Makes the container. Its program waits for [`start`](Self::start).
    pub fn create(self: &Arc<Self>, mounts: &[Mount]) -> anyhow::Result<()> {
        options::remember_root(&self.bundle, &self.root).context("cannot write to the bundle")?;
        let rootfs = Rootfs::mount(&self.bundle, mounts)?;
        if self.images.is_none() {
            self.make()?;
        }
        rootfs.keep();
        Ok(())
    }

    fn make(self: &Arc<Self>) -> anyhow::Result<()> {
        let bundle = self.open_bundle()?;
        let opened = self.init.uris.open(self.owner(bundle.spec().process().as_ref()))?;
        *self.init.io() = opened.io;
        let options = CreateOptions {
            stdio: opened.stdio,
            no_pivot: self.options.no_pivot_root,
            no_new_keyring: self.options.no_new_keyring,
            systemd_cgroup: self.is_in_scope(&bundle),
            keep_monitor: true,
            ..CreateOptions::default()
        };
        let created = lxcrun::create(&self.root, &self.id, &bundle, options);
        self.adopt(created.inspect_err(|_| self.init.io().close())?)
    }

    /// The bundle, whose program must have a terminal just when containerd says so.
    pub fn open_bundle(&self) -> anyhow::Result<Bundle> {
        let bundle = Bundle::open(&self.bundle)?;
        let terminal = bundle.spec().process().as_ref().and_then(|p| p.terminal()).unwrap_or(false);
        ensure!(
            terminal == self.init.uris.terminal,
            "container {}: process.terminal: is {terminal}, and containerd says {}",
            self.id,
            self.init.uris.terminal
        );
        let _ = self.mappings.set(Mappings::of(bundle.spec()));
        Ok(bundle)
    }

    /// Takes over a container that was just made or restored.
    pub fn adopt(self: &Arc<Self>, mut container: Container) -> anyhow::Result<()> {
        self.init.created(container.init_pid());
        let taken = self.take_over(&mut container);
        let watched = taken.and_then(|oom| {
            let task = Arc::clone(self);
            let watcher = std::thread::Builder::new().name("wait".into()).stack_size(STACK);
            watcher
                .spawn(move || task.watch(container, oom.as_ref()))
                .map(drop)
                .context("cannot start a thread")
        });
        watched.inspect_err(|_| {
            let _ = lxcrun::delete(&self.root, &self.id, true);
            self.init.io().close();
        })
    }

    fn take_over(&self, container: &mut Container) -> anyhow::Result<Option<OomWatch>> {
        if let Some(master) = container.take_terminal() {
            self.init.io().connect(master)?;
        }
        let _ = self.container.set(Container::load(&self.root, &self.id)?);
        // A host without a memory cgroup has nothing to watch.
        Ok(container.watch_oom().ok())
    }

    /// Waits for the container's end.
    fn watch(&self, mut container: Container, oom: Option<&OomWatch>) {
        self.wait_for_end(&container, oom);
        // A monitor that was killed has taken the container along.
        let status = container.wait().map_or(137, |exit| exit.code().into());
        let exited = Exited::now(status);
        // Those that share somebody else's PID namespace live on without their init: as in runc's shim they don't.
        if container.pids().is_ok_and(|pids| !pids.is_empty()) {
            let _ = container.kill_all(Signal::KILL);
        }
        *lock(&self.ended) = Some(container);
        self.wait_for_execs();
        let _started = self.init.starting();
        self.publish_exit(self.id.as_str(), &self.init, exited);
    }

    /// The execs have ended with the init. containerd hears of its end last.
    fn wait_for_execs(&self) {
        let execs: Vec<_> = lock(&self.execs).values().cloned().collect();
        for exec in execs {
            if exec.process.has_started() {
                exec.process.wait();
            }
        }
    }

    /// Waits, and tells of processes that the kernel has killed for want of memory.
    fn wait_for_end(&self, container: &Container, oom: Option<&OomWatch>) {
        let Some(end) = container.end() else { return };
        let killed = TaskOOM { container_id: self.id.to_string(), ..TaskOOM::default() };
        let mut told = false;
        loop {
            let mut fds = vec![PollFd::from_borrowed_fd(end, PollFlags::IN)];
            fds.extend(oom.map(|oom| PollFd::new(oom, PollFlags::IN)));
            if rustix::io::retry_on_intr(|| poll(&mut fds, None)).is_err() {
                return;
            }
            let has_ended = !fds[0].revents().is_empty();
            let news = oom.is_some_and(|oom| oom.next().unwrap_or(false));
            if news || (has_ended && !told && oom.is_some_and(OomWatch::happened)) {
                told = true;
                let _started = self.init.starting();
                self.events.publish(&killed);
            }
            if has_ended {
                return;
            }
        }
    }

    /// Whether systemd makes its cgroup.
    pub fn is_in_scope(&self, bundle: &Bundle) -> bool {
        self.options.systemd_cgroup || is_for_systemd(bundle)
    }

    fn publish_exit(&self, id: &str, process: &Process, exited: Exited) {
        process.io().end();
        process.end_telling(exited, |pid| {
            self.events.publish(&TaskExit {
                container_id: self.id.to_string(),
                id: id.into(),
                pid,
                exit_status: exited.status,
                exited_at: MessageField::some(timestamp(exited.at)),
                ..TaskExit::default()
            });
        });
    }

    /// Lets the program go, or restores it.
    pub fn start(self: &Arc<Self>) -> anyhow::Result<u32> {
        let _starting = self.init.starting();
        match &self.images {
            Some(images) if !self.init.is_started() => {
                ensure!(self.init.exited().is_none(), "container {}: could not be restored", self.id);
                // Whoever waits for it waits no more; containerd hears of no end, because there was no start.
                self.restore(images).inspect_err(|_| self.init.end(Exited::now(255)))?;
            }
            _ => self.container()?.start()?,
        }
        self.init.started();
        let pid = self.init.pid();
        self.events.publish(&TaskStart { container_id: self.id.to_string(), pid, ..TaskStart::default() });
        Ok(pid)
    }

    /// The container; one that waits to be restored is none yet.
    pub fn container(&self) -> anyhow::Result<&Container> {
        self.container.get().with_context(|| format!("container {}: is not restored yet", self.id))
    }

    pub fn is_made(&self) -> bool {
        self.container.get().is_some()
    }

    /// Who owns the standard input, output and error of a process: where containerd says nothing, its own user.
    pub fn owner(&self, process: Option<&ProcessSpec>) -> Owner<'_> {
        let told = (self.options.io_uid, self.options.io_gid);
        let of_its_own = || Some(self.mappings.get()?.on_host(process?));
        let (uid, gid) = Some(told).filter(|told| *told != (0, 0)).or_else(of_its_own).unwrap_or(told);
        Owner { namespace: &self.namespace, id: self.id.as_str(), uid, gid, ends_with_it: true }
    }

    /// Takes everything away. What has not been started counts as ended.
    pub fn delete(&self) -> anyhow::Result<Exited> {
        let mut was_created = false;
        if self.is_made() && self.init.exited().is_none() {
            if self.init.is_started() {
                bail!(lxcrun::Error::Status {
                    id: self.id.clone(),
                    verb: "delete",
                    status: self.container()?.status()
                });
            }
            was_created = true;
            let _ = self.container()?.kill(Signal::KILL);
            self.init.wait();
        }
        let ended = lock(&self.ended).take();
        match ended {
            Some(container) => container.delete()?,
            None => lxcrun::delete(&self.root, &self.id, true)?,
        }
        self.init.io().close();
        unmount_root(&self.bundle);
        let exited = self.init.exited().unwrap_or_else(|| Exited::now(0));
        // One that was never restored has nobody else to tell who waits for it.
        self.init.end(exited);
        // As runc's shim has it: only the event of its end says how.
        Ok(if was_created { Exited { status: 0, ..exited } } else { exited })
    }

    /// Plans a further process.
    pub fn add_exec(&self, request: &ExecProcessRequest) -> anyhow::Result<bool> {
        let mut spec =
            lxcrun::parse_process(&request.spec.value).map_err(anyhow::Error::msg).context("process")?;
        spec.set_terminal(Some(request.terminal));
        let uris = Uris {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let exec =
            Exec { id: request.exec_id.clone(), process: Process::new(uris), spec, running: OnceLock::new() };
        let mut execs = lock(&self.execs);
        if execs.contains_key(&exec.id) {
            return Ok(false);
        }
        execs.insert(exec.id.clone(), Arc::new(exec));
        Ok(true)
    }

    pub fn exec(&self, id: &str) -> Option<Arc<Exec>> {
        lock(&self.execs).get(id).cloned()
    }

    pub fn remove_exec(&self, id: &str) {
        lock(&self.execs).remove(id);
    }

    /// The exec whose process has this pid.
    pub fn exec_of(&self, pid: u32) -> Option<String> {
        lock(&self.execs).values().find(|exec| exec.process.pid() == pid).map(|exec| exec.id.clone())
    }

    /// Starts a planned process.
    pub fn start_exec(self: &Arc<Self>, exec: &Arc<Exec>) -> anyhow::Result<u32> {
        let _starting = exec.process.starting();
        let is_new = !exec.process.is_started() && exec.process.exited().is_none();
        ensure!(is_new, "exec {}: was started before", exec.id);
        let started = self.execute(exec).and_then(|running| self.wait_for(exec, running));
        started.inspect_err(|_| {
            exec.kill_and_reap();
            exec.process.io().close();
            // Whoever waits for it waits no more; containerd hears of no end, because there was no start.
            exec.process.end(Exited::now(255));
        })?;
        let pid = exec.process.pid();
        self.events.publish(&TaskExecStarted {
            container_id: self.id.to_string(),
            exec_id: exec.id.clone(),
            pid,
            ..TaskExecStarted::default()
        });
        Ok(pid)
    }

    /// Waits for an exec's end in a thread of its own.
    fn wait_for(self: &Arc<Self>, exec: &Arc<Exec>, running: Arc<ExecProcess>) -> anyhow::Result<()> {
        let (task, exec) = (Arc::clone(self), Arc::clone(exec));
        let wait = move || {
            let status = running.wait().map_or(255, |exit| exit.code().into());
            let exited = Exited::now(status);
            let _started = exec.process.starting();
            task.publish_exit(&exec.id, &exec.process, exited);
        };
        let waiter = std::thread::Builder::new().name("wait".into()).stack_size(STACK);
        waiter.spawn(wait).map(drop).context("cannot start a thread")
    }

    fn execute(&self, exec: &Exec) -> anyhow::Result<Arc<ExecProcess>> {
        let owner = Owner { id: &exec.id, ends_with_it: false, ..self.owner(Some(&exec.spec)) };
        let opened = exec.process.uris.open(owner)?;
        *exec.process.io() = opened.io;
        let options = ExecOptions { stdio: opened.stdio, ..ExecOptions::default() };
        let mut running = self.container()?.exec(&exec.spec, options)?;
        let terminal = running.take_terminal();
        exec.process.created(Some(running.pid()));
        exec.process.started();
        let running = Arc::new(running);
        let _ = exec.running.set(Arc::clone(&running));
        if let Some(master) = terminal {
            exec.process.io().connect(master)?;
        }
        Ok(running)
    }
}

impl Exec {
    /// Signals the process, if by anything; false when there is none, or none any more.
    pub fn kill(&self, signal: impl Into<Option<Signal>>) -> bool {
        let running = self.running.get().filter(|_| self.process.exited().is_none());
        let signal = signal.into();
        running.is_some_and(|running| signal.is_none_or(|signal| running.kill(signal).is_ok()))
    }

    /// Ends the process, if there is one, that nobody else waits for.
    fn kill_and_reap(&self) {
        if let Some(running) = self.running.get() {
            let _ = running.kill(Signal::KILL);
            let _ = running.wait();
        }
    }
}

/// The ids of a container's user namespace.
#[derive(Debug)]
struct Mappings {
    uids: Vec<LinuxIdMapping>,
    gids: Vec<LinuxIdMapping>,
}

impl Mappings {
    /// None where it has no user namespace that its specification describes.
    fn of(spec: &Spec) -> Self {
        let linux = spec.linux().as_ref();
        let uids = linux.and_then(|linux| linux.uid_mappings().clone()).unwrap_or_default();
        let gids = linux.and_then(|linux| linux.gid_mappings().clone()).unwrap_or_default();
        Self { uids, gids }
    }

    /// The host's uid and gid of a process, root's where there are none.
    fn on_host(&self, process: &ProcessSpec) -> (u32, u32) {
        let find = |mappings: &[LinuxIdMapping], id: u32| {
            let on_host = mappings.iter().find_map(|mapping| {
                let offset = id.checked_sub(mapping.container_id())?;
                (offset < mapping.size()).then(|| mapping.host_id().checked_add(offset))?
            });
            on_host.unwrap_or(0)
        };
        (find(&self.uids, process.user().uid()), find(&self.gids, process.user().gid()))
    }
}

/// Docker and Kubernetes on a host of systemd's name a cgroup `SLICE:PREFIX:NAME`, which is no path, and tell no shim but
/// runc's that systemd is to make it.
pub fn is_for_systemd(bundle: &Bundle) -> bool {
    let path = bundle.spec().linux().as_ref().and_then(|l| l.cgroups_path().as_ref());
    let parts = path.and_then(|path| path.to_str()).map(|path| path.split(':').collect::<Vec<_>>());
    matches!(parts.as_deref(), Some([slice, _, _]) if slice.is_empty() || slice.ends_with(".slice"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::protobuf::well_known_types::any::Any;

    fn task_with_an_exec() -> (Arc<Task>, Arc<Exec>) {
        let request = CreateTaskRequest { id: "web".into(), ..CreateTaskRequest::default() };
        let events = Events::new("test", "/no/such/socket".into()).unwrap();
        let task = Arc::new(Task::new(&request, "test", &events).unwrap());
        let spec = Any { value: br#"{"cwd":"/","args":["true"]}"#.to_vec(), ..Any::default() };
        let request = ExecProcessRequest {
            exec_id: "one".into(),
            spec: MessageField::some(spec),
            ..ExecProcessRequest::default()
        };
        assert!(task.add_exec(&request).unwrap());
        let exec = task.exec("one").unwrap();
        (task, exec)
    }

    #[test]
    fn an_exec_is_started_once_and_keeps_its_status() {
        let (task, exec) = task_with_an_exec();
        exec.process.started();
        let refusal = task.start_exec(&exec).unwrap_err().to_string();
        assert!(refusal.contains("was started before"), "{refusal}");
        assert!(exec.process.exited().is_none(), "it runs");
        exec.process.end(Exited::now(7));
        assert!(task.start_exec(&exec).is_err());
        assert_eq!(exec.process.wait().status, 7);
    }

    #[test]
    fn the_init_has_its_end_after_those_of_the_execs() {
        let (task, exec) = task_with_an_exec();
        // One that was never started has no end.
        task.wait_for_execs();
        let starting = exec.process.starting();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                task.wait_for_execs();
                exec.process.exited().map(|exited| exited.status)
            });
            exec.process.started();
            drop(starting);
            exec.process.end(Exited::now(137));
            assert_eq!(waiting.join().unwrap(), Some(137));
        });
    }

    #[test]
    fn standard_output_belongs_to_whom_containerd_says_or_else_to_the_user_on_the_host() {
        let process = |uid: u32, gid: u32| {
            let json = format!(r#"{{"cwd":"/","args":["true"],"user":{{"uid":{uid},"gid":{gid}}}}}"#);
            lxcrun::parse_process(json.as_bytes()).unwrap()
        };
        let owner = |task: &Task, uid, gid| {
            let process = process(uid, gid);
            let owner = task.owner(Some(&process));
            (owner.uid, owner.gid)
        };
        let (mut task, _) = task_with_an_exec();
        assert_eq!(owner(&task, 1000, 1000), (0, 0), "there is no user namespace");
        let spec = r#"{"ociVersion":"1.0.2","linux":{
            "uidMappings":[{"containerID":0,"hostID":65536,"size":1000},{"containerID":1000,"hostID":7,"size":2}],
            "gidMappings":[{"containerID":0,"hostID":100000,"size":10}]}}"#;
        let mappings = Mappings::of(&serde_json::from_str(spec).unwrap());
        let task = Arc::get_mut(&mut task).unwrap();
        task.mappings.set(mappings).unwrap();
        assert_eq!(owner(task, 0, 0), (65536, 100_000));
        assert_eq!(owner(task, 999, 9), (66535, 100_009));
        assert_eq!(owner(task, 1001, 10), (8, 0));
        assert_eq!(owner(task, 1002, 0), (0, 100_000));
        task.options.io_gid = 5;
        assert_eq!(owner(task, 0, 0), (0, 5), "somebody has said so");
    }
}
