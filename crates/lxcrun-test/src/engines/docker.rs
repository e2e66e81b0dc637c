//! dockerd with its own containerd, and the docker client.

use std::process::Stdio;
use std::sync::OnceLock;

use super::{Engine, Sandbox};
use crate::Runtime;

/// A dockerd that knows the runtime under test as `lxcrun`.
#[derive(Debug)]
pub struct Docker {
    sandbox: Sandbox,
}

pub(super) static SHARED: OnceLock<Result<Docker, String>> = OnceLock::new();

impl Docker {
    /// The one that the tests share.
    #[track_caller]
    pub fn get() -> &'static Docker {
        SHARED.get_or_init(Docker::start).as_ref().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// Starts one.
    fn start() -> Result<Docker, String> {
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
            || {
                let mut client = sandbox.command("docker");
                client.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
                client.status().is_ok_and(|status| status.success())
            },
        )?;
        let docker = Docker { sandbox };
        let loaded = docker.call(&["load", "--input", "/run/image/image.tar"]);
        if loaded.code() == 0 { Ok(docker) } else { Err(format!("cannot load the image{loaded}")) }
    }
}

impl Engine for Docker {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn client(&self) -> Vec<String> {
        vec!["docker".into()]
    }

    fn run_options(&self) -> Vec<String> {
        vec!["--runtime".into(), "lxcrun".into()]
    }
}
