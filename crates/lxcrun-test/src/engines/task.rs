//! lxcrun's own shim without a client of containerd's between: what those clients never ask for can be asked for.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use containerd_shim_protos::api::{
    CheckpointTaskRequest, CreateTaskRequest, DeleteRequest, KillRequest, ShutdownRequest, StartRequest,
    WaitRequest,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::oci::CheckpointOptions;
use containerd_shim_protos::ttrpc::{self, context};
use containerd_shim_protos::types::mount::Mount;
use containerd_shim_protos::{Client, TaskClient};

use super::{Containerd, Engine, Sandbox};
use crate::{Container, DEADLINE, Runtime};

/// A shim that serves one bundle, in the sandbox of a containerd. Dropped, both end.
pub struct ShimTask<'e> {
    sandbox: &'e Sandbox,
    client: TaskClient,
    bundle: &'e Container,
}

impl<'e> ShimTask<'e> {
    /// Starts the shim. It finds programs in `programs`, too.
    #[track_caller]
    pub fn serve(containerd: &'e Containerd, bundle: &'e Container, programs: &Path) -> ShimTask<'e> {
        let sandbox = containerd.sandbox();
        let shim = Runtime::get().shim().expect("the shim");
        let script = r#"cd "$1" && PATH="$3:$PATH" exec "$2" -namespace tests -address /run/containerd/containerd.sock \
            -publish-binary /bin/true -id "$4" start"#;
        let mut start = sandbox.command("sh");
        start.args(["-c", script, "start"]).arg(bundle.dir()).arg(shim).arg(programs).arg(bundle.id());
        start.env("TTRPC_ADDRESS", "/run/containerd/containerd.sock.ttrpc");
        let said = start.stdin(Stdio::null()).output().expect("the shim");
        assert!(said.status.success(), "{said:?}");
        let address = String::from_utf8(said.stdout).expect("an address");
        let socket = sandbox.path(address.trim().trim_start_matches("unix://"));
        let client = Client::connect(&format!("unix://{}", socket.display())).expect("the shim's socket");
        ShimTask { sandbox, client: TaskClient::new(client), bundle }
    }

    fn id(&self) -> String {
        self.bundle.id().into()
    }

    /// Creates the container with this mount as its root. What it prints goes to the bundle's file `output`.
    ///
    /// # Errors
    /// What the shim says.
    pub fn create(&self, kind: &str, source: &str, options: &[&str]) -> Result<(), String> {
        let mount = Mount {
            type_: kind.into(),
            source: source.into(),
            options: options.iter().map(|&option| option.into()).collect(),
            ..Mount::default()
        };
        let output = format!("file://{}", self.bundle.path("output").display());
        self.create_with(|request| {
            request.rootfs = vec![mount];
            (request.stdout, request.stderr) = (output.clone(), output);
        })
    }

    /// Creates the container as this request says.
    ///
    /// # Errors
    /// What the shim says.
    pub fn create_with(&self, change: impl FnOnce(&mut CreateTaskRequest)) -> Result<(), String> {
        let bundle = self.bundle.dir().display().to_string();
        let mut request = CreateTaskRequest { id: self.id(), bundle, ..CreateTaskRequest::default() };
        change(&mut request);
        said(self.client.create(deadline(), &request)).map(drop)
    }

    /// Starts the program.
    #[track_caller]
    pub fn start(&self) {
        let request = StartRequest { id: self.id(), ..StartRequest::default() };
        said(self.client.start(deadline(), &request)).expect("a start");
    }

    /// Waits for the program's end and removes the container. Returns the exit code.
    #[track_caller]
    pub fn end(&self) -> u32 {
        let request = WaitRequest { id: self.id(), ..WaitRequest::default() };
        let status = said(self.client.wait(deadline(), &request)).expect("an end").exit_status;
        let request = DeleteRequest { id: self.id(), ..DeleteRequest::default() };
        said(self.client.delete(deadline(), &request)).expect("a removal");
        status
    }

    /// Starts the program, waits for its end, and removes the container. Returns the exit code and what was printed.
    #[track_caller]
    pub fn run(&self) -> (u32, String) {
        self.start();
        (self.end(), fs::read_to_string(self.bundle.path("output")).expect("the output"))
    }

    /// Saves the container to this directory, and ends it.
    #[track_caller]
    pub fn checkpoint(&self, images: &Path) {
        let options = CheckpointOptions { exit: true, ..CheckpointOptions::default() };
        let options = options.write_to_bytes().expect("a message");
        self.checkpoint_with("containerd.runc.v1.CheckpointOptions", options, images);
    }

    /// The same, as the client of containerd 1 asks for it: containerd has named another directory.
    #[track_caller]
    pub fn checkpoint_by_containerd_1(&self, images: &Path) {
        let images = images.to_str().expect("UTF-8");
        // Field 1, a truth value, and 9, a text.
        let mut options = vec![1 << 3, 1, 9 << 3 | 2, u8::try_from(images.len()).expect("a short path")];
        options.extend(images.as_bytes());
        let elsewhere = self.bundle.path("elsewhere");
        self.checkpoint_with("containerd.linux.runc.CheckpointOptions", options, &elsewhere);
        assert!(!elsewhere.exists(), "it is not to be used");
    }

    #[track_caller]
    fn checkpoint_with(&self, kind: &str, options: Vec<u8>, path: &Path) {
        let options = Any { type_url: kind.into(), value: options, ..Any::default() };
        let request = CheckpointTaskRequest {
            id: self.id(),
            path: path.display().to_string(),
            options: MessageField::some(options),
            ..CheckpointTaskRequest::default()
        };
        said(self.client.checkpoint(deadline(), &request)).expect("a checkpoint");
    }

    /// What is mounted below the bundle.
    #[must_use]
    pub fn mounts(&self) -> Vec<String> {
        let table = self.sandbox.read("/proc/1/mountinfo");
        let below = table.lines().filter(|line| line.contains(&format!(" {}/", self.bundle.dir().display())));
        below.map(str::to_owned).collect()
    }
}

impl Drop for ShimTask<'_> {
    fn drop(&mut self) {
        // There may be nothing left to end.
        let request = KillRequest { id: self.id(), signal: 9, all: true, ..KillRequest::default() };
        let _ = self.client.kill(deadline(), &request);
        let _ = self.client.delete(deadline(), &DeleteRequest { id: self.id(), ..DeleteRequest::default() });
        let request = ShutdownRequest { id: self.id(), ..ShutdownRequest::default() };
        let _ = self.client.shutdown(deadline(), &request);
    }
}

fn deadline() -> context::Context {
    context::with_timeout(i64::try_from(DEADLINE.as_nanos()).unwrap_or(i64::MAX))
}

fn said<T>(answer: ttrpc::Result<T>) -> Result<T, String> {
    answer.map_err(|e| match e {
        ttrpc::Error::RpcStatus(status) => status.message,
        other => other.to_string(),
    })
}
