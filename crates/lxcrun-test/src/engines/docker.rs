//! dockerd with its own containerd, and the docker client.

use std::fs;
use std::process::Stdio;
use std::sync::OnceLock;

use super::{Engine, Sandbox};
use crate::{Output, Runtime};

/// A dockerd that knows the runtime under test as `lxcrun`.
#[derive(Debug)]
pub struct Docker {
    sandbox: Sandbox,
    /// The name by which `docker run` asks for the runtime.
    runtime: &'static str,
}

pub(super) static SHARED: OnceLock<Result<Docker, String>> = OnceLock::new();
pub(super) static WITH_SHIM: OnceLock<Result<Docker, String>> = OnceLock::new();

impl Docker {
    /// The one that the tests share.
    #[track_caller]
    pub fn get() -> &'static Docker {
        let shared = SHARED.get_or_init(|| Docker::start("lxcrun"));
        shared.as_ref().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// One that the tests of lxcrun's own shim share.
    #[track_caller]
    pub fn with_shim() -> &'static Docker {
        let shared = WITH_SHIM.get_or_init(|| Docker::start("io.containerd.lxcrun.v2"));
        shared.as_ref().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// One of its own, with this daemon.json.
    #[track_caller]
    pub fn configured(text: &str) -> Docker {
        let start = || {
            let sandbox = Sandbox::start("docker")?;
            let directory = sandbox.path("/etc/docker");
            fs::create_dir_all(&directory)
                .and_then(|()| fs::write(directory.join("daemon.json"), text))
                .map_err(|e| format!("{}: {e}", directory.display()))?;
            sandbox.daemon(&["dockerd"], || answers(&sandbox))?;
            Ok::<_, String>(Docker { sandbox, runtime: "lxcrun" })
        };
        start().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// Runs a program beside it.
    pub fn inside(&self, command: &[&str]) -> Output {
        let output = self.sandbox.command(command[0]).args(&command[1..]).stdin(Stdio::null()).output();
        Output::new(&command.join(" "), &output.expect("nsenter"))
    }

    /// Starts one.
    fn start(name: &'static str) -> Result<Docker, String> {
        let sandbox = Sandbox::start("docker")?;
        let runtime = format!("lxcrun={}", Runtime::get());
        let parent = format!("/{}", sandbox.name());
        sandbox.daemon(
            &[
                "dockerd",
                // For checkpoints.
                "--experimental",
                "--add-runtime",
                &runtime,
                "--cgroup-parent",
                &parent,
                "--exec-opt",
                "native.cgroupdriver=cgroupfs",
            ],
            || answers(&sandbox),
        )?;
        let docker = Docker { sandbox, runtime: name };
        let loaded = docker.call(&["load", "--input", "/run/image/image.tar"]);
        if loaded.code() == 0 { Ok(docker) } else { Err(format!("cannot load the image{loaded}")) }
    }
}

fn answers(sandbox: &Sandbox) -> bool {
    let mut client = sandbox.command("docker");
    client.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
    client.status().is_ok_and(|status| status.success())
}

impl Engine for Docker {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn client(&self) -> Vec<String> {
        vec!["docker".into()]
    }

    fn run_options(&self) -> Vec<String> {
        vec!["--runtime".into(), self.runtime.into()]
    }
}
