//! containerd, driven by its own client ctr through containerd-shim-runc-v2, or through lxcrun's own shim.

use std::fs;
use std::process::Stdio;
use std::sync::OnceLock;

use super::{Engine, IMAGE, Sandbox};
use crate::{Output, Runtime};

/// A containerd; each `ctr run` names the runtime under test.
#[derive(Debug)]
pub struct Containerd {
    sandbox: Sandbox,
    run_options: Vec<String>,
}

pub(super) static SHARED: OnceLock<Result<Containerd, String>> = OnceLock::new();
pub(super) static WITH_SHIM: OnceLock<Result<Containerd, String>> = OnceLock::new();

const CONFIG: &str = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
/// Where it listens.
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";

impl Containerd {
    /// The one that the tests share.
    #[track_caller]
    pub fn get() -> &'static Containerd {
        let options = || vec!["--runc-binary".into(), Runtime::get().to_string()];
        let shared = SHARED.get_or_init(|| Containerd::start(options()));
        shared.as_ref().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// One that the tests of lxcrun's own shim share.
    #[track_caller]
    pub fn with_shim() -> &'static Containerd {
        let shared = WITH_SHIM.get_or_init(Containerd::of_its_own_with_shim);
        shared.as_ref().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// One more with lxcrun's own shim, which a test may do anything to.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn of_its_own_with_shim() -> Result<Containerd, String> {
        Containerd::start(vec!["--runtime".into(), "io.containerd.lxcrun.v2".into()])
    }

    /// Starts one.
    fn start(run_options: Vec<String>) -> Result<Containerd, String> {
        let containerd = Containerd { sandbox: Sandbox::start("containerd")?, run_options };
        containerd.start_daemon()?;
        let imported = containerd.call(&["images", "import", "/run/image/image.tar"]);
        if imported.code() == 0 { Ok(containerd) } else { Err(format!("cannot import the image{imported}")) }
    }

    /// Starts the daemon, the first time or after somebody has ended it.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn start_daemon(&self) -> Result<(), String> {
        start_daemon(&self.sandbox)
    }
}

/// Starts the daemon in this sandbox.
pub(super) fn start_daemon(sandbox: &Sandbox) -> Result<(), String> {
    fs::write(sandbox.path("/run/containerd.toml"), CONFIG).map_err(|e| e.to_string())?;
    sandbox.daemon(&["containerd", "--config", "/run/containerd.toml"], || {
        let mut client = sandbox.command("ctr");
        client.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
        client.status().is_ok_and(|status| status.success())
    })
}

impl Engine for Containerd {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The namespace is also the parent cgroup of its containers.
    fn client(&self) -> Vec<String> {
        ["ctr", "--namespace", self.sandbox.name()].map(str::to_owned).into()
    }

    fn run_options(&self) -> Vec<String> {
        self.run_options.clone()
    }

    fn terminal_options(&self) -> &'static str {
        "-t"
    }

    fn volume_options(&self, source: &str, target: &str) -> String {
        format!("--mount type=bind,src={source},dst={target},options=rbind:rw")
    }

    fn run_arguments(&self, name: &str, detach: bool, options: &[&str], command: &[&str]) -> Vec<String> {
        let mode: &[&str] = if detach { &["--detach", "--null-io"] } else { &["--rm"] };
        let mut arguments: Vec<String> = vec!["run".into()];
        arguments.extend(self.run_options());
        arguments.extend([mode, options, &[IMAGE, name], command].concat().into_iter().map(str::to_owned));
        arguments
    }

    fn exec_arguments(&self, name: &str, options: &[&str], command: &[&str]) -> Vec<String> {
        let head = ["task", "exec", "--exec-id", "exec"];
        [&head, options, &[name], command].concat().into_iter().map(str::to_owned).collect()
    }

    fn id(&self, name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    fn init(&self, name: &str) -> String {
        let tasks = self.call(&["task", "list"]);
        let task = tasks.lines().into_iter().find(|line| line.split_whitespace().next() == Some(name));
        let pid = task.and_then(|line| line.split_whitespace().nth(1));
        pid.unwrap_or_else(|| panic!("no task {name}{tasks}")).to_owned()
    }

    fn remove(&self, name: &str) -> Output {
        self.call(&["task", "rm", "--force", name]);
        self.call(&["container", "rm", name])
    }
}
