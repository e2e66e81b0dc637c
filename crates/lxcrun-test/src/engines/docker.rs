//! dockerd with a containerd, and the docker client.

use std::fs;
use std::process::Stdio;
use std::sync::OnceLock;

use super::{Engine, Sandbox, containerd};
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
pub(super) static WITH_SYSTEMD: OnceLock<Result<Docker, String>> = OnceLock::new();
pub(super) static WITH_SYSTEMD_AND_SHIM: OnceLock<Result<Docker, String>> = OnceLock::new();
/// The name by which dockerd finds lxcrun's own shim.
const SHIM: &str = "io.containerd.lxcrun.v2";

impl Docker {
    /// The one that the tests share.
    #[track_caller]
    pub fn get() -> &'static Docker {
        let shared = SHARED.get_or_init(|| Docker::start(Sandbox::start("docker")?, "lxcrun"));
        shared.as_ref().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// One that the tests of lxcrun's own shim share.
    #[track_caller]
    pub fn with_shim() -> &'static Docker {
        let shared = WITH_SHIM.get_or_init(|| Docker::start(Sandbox::start("docker")?, SHIM));
        shared.as_ref().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// One whose cgroups systemd makes.
    #[track_caller]
    pub fn with_systemd() -> &'static Docker {
        let start = || Docker::start(Sandbox::with_systemd("docker")?, "lxcrun");
        WITH_SYSTEMD.get_or_init(start).as_ref().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// The same with lxcrun's own shim.
    #[track_caller]
    pub fn with_systemd_and_shim() -> &'static Docker {
        let start = || Docker::start(Sandbox::with_systemd("docker")?, SHIM);
        WITH_SYSTEMD_AND_SHIM.get_or_init(start).as_ref().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// One of its own whose containers have a user namespace: their root is user 100000.
    #[track_caller]
    pub fn remapped() -> Docker {
        let start = || {
            let sandbox = Sandbox::start("docker")?;
            // It looks for ranges by the user's name, or by the group's.
            for file in ["/etc/subuid", "/etc/subgid"] {
                fs::write(sandbox.path(file), "nobody:100000:65536\nnogroup:100000:65536\n")
                    .map_err(|e| format!("{file}: {e}"))?;
            }
            Docker::start_with(sandbox, "lxcrun", &["--userns-remap", "nobody:nogroup"])
        };
        start().unwrap_or_else(|reason| panic!("{reason}"))
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
            // Where the sandbox removes them.
            let parent = sandbox.cgroup_parent();
            containerd::start_daemon(&sandbox)?;
            let daemon = ["dockerd", "--containerd", containerd::SOCKET, "--cgroup-parent", &parent];
            sandbox.daemon(&daemon, || answers(&sandbox))?;
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
    fn start(sandbox: Sandbox, name: &'static str) -> Result<Docker, String> {
        Docker::start_with(sandbox, name, &[])
    }

    /// With a containerd beside it, as Debian's service has one: for its own dockerd waits no longer than 15 s, which
    /// an emulated machine may need.
    fn start_with(sandbox: Sandbox, name: &'static str, options: &[&str]) -> Result<Docker, String> {
        containerd::start_daemon(&sandbox)?;
        let runtime = format!("lxcrun={}", Runtime::get());
        let parent = sandbox.cgroup_parent();
        let driver = if parent.starts_with('/') { "cgroupfs" } else { "systemd" };
        let driver = format!("native.cgroupdriver={driver}");
        // Experimental are checkpoints.
        let own =
            ["dockerd", "--containerd", containerd::SOCKET, "--experimental", "--add-runtime", &runtime];
        let cgroups = ["--cgroup-parent", &parent, "--exec-opt", &driver];
        sandbox.daemon(&[own.as_slice(), &cgroups, options].concat(), || answers(&sandbox))?;
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
