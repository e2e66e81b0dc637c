//! podman with conmon: no daemon, every call is a process.

use std::fs;
use std::sync::OnceLock;

use super::{Engine, Sandbox};
use crate::Runtime;

/// podman, configured to use the runtime under test.
#[derive(Debug)]
pub struct Podman {
    sandbox: Sandbox,
}

pub(super) static SHARED: OnceLock<Result<Podman, String>> = OnceLock::new();
pub(super) static WITH_SYSTEMD: OnceLock<Result<Podman, String>> = OnceLock::new();

/// podman asks for limits as high as the kernel has them, which root without `CAP_SYS_RESOURCE` can't give, and for the
/// machine's journal.
const CONFIG: &str = r#"[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
"#;

impl Podman {
    /// The one that the tests share.
    #[track_caller]
    pub fn get() -> &'static Podman {
        let start = || Podman::start(Sandbox::start("podman")?);
        SHARED.get_or_init(start).as_ref().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// One whose cgroups systemd makes.
    #[track_caller]
    pub fn with_systemd() -> &'static Podman {
        let start = || Podman::start(Sandbox::with_systemd("podman")?);
        WITH_SYSTEMD.get_or_init(start).as_ref().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// Makes one ready.
    fn start(sandbox: Sandbox) -> Result<Podman, String> {
        fs::write(sandbox.path("/etc/containers/containers.conf"), CONFIG).map_err(|e| e.to_string())?;
        let podman = Podman { sandbox };
        let loaded = podman.call(&["load", "--input", "/run/image/image.tar"]);
        if loaded.code() == 0 { Ok(podman) } else { Err(format!("cannot load the image{loaded}")) }
    }
}

impl Engine for Podman {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn client(&self) -> Vec<String> {
        let runtime = Runtime::get().to_string();
        let manager = if self.sandbox.cgroup_parent().starts_with('/') { "cgroupfs" } else { "systemd" };
        ["podman", "--runtime", &runtime, "--cgroup-manager", manager].map(str::to_owned).into()
    }

    fn run_options(&self) -> Vec<String> {
        vec!["--cgroup-parent".into(), self.sandbox.cgroup_parent()]
    }
}
