//! containerd's task API, asked without containerd in between: what `ctr` can't ask or doesn't tell.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;

use containerd_shim_protos::api::{
    CloseIORequest, CreateTaskRequest, DeleteRequest, ExecProcessRequest, KillRequest, PauseRequest,
    ResizePtyRequest, StartRequest, StateRequest, Status, WaitRequest,
};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::context::{Context, with_timeout};
use containerd_shim_protos::ttrpc::{self, Code};
use containerd_shim_protos::{Client, TaskClient};
use lxcrun_test::Need;
use lxcrun_test::engines::{Container, Containerd, Engine, IDLE, until};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use serde_json::json;

lxcrun_test::tests![
    a_paused_task_is_paused_in_all_its_processes_and_takes_no_more,
    no_signal_asks_whether_a_process_is_there,
    what_has_ended_takes_no_calls,
    a_created_task_is_not_paused_and_its_end_is_no_status,
    standard_output_can_be_opened_anew_in_a_user_namespace,
    the_end_of_its_input_hangs_a_terminal_up,
    an_exec_that_nobody_can_wait_for_is_ended.needs(Need::Program("strace")),
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

    /// A request for one more task of this shim, like its first one but for what `change` changes.
    fn create(&self, id: &str, change: impl FnOnce(&mut serde_json::Value)) -> CreateTaskRequest {
        let (theirs, own) = (bundle(self.ctr, &self.container), format!("/run/bundle-{id}"));
        let config = self.ctr.sandbox().read(format!("{theirs}/config.json"));
        let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
        config["root"]["path"] = format!("{theirs}/rootfs").into();
        config["linux"]["cgroupsPath"] = format!("/{}/{id}", self.ctr.sandbox().name()).into();
        change(&mut config);
        fs::create_dir(self.ctr.sandbox().path(&own)).expect("a bundle");
        fs::write(self.ctr.sandbox().path(format!("{own}/config.json")), config.to_string())
            .expect("a bundle");
        CreateTaskRequest { id: id.into(), bundle: own, ..CreateTaskRequest::default() }
    }

    /// A fifo of the sandbox that is root's alone, held open.
    fn fifo(&self, name: &str) -> (String, File) {
        let inside = format!("/run/{name}");
        let path = self.ctr.sandbox().path(&inside);
        mkfifoat(CWD, &path, Mode::from_raw_mode(0o600)).expect("a fifo");
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        (inside, OpenOptions::new().read(true).custom_flags(flags).open(path).expect("a fifo"))
    }

    fn start_process(&self, id: &str, exec_id: &str) {
        let (id, exec_id) = (id.into(), exec_id.into());
        let request = StartRequest { id, exec_id, ..StartRequest::default() };
        self.tasks.start(context(), &request).expect("start");
    }

    fn wait(&self, id: &str, exec_id: &str) -> u32 {
        let (id, exec_id) = (id.into(), exec_id.into());
        let request = WaitRequest { id, exec_id, ..WaitRequest::default() };
        self.tasks.wait(context(), &request).expect("wait").exit_status
    }

    fn delete(&self, id: &str, exec_id: &str) -> u32 {
        let (id, exec_id) = (id.into(), exec_id.into());
        let request = DeleteRequest { id, exec_id, ..DeleteRequest::default() };
        self.tasks.delete(context(), &request).expect("delete").exit_status
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
        assert_eq!(self.wait(&self.id(), exec_id), 137);
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
    let request = api.create("created", |_| {});
    api.tasks.create(context(), &request).expect("create");
    let id = request.id;
    api.kill(&id, "", 0).expect("it is there");
    let request = PauseRequest { id: id.clone(), ..PauseRequest::default() };
    assert_eq!(refusal(api.tasks.pause(context(), &request)), Code::FAILED_PRECONDITION);
    assert_eq!(api.delete(&id, ""), 0);
}

/// Without anybody who says whose they are.
fn standard_output_can_be_opened_anew_in_a_user_namespace() {
    let api = Api::start();
    let program = |user: u32| {
        let script = "echo out >/dev/stdout; echo err >/dev/stderr; read line; sleep 0.1";
        let user = json!({"uid": user, "gid": user});
        json!({"cwd": "/", "args": ["sh", "-c", script], "env": ["PATH=/bin"], "user": user})
    };
    let (input, _held) = api.fifo("users-input");
    let mut streams = ["out", "err", "exec-out", "exec-err"].map(|name| api.fifo(&format!("users-{name}")));
    let mut create = api.create("users", |config| {
        config["process"] = program(0);
        let ids = json!([{"containerID": 0, "hostID": 65536, "size": 65536}]);
        config["linux"]["uidMappings"] = ids.clone();
        config["linux"]["gidMappings"] = ids;
        config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user"}));
    });
    create.stdin = input;
    [create.stdout, create.stderr] = [&streams[0], &streams[1]].map(|(path, _)| path.clone());
    api.tasks.create(context(), &create).expect("create");
    api.start_process("users", "");

    let spec = Any { value: program(1000).to_string().into_bytes(), ..Any::default() };
    let exec = ExecProcessRequest {
        id: "users".into(),
        exec_id: "exec".into(),
        stdout: streams[2].0.clone(),
        stderr: streams[3].0.clone(),
        spec: MessageField::some(spec),
        ..ExecProcessRequest::default()
    };
    api.tasks.exec(context(), &exec).expect("exec");
    api.start_process("users", "exec");
    assert_eq!(api.wait("users", "exec"), 0);
    api.delete("users", "exec");
    let mut said = [(); 4].map(|()| String::new());
    let has_said = until(|| {
        for (text, (_, file)) in said.iter_mut().zip(&mut streams) {
            // There is no end while the shim holds it.
            let _ = file.read_to_string(text);
        }
        said.iter().all(|text| !text.is_empty())
    });
    api.kill("users", "", 9).expect("kill");
    api.wait("users", "");
    api.delete("users", "");
    assert!(has_said, "{said:?}");
    assert_eq!(said, ["out\n", "err\n", "out\n", "err\n"]);
}

fn the_end_of_its_input_hangs_a_terminal_up() {
    let api = Api::start();
    let ([stdin, stdout], mut output) = {
        let (input, _) = api.fifo("typed");
        let (path, output) = api.fifo("printed");
        ([input, path], output)
    };
    let script = "trap 'exit 42' HUP; while read line; do echo got $line; done; sleep 1000 & wait";
    let process = json!({"cwd": "/", "args": ["sh", "-c", script], "env": ["PATH=/bin"], "terminal": true});
    let spec = Any { value: process.to_string().into_bytes(), ..Any::default() };
    let exec = ExecProcessRequest {
        id: api.id(),
        exec_id: "one".into(),
        terminal: true,
        stdin: stdin.clone(),
        stdout,
        spec: MessageField::some(spec),
        ..ExecProcessRequest::default()
    };
    api.tasks.exec(context(), &exec).expect("exec");
    api.start_process(&api.id(), "one");
    // Somebody detaches, and somebody else attaches.
    let mut printed = String::new();
    for typed in ["first", "second"] {
        let mut input = OpenOptions::new().write(true).open(api.ctr.sandbox().path(&stdin)).expect("a fifo");
        input.write_all(format!("{typed}\n").as_bytes()).expect("typing");
        drop(input);
        let answered = until(|| {
            let _ = output.read_to_string(&mut printed);
            printed.contains(&format!("got {typed}"))
        });
        assert!(answered, "{printed:?}");
    }
    let (id, exec_id) = (api.id(), "one".into());
    let request = CloseIORequest { id, exec_id, stdin: true, ..CloseIORequest::default() };
    api.tasks.close_io(context(), &request).expect("closing");
    assert_eq!(api.wait(&api.id(), "one"), 42);
}

/// There is no room for one more thread of the shim.
fn an_exec_that_nobody_can_wait_for_is_ended() {
    let api = Api::start();
    let sandbox = api.ctr.sandbox();
    api.exec("one").expect("exec");
    let shims = sandbox.pids_of(&["containerd-shim-lxcrun-v2 -namespace", &format!("-id {} ", api.id())]);
    let [shim] = &shims[..] else { panic!("{shims:?}") };
    // Whoever starts it makes a helper first, and then the thread.
    let mut strace = sandbox.command("strace");
    strace.args([
        "-f",
        "-o",
        "/dev/null",
        "-e",
        "trace=clone3",
        "-e",
        "inject=clone3:error=EAGAIN:when=2",
        "-p",
        shim,
    ]);
    let mut strace = strace.stderr(Stdio::piped()).spawn().expect("strace");
    let mut said = String::new();
    // Held open: it goes on to say whom it has attached to.
    let mut errors = BufReader::new(strace.stderr.take().expect("its errors"));
    errors.read_line(&mut said).expect("a line");
    assert!(said.contains("attached"), "{said}");
    let request = StartRequest { id: api.id(), exec_id: "one".into(), ..StartRequest::default() };
    let answer = api.tasks.start(context(), &request);
    let tracers = sandbox.pids_of(&["strace -f ", &format!("-p {shim} ")]);
    tracers.iter().for_each(|tracer| sandbox.kill(tracer));
    strace.wait().expect("strace");
    let refused = answer.expect_err("there is nobody to wait for it").to_string();
    assert!(refused.contains("cannot start a thread"), "{refused}");
    assert_eq!(api.status("one"), Status::STOPPED);
    let threads = fs::read_dir(sandbox.path(format!("/proc/{shim}/task"))).expect("the shim's threads");
    let of_thread = threads.flatten().map(|thread| fs::read_to_string(thread.path().join("children")));
    let children = of_thread.map(Result::unwrap_or_default).collect::<Vec<_>>().join(" ");
    assert_ne!(children.trim(), "", "the monitor is one");
    for child in children.split_whitespace() {
        let stat = sandbox.read(format!("/proc/{child}/stat"));
        assert!(!stat.contains(") Z "), "{stat}");
    }
}
