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

impl Podman {
    /// The one that the tests share.
    #[track_caller]
    pub fn get() -> &'static Podman {
        SHARED.get_or_init(Podman::start).as_ref().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// Makes one ready.
    fn start() -> Result<Podman, String> {
        let sandbox = Sandbox::start("podman")?;
        // podman asks for limits as high as the kernel has them, which root without CAP_SYS_RESOURCE can't give.
        let limits = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";
        fs::write(sandbox.path("/etc/containers/containers.conf"), limits).map_err(|e| e.to_string())?;
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
        ["podman", "--runtime", &runtime, "--cgroup-manager", "cgroupfs"].map(str::to_owned).into()
    }

    fn run_options(&self) -> Vec<String> {
        vec!["--cgroup-parent".into(), format!("/{}", self.sandbox.name())]
    }
}
