//! containerd's task API: each call finds its task, and what it says becomes a message.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use containerd_shim_protos::Task as Api;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest,
    PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse,
    StateRequest, StateResponse, StatsRequest, StatsResponse, Status, UpdateTaskRequest, WaitRequest,
    WaitResponse,
};
use containerd_shim_protos::events::task::{
    TaskCheckpointed, TaskCreate, TaskDelete, TaskExecAdded, TaskIO, TaskPaused, TaskResumed,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{EnumOrUnknown, Message, MessageField};
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::ttrpc::Code;
use containerd_shim_protos::ttrpc::TtrpcContext;
use containerd_shim_protos::types::task::ProcessInfo;

use crate::events::{Events, timestamp};
use crate::metrics;
use crate::process::{Exited, Process, lock};
use crate::status::{Result, error, of_anyhow, of_library};
use crate::task::{Exec, Task};

/// All tasks of this process.
pub struct Service {
    namespace: String,
    /// By id; nothing yet for one that is being created.
    tasks: Mutex<HashMap<String, Option<Arc<Task>>>>,
    /// A creation has ended.
    created: Condvar,
    events: Events,
    end: Sender<Events>,
}

/// A process of a task.
enum Which {
    Init(Arc<Task>),
    Exec(Arc<Task>, Arc<Exec>),
}

impl Which {
    fn process(&self) -> &Process {
        match self {
            Self::Init(task) => &task.init,
            Self::Exec(_, exec) => &exec.process,
        }
    }
}

impl Service {
    /// The service, and where it says that it is to end.
    pub fn new(namespace: &str, events: Events) -> (Self, Receiver<Events>) {
        let (end, ended) = channel();
        let service = Self {
            namespace: namespace.into(),
            tasks: Mutex::default(),
            created: Condvar::new(),
            events,
            end,
        };
        (service, ended)
    }

    fn task(&self, id: &str) -> Result<Arc<Task>> {
        self.events.containerd_is_there();
        let task = lock(&self.tasks).get(id).cloned();
        task.flatten().ok_or_else(|| error(Code::NOT_FOUND, format!("container {id}: not created")))
    }

    fn which(&self, id: &str, exec_id: &str) -> Result<Which> {
        let task = self.task(id)?;
        if exec_id.is_empty() {
            return Ok(Which::Init(task));
        }
        match task.exec(exec_id) {
            Some(exec) => Ok(Which::Exec(task, exec)),
            None => Err(error(Code::NOT_FOUND, format!("container {id}: process {exec_id} does not exist"))),
        }
    }

    /// Takes the place of a task that is then created.
    fn reserve(&self, id: &str) -> Result<()> {
        match lock(&self.tasks).entry(id.into()) {
            Entry::Occupied(_) => Err(error(Code::ALREADY_EXISTS, format!("container {id}: already exists"))),
            Entry::Vacant(place) => {
                place.insert(None);
                Ok(())
            }
        }
    }

    /// It was created, or not.
    fn settle(&self, id: &str, task: Option<Arc<Task>>) {
        let mut tasks = lock(&self.tasks);
        match task {
            Some(task) => drop(tasks.insert(id.into(), Some(task))),
            None => drop(tasks.remove(id)),
        }
        self.created.notify_all();
    }

    fn make(&self, request: CreateTaskRequest) -> anyhow::Result<u32> {
        let task = Arc::new(Task::new(&request, &self.namespace, &self.events)?);
        let _starting = task.init.starting();
        task.create(&request.rootfs)?;
        let pid = task.init.pid();
        self.settle(&request.id, Some(Arc::clone(&task)));
        self.publish_created(request, pid);
        Ok(pid)
    }

    fn publish_created(&self, request: CreateTaskRequest, pid: u32) {
        let io = TaskIO {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
            ..TaskIO::default()
        };
        self.events.publish(&TaskCreate {
            container_id: request.id,
            bundle: request.bundle,
            rootfs: request.rootfs,
            io: MessageField::some(io),
            checkpoint: request.checkpoint,
            pid,
            ..TaskCreate::default()
        });
    }

    /// Ends this process, unless others of the pod are still served: those, too, that are being created.
    fn end_unless_needed(&self) {
        let is_creating = |tasks: &mut HashMap<_, Option<_>>| tasks.values().any(Option::is_none);
        let settled = self.created.wait_while(lock(&self.tasks), is_creating);
        if settled.unwrap_or_else(PoisonError::into_inner).is_empty() {
            let _ = self.end.send(self.events.clone());
        }
    }

    fn delete_init(&self, task: &Task) -> Result<Exited> {
        let exited = task.delete().map_err(|e| of_anyhow(&e))?;
        lock(&self.tasks).remove(task.id.as_str());
        self.events.publish(&TaskDelete {
            container_id: task.id.to_string(),
            pid: task.init.pid(),
            exit_status: exited.status,
            exited_at: MessageField::some(timestamp(exited.at)),
            ..TaskDelete::default()
        });
        Ok(exited)
    }

    fn delete_exec(task: &Task, exec: &Exec) -> Result<Exited> {
        let exited = exec.process.exited();
        if exec.process.is_started() && exited.is_none() {
            return Err(error(
                Code::FAILED_PRECONDITION,
                format!("exec {}: cannot delete a running process", exec.id),
            ));
        }
        exec.process.io().close();
        task.remove_exec(&exec.id);
        let exited = exited.unwrap_or_else(|| Exited::now(0));
        exec.process.end(exited);
        Ok(exited)
    }
}

/// What a process is doing.
fn status(which: &Which) -> Status {
    let (Which::Init(task) | Which::Exec(task, _)) = which;
    let process = which.process();
    if process.exited().is_some() {
        return Status::STOPPED;
    }
    match (which, task.container().map(lxcrun::Container::status)) {
        // All of a container is.
        (_, Ok(lxcrun::Status::Paused)) => Status::PAUSED,
        // One that has just ended is reported so when its status is known.
        (Which::Init(_), Ok(lxcrun::Status::Running | lxcrun::Status::Stopped)) => Status::RUNNING,
        (Which::Exec(..), _) if process.is_started() => Status::RUNNING,
        _ => Status::CREATED,
    }
}

/// Fails when a process is in a state in which it can't be asked for something.
fn refuse(what: &str, which: &Which, is_wrong: impl Fn(Status) -> bool) -> Result<()> {
    let (Which::Init(task) | Which::Exec(task, _)) = which;
    let status = status(which);
    if !is_wrong(status) {
        return Ok(());
    }
    let state = format!("{status:?}").to_lowercase();
    Err(error(Code::FAILED_PRECONDITION, format!("container {}: cannot {what}: it is {state}", task.id)))
}

impl Api for Service {
    fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> Result<CreateTaskResponse> {
        self.events.containerd_is_there();
        let id = request.id.clone();
        self.reserve(&id)?;
        let made = self.make(request).inspect_err(|_| self.settle(&id, None));
        let pid = made.map_err(|e| of_anyhow(&e))?;
        Ok(CreateTaskResponse { pid, ..CreateTaskResponse::default() })
    }

    fn start(&self, _: &TtrpcContext, request: StartRequest) -> Result<StartResponse> {
        let started = match self.which(&request.id, &request.exec_id)? {
            Which::Init(task) => task.start(),
            Which::Exec(task, exec) => task.start_exec(&exec),
        };
        let pid = started.map_err(|e| of_anyhow(&e))?;
        kernel::free_memory();
        Ok(StartResponse { pid, ..StartResponse::default() })
    }

    fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> Result<DeleteResponse> {
        let which = self.which(&request.id, &request.exec_id)?;
        let exited = match &which {
            Which::Init(task) => self.delete_init(task)?,
            Which::Exec(task, exec) => Self::delete_exec(task, exec)?,
        };
        kernel::free_memory();
        Ok(DeleteResponse {
            pid: which.process().pid(),
            exit_status: exited.status,
            exited_at: MessageField::some(timestamp(exited.at)),
            ..DeleteResponse::default()
        })
    }

    fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> Result<Empty> {
        let task = self.task(&request.id)?;
        let is_wrong = |status| matches!(status, Status::PAUSED | Status::STOPPED) || !task.is_made();
        refuse("exec", &Which::Init(Arc::clone(&task)), is_wrong)?;
        if !task.add_exec(&request).map_err(|e| of_anyhow(&e))? {
            return Err(error(Code::ALREADY_EXISTS, format!("exec {}: already exists", request.exec_id)));
        }
        self.events.publish(&TaskExecAdded {
            container_id: request.id,
            exec_id: request.exec_id,
            ..TaskExecAdded::default()
        });
        Ok(Empty::default())
    }

    fn state(&self, _: &TtrpcContext, request: StateRequest) -> Result<StateResponse> {
        let which = self.which(&request.id, &request.exec_id)?;
        let (Which::Init(task) | Which::Exec(task, _)) = &which;
        let process = which.process();
        let exited = process.exited();
        Ok(StateResponse {
            bundle: task.bundle.display().to_string(),
            pid: process.pid(),
            status: EnumOrUnknown::new(status(&which)),
            stdin: process.uris.stdin.clone(),
            stdout: process.uris.stdout.clone(),
            stderr: process.uris.stderr.clone(),
            terminal: process.uris.terminal,
            exit_status: exited.map_or(0, |exited| exited.status),
            exited_at: exited.map(|exited| timestamp(exited.at)).into(),
            id: request.id,
            exec_id: request.exec_id,
            ..StateResponse::default()
        })
    }

    fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> Result<WaitResponse> {
        let exited = self.which(&request.id, &request.exec_id)?.process().wait();
        Ok(WaitResponse {
            exit_status: exited.status,
            exited_at: MessageField::some(timestamp(exited.at)),
            ..WaitResponse::default()
        })
    }

    fn kill(&self, _: &TtrpcContext, request: KillRequest) -> Result<Empty> {
        // None asks whether there is somebody to take one.
        let signal = match request.signal {
            0 => None,
            number => Some(
                lxcrun::parse_signal(&number.to_string()).map_err(|e| error(Code::INVALID_ARGUMENT, e))?,
            ),
        };
        let which = self.which(&request.id, &request.exec_id)?;
        let gone = || error(Code::NOT_FOUND, format!("container {}: process already finished", request.id));
        match &which {
            // Told that it is gone, containerd would wait for its end.
            Which::Init(task) if !task.is_made() && task.init.exited().is_none() => {
                let reason = format!("container {}: is not restored yet", request.id);
                return Err(error(Code::FAILED_PRECONDITION, reason));
            }
            Which::Init(task) if !task.is_made() => return Err(gone()),
            Which::Init(task) => {
                let container = task.container().map_err(|e| of_anyhow(&e))?;
                let killed = match signal {
                    None => container.check_running(),
                    Some(signal) if request.all => container.kill_all(signal),
                    Some(signal) => container.kill(signal),
                };
                killed.map_err(|e| of_library(&e))?;
            }
            // Not one that has ended: who takes it for that would let it be started.
            Which::Exec(_, exec) if !exec.process.is_started() && exec.process.exited().is_none() => {
                let reason = format!("exec {}: process not created", exec.id);
                return Err(error(Code::FAILED_PRECONDITION, reason));
            }
            Which::Exec(_, exec) if !exec.kill(signal) => return Err(gone()),
            Which::Exec(..) => {}
        }
        Ok(Empty::default())
    }

    fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> Result<PidsResponse> {
        let task = self.task(&request.id)?;
        let pids = task.container().map_err(|e| of_anyhow(&e))?.pids().map_err(|e| of_library(&e))?;
        let process = |pid: i32| {
            let pid = pid.unsigned_abs();
            let details = task.exec_of(pid).map(|exec_id| {
                let details = ProcessDetails { exec_id, ..ProcessDetails::default() };
                any("containerd.runc.v1.ProcessDetails", details.write_to_bytes().unwrap_or_default())
            });
            ProcessInfo { pid, info: details.into(), ..ProcessInfo::default() }
        };
        Ok(PidsResponse { processes: pids.into_iter().map(process).collect(), ..PidsResponse::default() })
    }

    fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> Result<Empty> {
        let task = self.task(&request.id)?;
        refuse("pause", &Which::Init(Arc::clone(&task)), |status| status == Status::CREATED)?;
        task.container().map_err(|e| of_anyhow(&e))?.pause().map_err(|e| of_library(&e))?;
        self.events.publish(&TaskPaused { container_id: request.id, ..TaskPaused::default() });
        Ok(Empty::default())
    }

    fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> Result<Empty> {
        let task = self.task(&request.id)?;
        task.container().map_err(|e| of_anyhow(&e))?.resume().map_err(|e| of_library(&e))?;
        self.events.publish(&TaskResumed { container_id: request.id, ..TaskResumed::default() });
        Ok(Empty::default())
    }

    fn checkpoint(&self, _: &TtrpcContext, request: CheckpointTaskRequest) -> Result<Empty> {
        self.task(&request.id)?.checkpoint(&request).map_err(|e| of_anyhow(&e))?;
        self.events.publish(&TaskCheckpointed {
            container_id: request.id,
            checkpoint: request.path,
            ..TaskCheckpointed::default()
        });
        Ok(Empty::default())
    }

    fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> Result<Empty> {
        let which = self.which(&request.id, &request.exec_id)?;
        if matches!(which, Which::Exec(..)) {
            refuse("resize the terminal", &which, |status| status == Status::STOPPED)?;
        }
        if let Some(terminal) = &which.process().io().terminal {
            let resized = terminal.resize(request.width, request.height);
            resized.map_err(|e| error(Code::UNKNOWN, format!("cannot resize the terminal: {e}")))?;
        }
        Ok(Empty::default())
    }

    fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> Result<Empty> {
        let which = self.which(&request.id, &request.exec_id)?;
        if request.stdin {
            which.process().io().close_input();
        }
        Ok(Empty::default())
    }

    fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> Result<Empty> {
        let task = self.task(&request.id)?;
        let resources = lxcrun::parse_resources(&request.resources.value).map_err(|e| {
            error(Code::INVALID_ARGUMENT, format!("container {}: resources: {e}", request.id))
        })?;
        task.container().map_err(|e| of_anyhow(&e))?.update(&resources).map_err(|e| of_library(&e))?;
        Ok(Empty::default())
    }

    fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> Result<StatsResponse> {
        let task = self.task(&request.id)?;
        let stats =
            task.container().and_then(|container| Ok(metrics::of(container)?)).map_err(|e| of_anyhow(&e))?;
        Ok(StatsResponse { stats: MessageField::some(stats), ..StatsResponse::default() })
    }

    fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> Result<ConnectResponse> {
        self.events.containerd_is_there();
        let task = lock(&self.tasks).get(&request.id).cloned().flatten();
        let task_pid = task.map_or(0, |task| task.init.pid());
        Ok(ConnectResponse { shim_pid: std::process::id(), task_pid, ..ConnectResponse::default() })
    }

    fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> Result<Empty> {
        self.end_unless_needed();
        Ok(Empty::default())
    }
}

/// A message within another.
pub fn any(type_url: &str, value: Vec<u8>) -> Any {
    Any { type_url: type_url.into(), value, ..Any::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> (Service, Receiver<Events>) {
        Service::new("test", Events::new("test", "/no/such/socket".into()).unwrap())
    }

    fn task(service: &Service, id: &str) -> Arc<Task> {
        let request = CreateTaskRequest { id: id.into(), ..CreateTaskRequest::default() };
        Arc::new(Task::new(&request, "test", &service.events).unwrap())
    }

    #[test]
    fn a_task_that_is_being_created_keeps_the_service() {
        let (service, ended) = service();
        service.reserve("web").unwrap();
        assert!(service.task("web").is_err(), "it is not there yet");
        assert!(service.reserve("web").is_err(), "its name is taken");
        std::thread::scope(|scope| {
            let shutdown = scope.spawn(|| service.end_unless_needed());
            service.settle("web", Some(task(&service, "web")));
            shutdown.join().unwrap();
        });
        assert!(ended.try_recv().is_err(), "it is served");
        assert!(service.task("web").is_ok());
    }

    #[test]
    fn a_task_that_cannot_be_created_does_not_keep_it() {
        let (service, ended) = service();
        service.reserve("web").unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| service.end_unless_needed());
            service.settle("web", None);
        });
        assert!(ended.try_recv().is_ok());
        service.reserve("web").unwrap();
    }

    #[test]
    fn a_process_is_refused_what_its_state_forbids() {
        let (service, _) = service();
        let which = Which::Init(task(&service, "web"));
        assert!(refuse("pause", &which, |status| status == Status::STOPPED).is_ok());
        let refused = refuse("pause", &which, |status| status == Status::CREATED).unwrap_err().to_string();
        assert!(refused.contains("container web: cannot pause: it is created"), "{refused}");
        which.process().end(Exited::now(0));
        assert!(refuse("exec", &which, |status| status == Status::STOPPED).is_err());
    }
}
