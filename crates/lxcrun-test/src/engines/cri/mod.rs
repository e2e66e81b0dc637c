//! containerd as Kubernetes drives it: through the container runtime interface (CRI), with a client of our own in the
//! kubelet's place.

mod grpc;
pub mod messages;
mod stream;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use messages::{
    ContainerConfig, ContainerId, ContainerMetadata, ContainerStatus, ContainerStatusAnswer, CreateContainer,
    Empty, Exec, ExecSync, Executed, Image, LinuxContainer, LinuxPod, Namespaces, PodConfig, PodId,
    PodMetadata, PodSecurity, PodStatusAnswer, Resources, RunPodSandbox, Security, Stats, StatsAnswer,
    StopContainer, UpdateResources, Url, Version,
};
use prost::Message;

use super::containerd::SOCKET;
use super::{IMAGE, Sandbox, until};
use crate::{Output, Runtime};

pub use stream::Session;

/// The handler of a RuntimeClass that means the runtime under test.
pub const HANDLER: &str = "lxcrun";
/// The one that means lxcrun's own shim.
pub const OWN_SHIM: &str = "own-shim";

const CONFIG: &str = "/etc/containerd/config.toml";

/// What a host's administrator has configured before.
const BASE: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:latest"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/run/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.lxcrun]
    pod_annotations = ["org.linuxcontainers.lxc.*"]
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.own-shim]
    OUR_SHIM
"#;

/// What he adds on a host of systemd's, for runc and whoever is configured after its example.
const SYSTEMD: &str = r#"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.own-shim.options]
    SystemdCgroup = true
"#;

/// Addresses for pods, on a bridge of the sandbox.
const NETWORK: &str = r#"{ "cniVersion": "0.4.0", "name": "pods", "type": "bridge", "bridge": "pods0", "isGateway": true,
    "ipam": { "type": "host-local", "subnet": "10.88.0.0/16", "dataDir": "/run/cni/addresses" } }"#;

/// `NamespaceMode`: the pod's, the container's own, the host's.
pub const POD: i32 = 0;
/// See [`POD`].
pub const CONTAINER: i32 = 1;
/// See [`POD`].
pub const NODE: i32 = 2;

/// States of a container.
pub const RUNNING: i32 = 1;
/// See [`RUNNING`].
pub const EXITED: i32 = 2;

/// A containerd with its CRI plugin.
#[derive(Debug)]
pub struct Cri {
    sandbox: Sandbox,
}

pub(super) static SHARED: OnceLock<Result<Cri, String>> = OnceLock::new();
pub(super) static WITH_SYSTEMD: OnceLock<Result<Cri, String>> = OnceLock::new();

/// What [`BASE`] becomes with a runtime that can't register itself.
fn configured_by_hand(runtime: &Runtime) -> String {
    let kind = "    runtime_type = \"io.containerd.runc.v2\"\n";
    let runtimes = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes";
    let base = BASE.replace("OUR_SHIM", kind.trim());
    let base = base.replace("    pod_annotations", &format!("{kind}    pod_annotations"));
    format!("{base}{runtimes}.runc]\n{kind}{runtimes}.{HANDLER}.options]\n    BinaryName = \"{runtime}\"\n")
}

/// As `lxcrun configure --shim` registers it.
fn our_shim(runtime: &Runtime) -> String {
    if crate::suite::containerd_is_older(1, 7).is_some() {
        return "runtime_type = \"io.containerd.lxcrun.v2\"".into();
    }
    let path = runtime.path().with_file_name("containerd-shim-lxcrun-v2");
    format!("runtime_type = \"io.containerd.runc.v2\"\n    runtime_path = \"{}\"", path.display())
}

impl Cri {
    /// The one that the tests share.
    #[track_caller]
    pub fn get() -> &'static Cri {
        SHARED.get_or_init(Cri::start).as_ref().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// One whose cgroups systemd makes, for lxcrun.
    #[track_caller]
    pub fn with_systemd() -> &'static Cri {
        let start = || Cri::start_in(Sandbox::with_systemd("cri")?, &format!("{BASE}{SYSTEMD}"));
        WITH_SYSTEMD.get_or_init(start).as_ref().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// Starts one, which [`lxcrun configure`](crate) has registered the runtime with.
    ///
    /// # Errors
    /// The log of what did not start.
    pub fn start() -> Result<Cri, String> {
        Cri::start_in(Sandbox::start("cri")?, BASE)
    }

    fn start_in(sandbox: Sandbox, config: &str) -> Result<Cri, String> {
        let cri = Cri { sandbox };
        let write = |inside: &str, text: &str| {
            let path = cri.sandbox.path(inside);
            fs::create_dir_all(path.parent().expect("a parent"))
                .and_then(|()| fs::write(&path, text))
                .map_err(|e| format!("{}: {e}", path.display()))
        };
        write("/run/cni/pods.conf", NETWORK)?;
        let runtime = Runtime::get();
        if runtime.is("lxcrun") {
            write(CONFIG, &config.replace("OUR_SHIM", &our_shim(runtime)))?;
            let configured = cri.inside(&runtime.to_string(), &["configure", "containerd"]);
            if configured.code() != 0 {
                return Err(format!("cannot configure containerd{configured}"));
            }
        } else {
            write(CONFIG, &configured_by_hand(runtime))?;
        }
        cri.start_daemon()?;
        for image in ["/run/image/image.tar", "/run/image/pause.tar"] {
            let imported = cri.inside("ctr", &["--namespace", "k8s.io", "images", "import", image]);
            if imported.code() != 0 {
                return Err(format!("cannot import {image}{imported}"));
            }
        }
        Ok(cri)
    }

    /// Starts the daemon, again if it was there before.
    ///
    /// # Errors
    /// Its log, when it does not answer.
    pub fn start_daemon(&self) -> Result<(), String> {
        self.sandbox.daemon(&["containerd"], || {
            self.call::<Version>("Version", &Empty {}).is_ok() && self.inside("ctr", &["version"]).code() == 0
        })
    }

    /// Where it lives.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Runs a program beside it.
    pub fn inside(&self, program: &str, arguments: &[&str]) -> Output {
        let output = self.sandbox.command(program).args(arguments).stdin(Stdio::null()).output();
        Output::new(&format!("{program} {}", arguments.join(" ")), &output.expect("nsenter"))
    }

    /// Calls a method of the runtime service.
    ///
    /// # Errors
    /// The plugin's own, with its code.
    pub fn call<A: Message + Default>(&self, method: &str, request: &impl Message) -> Result<A, String> {
        let method = format!("runtime.v1.RuntimeService/{method}");
        grpc::call(&self.sandbox.path(SOCKET), &method, request)
    }

    /// Calls a method that must work.
    #[track_caller]
    pub fn must<A: Message + Default>(&self, method: &str, request: &impl Message) -> A {
        self.call(method, request).unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// Runs a pod's sandbox; `edit` changes its configuration.
    #[track_caller]
    pub fn pod(&self, handler: &str, edit: impl FnOnce(&mut PodConfig)) -> Pod<'_> {
        self.try_pod(handler, edit).unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// The same, where it may fail.
    ///
    /// # Errors
    /// The plugin's own.
    pub fn try_pod(&self, handler: &str, edit: impl FnOnce(&mut PodConfig)) -> Result<Pod<'_>, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pod-{:05}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut config = PodConfig {
            metadata: Some(PodMetadata { name: name.clone(), uid: name.clone(), namespace: "test".into() }),
            hostname: name.clone(),
            log_directory: format!("/run/pods/{name}"),
            linux: Some(LinuxPod {
                cgroup_parent: self.sandbox.cgroup_parent(),
                security_context: Some(PodSecurity {
                    namespace_options: Some(Namespaces {
                        network: POD,
                        pid: CONTAINER,
                        ipc: POD,
                        users: None,
                    }),
                    ..PodSecurity::default()
                }),
                ..LinuxPod::default()
            }),
            ..PodConfig::default()
        };
        edit(&mut config);
        let request = RunPodSandbox { config: Some(config.clone()), runtime_handler: handler.into() };
        let PodId { id } = self.call("RunPodSandbox", &request)?;
        Ok(Pod { cri: self, id, config })
    }
}

/// A pod. Dropped, it is stopped and removed, and the test fails if anything of it is left.
pub struct Pod<'c> {
    cri: &'c Cri,
    id: String,
    config: PodConfig,
}

impl Pod<'_> {
    /// Its id, which is that of its sandbox's container.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether containerd finds it ready.
    #[track_caller]
    pub fn is_ready(&self) -> bool {
        let answer: PodStatusAnswer = self.cri.must("PodSandboxStatus", &PodId { id: self.id.clone() });
        answer.status.expect("a status").state == 0
    }

    /// Creates a container that runs `sh -c script`; `edit` changes its configuration.
    #[track_caller]
    pub fn create(
        &self,
        name: &str,
        script: &str,
        edit: impl FnOnce(&mut ContainerConfig),
    ) -> PodContainer<'_> {
        let security_context = Security {
            namespace_options: Some(Namespaces { network: POD, pid: CONTAINER, ipc: POD, users: None }),
            ..Security::default()
        };
        let mut config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into() }),
            image: Some(Image { image: IMAGE.into() }),
            command: ["sh", "-c", script].map(str::to_owned).into(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainer { security_context: Some(security_context), resources: None }),
            ..ContainerConfig::default()
        };
        edit(&mut config);
        let log = PathBuf::from(&self.config.log_directory).join(&config.log_path);
        let request = CreateContainer {
            pod: self.id.clone(),
            config: Some(config),
            pod_config: Some(self.config.clone()),
        };
        let ContainerId { id } = self.cri.must("CreateContainer", &request);
        PodContainer { cri: self.cri, id, log }
    }

    /// Creates and starts one.
    #[track_caller]
    pub fn start(
        &self,
        name: &str,
        script: &str,
        edit: impl FnOnce(&mut ContainerConfig),
    ) -> PodContainer<'_> {
        let container = self.create(name, script, edit);
        container.start();
        container
    }

    /// Stops and removes it with its containers.
    ///
    /// # Errors
    /// The plugin's own.
    pub fn remove(&self) -> Result<(), String> {
        let id = PodId { id: self.id.clone() };
        self.cri.call::<Empty>("StopPodSandbox", &id)?;
        self.cri.call::<Empty>("RemovePodSandbox", &id).map(drop)
    }

    /// What is left of it, or soon won't be.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let _ = until(|| {
            left = self.cri.sandbox.traces(&self.id);
            left.is_empty()
        });
        left
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        // A test may have done so.
        let removed = self.remove();
        let left = self.left();
        assert!(left.is_empty() || std::thread::panicking(), "pod {} left {left:#?} {removed:?}", self.id);
    }
}

/// A container of a pod, removed with that.
pub struct PodContainer<'c> {
    cri: &'c Cri,
    id: String,
    log: PathBuf,
}

impl PodContainer<'_> {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> ContainerId {
        ContainerId { id: self.id.clone() }
    }

    /// Starts it.
    #[track_caller]
    pub fn start(&self) {
        self.cri.must::<Empty>("StartContainer", &self.name());
    }

    /// What containerd says of it.
    #[track_caller]
    pub fn status(&self) -> ContainerStatus {
        self.cri.must::<ContainerStatusAnswer>("ContainerStatus", &self.name()).status.expect("a status")
    }

    /// Waits until it has ended, and returns its exit code.
    #[track_caller]
    pub fn exit_code(&self) -> i32 {
        assert!(until(|| self.status().state == EXITED), "{:?}", self.status());
        self.status().exit_code
    }

    /// Runs `sh -c script` in it.
    #[track_caller]
    pub fn exec(&self, script: &str) -> (i32, String, String) {
        let command = ["sh", "-c", script].map(str::to_owned).into();
        let done: Executed =
            self.cri.must("ExecSync", &ExecSync { id: self.id.clone(), command, timeout: 50 });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.exit_code, text(&done.stdout), text(&done.stderr))
    }

    /// What `sh -c script` prints in it; it must work.
    #[track_caller]
    pub fn says(&self, script: &str) -> String {
        let (code, stdout, stderr) = self.exec(script);
        assert_eq!(code, 0, "{script}: {stdout}{stderr}");
        stdout
    }

    /// Runs `sh -c script` on a terminal.
    #[track_caller]
    pub fn exec_on_terminal(&self, script: &str) -> Session {
        let command = ["sh", "-c", script].map(str::to_owned).into();
        let exec = Exec { id: self.id.clone(), command, tty: true, stdin: true, stdout: true, stderr: false };
        let Url { url } = self.cri.must("Exec", &exec);
        Session::open(&self.cri.sandbox, &url)
    }

    /// Its log as containerd writes it: lines of time, stream, F or P, text.
    pub fn log(&self) -> String {
        fs::read_to_string(self.cri.sandbox.path(&self.log)).unwrap_or_default()
    }

    /// What it uses.
    #[track_caller]
    pub fn stats(&self) -> Stats {
        self.cri.must::<StatsAnswer>("ContainerStats", &self.name()).stats.expect("stats")
    }

    /// Changes its limits.
    #[track_caller]
    pub fn update(&self, limits: Resources) {
        let request = UpdateResources { id: self.id.clone(), linux: Some(limits) };
        self.cri.must::<Empty>("UpdateContainerResources", &request);
    }

    /// Stops it, after `timeout` seconds by force.
    #[track_caller]
    pub fn stop(&self, timeout: i64) {
        self.cri.must::<Empty>("StopContainer", &StopContainer { id: self.id.clone(), timeout });
    }

    /// Removes it.
    #[track_caller]
    pub fn remove(&self) {
        self.cri.must::<Empty>("RemoveContainer", &self.name());
    }

    /// Its init's pid, as the sandbox counts.
    #[track_caller]
    pub fn init(&self) -> String {
        let tasks = self.cri.inside("ctr", &["--namespace", "k8s.io", "task", "list"]);
        let task = tasks.lines().into_iter().find(|line| line.split_whitespace().next() == Some(&self.id));
        let pid = task.and_then(|line| line.split_whitespace().nth(1));
        pid.unwrap_or_else(|| panic!("no task {}{tasks}", self.id)).to_owned()
    }
}
