//! Real engines that drive the runtime: dockerd, podman and containerd, as distributions ship them.
//!
//! Each lives in a [`Sandbox`], with default paths, and talks to nothing outside it. The engine's own words
//! differ; what tests ask of all of them is the trait [`Engine`].

mod containerd;
pub mod cri;
mod docker;
mod podman;
mod sandbox;
mod task;

use std::fmt;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::{Cgroups, DEADLINE, Output, Pty};

pub use containerd::Containerd;
pub use docker::Docker;
pub use podman::Podman;
pub use sandbox::{Sandbox, Snapshot};
pub use task::ShimTask;

/// The image that every sandbox holds: busybox, and the users `root` and `user` (1000).
pub const IMAGE: &str = "localhost/busybox:latest";

/// A program that does nothing until it is told to end.
pub const IDLE: &str = "trap 'exit 0' TERM; sleep 1000 & wait";

/// Ends the engines that tests share, and waits until nothing is left of them. Without it they end by
/// themselves shortly after the process.
pub fn end() {
    fn sandbox<E: Engine>(engine: &OnceLock<Result<E, String>>) -> Option<&Sandbox> {
        Some(engine.get()?.as_ref().ok()?.sandbox())
    }
    let all = [
        sandbox(&docker::SHARED),
        sandbox(&docker::WITH_SHIM),
        sandbox(&docker::WITH_SYSTEMD),
        sandbox(&docker::WITH_SYSTEMD_AND_SHIM),
        sandbox(&podman::SHARED),
        sandbox(&podman::WITH_SYSTEMD),
        sandbox(&containerd::SHARED),
        sandbox(&containerd::WITH_SHIM),
    ];
    all.into_iter().flatten().for_each(Sandbox::end);
    for cri in [&cri::SHARED, &cri::WITH_SYSTEMD] {
        if let Some(Ok(cri)) = cri.get() {
            cri.sandbox().end();
        }
    }
}

/// Waits, for a bounded time, until `condition` holds.
#[must_use]
pub fn until(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// What tests ask of an engine. The defaults speak Docker's command line, which is podman's too.
pub trait Engine: Sync {
    /// Where it lives.
    fn sandbox(&self) -> &Sandbox;

    /// The command line of its client, up to the verb.
    fn client(&self) -> Vec<String>;

    /// Options of `run` that every container of these tests needs.
    fn run_options(&self) -> Vec<String>;

    /// Options of `run` and `exec` for a terminal.
    fn terminal_options(&self) -> &'static str {
        "-it"
    }

    /// The options of `run` that make a directory or file of the sandbox appear in the container.
    fn volume_options(&self, source: &str, target: &str) -> String {
        format!("-v {source}:{target}")
    }

    /// The arguments that create and run the container `name`, in the background or not.
    fn run_arguments(&self, name: &str, detach: bool, options: &[&str], command: &[&str]) -> Vec<String> {
        let mode = if detach { "--detach" } else { "--rm" };
        let id_file = id_file(name);
        let mut arguments: Vec<String> =
            ["run", mode, "--name", name, "--cidfile", &id_file, "--pull", "never"].map(str::to_owned).into();
        arguments.extend(self.run_options());
        arguments.extend([options, &[IMAGE], command].concat().into_iter().map(str::to_owned));
        arguments
    }

    /// The arguments that run a further process in the container `name`.
    fn exec_arguments(&self, name: &str, options: &[&str], command: &[&str]) -> Vec<String> {
        [&["exec"], options, &[name], command].concat().into_iter().map(str::to_owned).collect()
    }

    /// The id by which the runtime knows the container, if it was made.
    fn id(&self, name: &str) -> Option<String> {
        let id = fs::read_to_string(self.sandbox().path(id_file(name))).ok()?;
        Some(id.trim().to_owned()).filter(|id| !id.is_empty())
    }

    /// The pid of the container's init, as the engine counts.
    fn init(&self, name: &str) -> String {
        let output = self.call(&["inspect", "--format", "{{.State.Pid}}", name]);
        output.assert_ok().stdout.trim().to_owned()
    }

    /// Removes the container, running or not.
    fn remove(&self, name: &str) -> Output {
        self.call(&["rm", "--force", "--volumes", name])
    }

    /// The client with these arguments, to be started inside.
    fn command(&self, arguments: &[&str]) -> Command {
        let client = self.client();
        let mut command = self.sandbox().command(&client[0]);
        command.args(&client[1..]).args(arguments);
        command
    }

    /// Calls the client.
    fn call(&self, arguments: &[&str]) -> Output {
        self.call_with_input(arguments, "")
    }

    /// Calls the client and gives it some input.
    fn call_with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        let done = child.wait_with_output().expect("the client's output");
        Output {
            command: self.line(arguments),
            status: done.status,
            stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
            log: String::new(),
        }
    }

    /// Calls the client on a terminal of 33 rows and 77 columns, into which `input` is typed; the output has
    /// plain line feeds.
    fn call_on_terminal(&self, arguments: &[&str], input: &str) -> Output {
        let (mut terminal, peer) = Pty::open();
        terminal.resize(33, 77);
        let again = || peer.try_clone().expect("the terminal once more");
        let mut command = self.command(arguments);
        command.stdin(again()).stdout(again()).stderr(peer);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        drop(command);
        terminal.write(input);
        let stdout = terminal.read_to_end().replace('\r', "");
        let status = child.wait().expect("the client");
        Output { command: self.line(arguments), status, stdout, stderr: String::new(), log: String::new() }
    }

    /// The command line, for reports.
    fn line(&self, arguments: &[&str]) -> String {
        format!("{} {}", self.client().join(" "), arguments.join(" "))
    }

    /// Runs `sh -c script` in a container that is removed afterwards. `options` are the engine's own.
    #[track_caller]
    fn run(&self, options: &str, script: &str) -> Output {
        self.run_program(options, &["sh", "-c", script])
    }

    /// Runs a program as it stands, without a shell.
    #[track_caller]
    fn run_program(&self, options: &str, command: &[&str]) -> Output {
        self.run_once(options, command, &|arguments| self.call(arguments))
    }

    /// Runs `sh -c script`, which gets some input.
    #[track_caller]
    fn run_with_input(&self, options: &str, script: &str, input: &str) -> Output {
        self.run_once(options, &["sh", "-c", script], &|arguments| self.call_with_input(arguments, input))
    }

    /// Runs `sh -c script` on a terminal, into which `input` is typed.
    #[track_caller]
    fn run_on_terminal(&self, options: &str, script: &str, input: &str) -> Output {
        let options = format!("{} {options}", self.terminal_options());
        self.run_once(&options, &["sh", "-c", script], &|arguments| self.call_on_terminal(arguments, input))
    }

    /// Runs a container by `call`, and makes sure that nothing of it is left.
    #[track_caller]
    fn run_once(&self, options: &str, command: &[&str], call: &dyn Fn(&[&str]) -> Output) -> Output {
        let name = container_name();
        let arguments = self.run_arguments(&name, false, &words(options), command);
        let output = call(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let left = self.left_of(&name);
        if !left.is_empty() {
            self.remove(&name);
        }
        assert!(left.is_empty(), "it left {left:#?}{output}");
        output
    }

    /// What is left of a container that should be gone, or soon be.
    fn left_of(&self, name: &str) -> Vec<String> {
        let Some(id) = self.id(name) else { return Vec::new() };
        let mut left = Vec::new();
        let _ = until(|| {
            left = self.sandbox().traces(&id);
            left.is_empty()
        });
        let _ = fs::remove_file(self.sandbox().path(id_file(name)));
        left
    }

    /// Starts `sh -c script` in a container in the background, which lasts until the value is dropped.
    #[track_caller]
    fn start(&self, options: &str, script: &str) -> Container<'_>
    where
        Self: Sized,
    {
        let name = container_name();
        let arguments = self.run_arguments(&name, true, &words(options), &["sh", "-c", script]);
        let container = Container { engine: self, name };
        self.call(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).assert_ok();
        container
    }
}

fn container_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // None is the beginning of another: what is left of it is found by its name.
    format!("test-{:05}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Where the engine writes the container's id.
fn id_file(name: &str) -> String {
    format!("/run/ids/{name}")
}

fn words(options: &str) -> Vec<&str> {
    options.split_whitespace().collect()
}

/// A container in the background. Dropped, it is removed, and the test fails if anything of it is left.
pub struct Container<'e> {
    engine: &'e dyn Engine,
    name: String,
}

impl Container<'_> {
    /// Calls the client with these arguments and the container's name: `["stop", "-t", "1"]`.
    pub fn call(&self, arguments: &[&str]) -> Output {
        self.engine.call(&[arguments, &[&self.name]].concat())
    }

    /// The engine's answer about it, by a Go template.
    #[track_caller]
    pub fn inspect(&self, template: &str) -> String {
        let output = self.call(&["inspect", "--format", template]);
        output.assert_ok().stdout.trim().to_owned()
    }

    /// Runs `sh -c script` in it.
    pub fn exec(&self, options: &str, script: &str) -> Output {
        self.exec_program(options, &["sh", "-c", script])
    }

    /// Runs a program in it, without a shell.
    pub fn exec_program(&self, options: &str, command: &[&str]) -> Output {
        let arguments = self.engine.exec_arguments(&self.name, &words(options), command);
        self.engine.call(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs `sh -c script` in it on a terminal.
    pub fn exec_on_terminal(&self, options: &str, script: &str, input: &str) -> Output {
        let options = format!("{} {options}", self.engine.terminal_options());
        let arguments = self.engine.exec_arguments(&self.name, &words(&options), &["sh", "-c", script]);
        self.engine.call_on_terminal(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), input)
    }

    /// Its id, by which the runtime knows it.
    pub fn id(&self) -> String {
        self.engine.id(&self.name).expect("the container's id")
    }

    /// The pid of its init, as the engine counts.
    pub fn init(&self) -> String {
        self.engine.init(&self.name)
    }

    /// The cgroups of its init.
    #[track_caller]
    pub fn cgroups(&self) -> Cgroups {
        Cgroups::of(self.engine.sandbox().machine_pid(&self.init()))
    }

    /// Waits until its log, as the engine keeps it, contains `text`, and returns the log.
    #[track_caller]
    pub fn await_log(&self, text: &str) -> String {
        let mut log = String::new();
        let found = until(|| {
            log = self.call(&["logs"]).stdout;
            log.contains(text)
        });
        assert!(found, "expected {text:?} in the container's log:\n{log}");
        log
    }
}

impl fmt::Display for Container<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let output = self.engine.remove(&self.name);
        let left = self.engine.left_of(&self.name);
        assert!(left.is_empty() || std::thread::panicking(), "{self} left {left:#?}{output}");
    }
}
