//! containerd, driven by its own client ctr through containerd-shim-runc-v2.

use std::fs;
use std::process::Stdio;
use std::sync::OnceLock;

use super::{Engine, IMAGE, Sandbox};
use crate::{Output, Runtime};

/// A containerd; each `ctr run` names the runtime under test.
#[derive(Debug)]
pub struct Containerd {
    sandbox: Sandbox,
}

pub(super) static SHARED: OnceLock<Result<Containerd, String>> = OnceLock::new();

impl Containerd {
    /// The one that the tests share.
    #[track_caller]
    pub fn get() -> &'static Containerd {
        SHARED.get_or_init(Containerd::start).as_ref().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// Starts one.
    fn start() -> Result<Containerd, String> {
        let sandbox = Sandbox::start("containerd")?;
        let config = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        fs::write(sandbox.path("/run/containerd.toml"), config).map_err(|e| e.to_string())?;
        sandbox.daemon(&["containerd", "--config", "/run/containerd.toml"], || {
            let mut client = sandbox.command("ctr");
            client.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
            client.status().is_ok_and(|status| status.success())
        })?;
        let containerd = Containerd { sandbox };
        let imported = containerd.call(&["images", "import", "/run/image/image.tar"]);
        if imported.code() == 0 { Ok(containerd) } else { Err(format!("cannot import the image{imported}")) }
    }
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
        vec!["--runc-binary".into(), Runtime::get().to_string()]
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
