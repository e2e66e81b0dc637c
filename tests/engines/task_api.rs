//! containerd's task API, asked without containerd in between: what `ctr` can't ask or doesn't tell.

use std::fs;

use containerd_shim_protos::api::{
    CreateTaskRequest, DeleteRequest, ExecProcessRequest, KillRequest, PauseRequest, ResizePtyRequest,
    StateRequest, Status, WaitRequest,
};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::context::{Context, with_timeout};
use containerd_shim_protos::ttrpc::{self, Code};
use containerd_shim_protos::{Client, TaskClient};
use lxcrun_test::engines::{Container, Containerd, Engine, IDLE};

lxcrun_test::tests![
    a_paused_task_is_paused_in_all_its_processes_and_takes_no_more,
    no_signal_asks_whether_a_process_is_there,
    what_has_ended_takes_no_calls,
    a_created_task_is_not_paused_and_its_end_is_no_status,
];

/// A shim's own socket.
struct Api<'e> {
    tasks: TaskClient,
    ctr: &'static Containerd,
    container: Container<'e>,
}

fn context() -> Context {
    with_timeout(20_000_000_000)
}

/// How a call was refused.
#[track_caller]
fn refusal<T>(answer: ttrpc::Result<T>) -> Code {
    match answer {
        Err(ttrpc::Error::RpcStatus(status)) => status.code(),
        Err(e) => panic!("no answer: {e}"),
        Ok(_) => panic!("was not refused"),
    }
}

impl Api<'_> {
    /// The shim of a container that idles.
    fn start() -> Api<'static> {
        let ctr = Containerd::with_shim();
        let container = ctr.start("", IDLE);
        let address = ctr.sandbox().read(format!("{}/address", bundle(ctr, &container)));
        let socket = ctr.sandbox().path(address.trim_start_matches("unix://"));
        let client = Client::connect(&format!("unix://{}", socket.display())).expect("the shim's socket");
        Api { tasks: TaskClient::new(client), ctr, container }
    }

    fn id(&self) -> String {
        self.container.to_string()
    }

    /// Plans a process that sleeps.
    fn exec(&self, exec_id: &str) -> ttrpc::Result<()> {
        let value = br#"{"cwd":"/","args":["sleep","1000"],"env":["PATH=/bin"]}"#.to_vec();
        let spec = MessageField::some(Any { value, ..Any::default() });
        let (id, exec_id) = (self.id(), exec_id.into());
        let request = ExecProcessRequest { id, exec_id, spec, ..ExecProcessRequest::default() };
        self.tasks.exec(context(), &request).map(drop)
    }

    fn start_exec(&self, exec_id: &str) {
        let options = ["task", "exec", "--detach", "--exec-id", exec_id, &self.id(), "sleep", "1000"];
        self.ctr.call(&options).assert_ok();
    }

    #[track_caller]
    fn status(&self, exec_id: &str) -> Status {
        let request = StateRequest { id: self.id(), exec_id: exec_id.into(), ..StateRequest::default() };
        self.tasks.state(context(), &request).expect("a state").status.enum_value_or_default()
    }

    fn kill(&self, id: &str, exec_id: &str, signal: u32) -> ttrpc::Result<()> {
        let (id, exec_id) = (id.into(), exec_id.into());
        let request = KillRequest { id, exec_id, signal, ..KillRequest::default() };
        self.tasks.kill(context(), &request).map(drop)
    }

    #[track_caller]
    fn end(&self, exec_id: &str) {
        self.kill(&self.id(), exec_id, 9).expect("kill");
        let request = WaitRequest { id: self.id(), exec_id: exec_id.into(), ..WaitRequest::default() };
        assert_eq!(self.tasks.wait(context(), &request).expect("wait").exit_status, 137);
    }
}

/// Where containerd has put a container, in the sandbox.
fn bundle(ctr: &Containerd, container: &Container<'_>) -> String {
    format!("/run/containerd/io.containerd.runtime.v2.task/{}/{container}", ctr.sandbox().name())
}

fn a_paused_task_is_paused_in_all_its_processes_and_takes_no_more() {
    let api = Api::start();
    api.start_exec("running");
    api.exec("planned").expect("exec");
    assert_eq!(api.status("planned"), Status::CREATED);
    api.container.call(&["task", "pause"]).assert_ok();
    for process in ["", "running", "planned"] {
        assert_eq!(api.status(process), Status::PAUSED, "{process}");
    }
    assert_eq!(refusal(api.exec("late")), Code::FAILED_PRECONDITION);
    api.container.call(&["task", "resume"]).assert_ok();
    assert_eq!(api.status("running"), Status::RUNNING);
    assert_eq!(api.status("planned"), Status::CREATED);
    api.exec("late").expect("exec");
}

fn no_signal_asks_whether_a_process_is_there() {
    let api = Api::start();
    api.start_exec("one");
    api.exec("planned").expect("exec");
    let is_there = |exec_id: &str| api.kill(&api.id(), exec_id, 0);
    is_there("").expect("it is there");
    is_there("one").expect("it is there");
    assert_eq!(refusal(is_there("planned")), Code::FAILED_PRECONDITION);
    assert_eq!((api.status(""), api.status("one")), (Status::RUNNING, Status::RUNNING));
    api.end("one");
    assert_eq!(refusal(is_there("one")), Code::NOT_FOUND);
    api.end("");
    assert_eq!(refusal(is_there("")), Code::NOT_FOUND);
}

fn what_has_ended_takes_no_calls() {
    let api = Api::start();
    api.start_exec("one");
    let resize = |exec_id: &str| {
        let (id, exec_id) = (api.id(), exec_id.into());
        let request = ResizePtyRequest { id, exec_id, width: 80, height: 24, ..ResizePtyRequest::default() };
        api.tasks.resize_pty(context(), &request)
    };
    // Without a terminal there is nothing to do.
    resize("one").expect("resize");
    api.end("one");
    assert_eq!(refusal(resize("one")), Code::FAILED_PRECONDITION);
    api.end("");
    assert_eq!(refusal(api.exec("late")), Code::FAILED_PRECONDITION);
}

fn a_created_task_is_not_paused_and_its_end_is_no_status() {
    let api = Api::start();
    let (id, own) = ("created".to_owned(), "/run/created".to_owned());
    let theirs = bundle(api.ctr, &api.container);
    let config = api.ctr.sandbox().read(format!("{theirs}/config.json"));
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    config["root"]["path"] = format!("{theirs}/rootfs").into();
    config["linux"]["cgroupsPath"] = format!("/{}/{id}", api.ctr.sandbox().name()).into();
    fs::create_dir(api.ctr.sandbox().path(&own)).expect("a bundle");
    fs::write(api.ctr.sandbox().path(format!("{own}/config.json")), config.to_string()).expect("a bundle");

    let request = CreateTaskRequest { id: id.clone(), bundle: own, ..CreateTaskRequest::default() };
    api.tasks.create(context(), &request).expect("create");
    api.kill(&id, "", 0).expect("it is there");
    let request = PauseRequest { id: id.clone(), ..PauseRequest::default() };
    assert_eq!(refusal(api.tasks.pause(context(), &request)), Code::FAILED_PRECONDITION);
    let request = DeleteRequest { id, ..DeleteRequest::default() };
    assert_eq!(api.tasks.delete(context(), &request).expect("delete").exit_status, 0);
}
