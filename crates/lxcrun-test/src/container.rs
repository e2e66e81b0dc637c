//! A container: the verbs of the runtime, and the search for what it left behind.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::host::{Process, files};
use crate::runtime::Running;
use crate::{Bundle, Call, DEADLINE, Output, Runtime, cgroup, helper, wait};

/// A bundle and the container made from it, if any. All of it goes when this is dropped, and what is still
/// there after `delete --force` is a leak, which fails the test.
pub struct Container {
    bundle: Bundle,
    init: OnceLock<u32>,
    stdout: Mutex<PathBuf>,
}

impl Container {
    pub(crate) fn new(bundle: Bundle) -> Container {
        fs::create_dir_all(bundle.path("root")).expect("a state root");
        Container { bundle, init: OnceLock::new(), stdout: Mutex::default() }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.bundle.id
    }

    /// The bundle, and the directory of this test.
    pub fn dir(&self) -> &Path {
        &self.bundle.dir
    }

    /// A path in this test's own directory on the host.
    pub fn path(&self, name: &str) -> PathBuf {
        self.bundle.path(name)
    }

    /// `runtime --root … VERB`.
    pub fn call(&self, verb: &str) -> Call {
        Call::new(self.path("root")).arg(verb)
    }

    /// `runtime --root …` with these further options before the verb.
    pub fn global<'a>(&self, options: impl IntoIterator<Item = &'a OsStr>) -> Call {
        Call::new(self.path("root")).args(options)
    }

    /// `create` or `run` of this bundle, but for the id: options can follow.
    pub fn call_with_bundle(&self, verb: &str) -> Call {
        self.call(verb).host(&self.bundle.host).arg("--bundle").arg(self.dir())
    }

    /// The runtime's answer to this verb with nothing but the id.
    #[track_caller]
    pub fn verb(&self, verb: &str) -> Output {
        self.call(verb).arg(self.id()).output()
    }

    /// `create`.
    #[track_caller]
    pub fn create(&self) -> Output {
        self.create_with(|call| call)
    }

    /// `create` with more options.
    #[track_caller]
    pub fn create_with(&self, more: impl FnOnce(Call) -> Call) -> Output {
        let running = more(self.call_with_bundle("create")).arg(self.id()).spawn();
        *self.stdout.lock().expect("a path") = running.stdout_file().to_owned();
        running.wait()
    }

    /// `start`.
    #[track_caller]
    pub fn start(&self) -> Output {
        self.verb("start")
    }

    /// `run` in the foreground, after which nothing may be left.
    #[track_caller]
    pub fn run(&self) -> Output {
        self.run_with(|call| call)
    }

    /// `run` in the foreground with more options, after which nothing may be left.
    #[track_caller]
    pub fn run_with(&self, more: impl FnOnce(Call) -> Call) -> Output {
        let output = more(self.call_with_bundle("run")).arg(self.id()).output();
        self.assert_gone(&output);
        output
    }

    /// `run` in the foreground, which goes on.
    #[track_caller]
    pub fn spawn(&self, more: impl FnOnce(Call) -> Call) -> Running {
        more(self.call_with_bundle("run")).arg(self.id()).spawn()
    }

    /// `create` and `start` under a process that adopts the init as a shim would; returns how it saw it end.
    #[track_caller]
    pub fn life_under_subreaper(&self) -> String {
        let pid_file = self.path("pid");
        let create = self.call_with_bundle("create").arg("--pid-file").arg(&pid_file).arg(self.id());
        let start = self.call("start").arg(self.id());
        let output = helper::subreaper_command(&pid_file, &[create.argv(), start.argv()])
            .stdin(std::process::Stdio::null())
            .output()
            .expect("the helper");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "the helper failed\n{out}{err}");
        out.trim_end().to_owned()
    }

    /// `state`, which must work.
    #[track_caller]
    pub fn state(&self) -> Value {
        let output = self.verb("state");
        output.assert_ok();
        serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("state is no JSON: {e}{output}"))
    }

    /// The status in the state.
    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap_or_default().to_owned()
    }

    /// The init's process on the host, as the state told the first time.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        let from_state = || self.state()["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        *self.init.get_or_init(|| from_state().expect("a pid in the state"))
    }

    /// What the init sees in this file of its own /proc directory.
    #[track_caller]
    pub fn proc(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.pid());
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// The host's numbers of all processes that belong to the container, be they in it or the runtime's.
    pub fn processes_on_host(&self) -> Vec<u32> {
        self.processes().iter().map(|p| p.pid).collect()
    }

    /// `kill` with this signal.
    #[track_caller]
    pub fn kill(&self, signal: &str) -> Output {
        self.call("kill").arg(self.id()).arg(signal).output()
    }

    /// Kills the init, waits for its end, and deletes the container.
    #[track_caller]
    pub fn finish(&self) {
        self.pid();
        self.kill("KILL").assert_ok();
        self.until_stopped();
        let deleted = self.delete();
        self.assert_gone(deleted.assert_ok());
    }

    /// Waits for the end of the init.
    #[track_caller]
    pub fn until_stopped(&self) {
        wait::until_exit(self.pid());
    }

    /// `delete`.
    #[track_caller]
    pub fn delete(&self) -> Output {
        self.verb("delete")
    }

    /// `delete --force`.
    #[track_caller]
    pub fn delete_force(&self) -> Output {
        self.call("delete").arg("--force").arg(self.id()).output()
    }

    /// `exec` of this command.
    #[track_caller]
    pub fn exec<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.exec_with(&[], args)
    }

    /// `exec` of this command with these options.
    #[track_caller]
    pub fn exec_with<S: AsRef<str>>(&self, options: &[&str], args: impl IntoIterator<Item = S>) -> Output {
        let args: Vec<String> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
        self.call("exec").args(options).arg(self.id()).args(args).output()
    }

    /// What the created container has written to stdout up to now.
    pub fn stdout(&self) -> String {
        fs::read_to_string(&*self.stdout.lock().expect("a path")).expect("the stdout of create")
    }

    /// `output` is a failure that says all these `words`, and nothing is left of this container.
    #[track_caller]
    pub fn refuses(&self, output: Output, words: &[&str]) -> Output {
        output.assert_fails();
        for word in words {
            output.assert_stderr_contains(word);
        }
        if Runtime::get().is("lxcrun") {
            output.assert_stderr_contains(self.id());
        }
        self.assert_gone(&output);
        output
    }

    /// The runtime refuses to create this, says all these `words`, and leaves nothing behind.
    #[track_caller]
    pub fn refused(&self, words: &[&str]) -> Output {
        self.refuses(self.create(), words)
    }

    /// Like [`refuses`](Container::refuses), but the id is one that an error can only quote in part.
    #[track_caller]
    pub fn refuses_quoted(&self, output: Output) -> Output {
        output.assert_fails();
        assert!(!output.stderr.contains('\u{1b}'), "the error passes control characters on{output}");
        self.assert_gone(&output);
        output
    }

    /// Changes one field of the `config.json`, named by its JSON pointer, which must be there.
    #[track_caller]
    pub fn rewrite(&self, pointer: &str, value: Value) {
        let path = self.path("config.json");
        let text = fs::read_to_string(&path).expect("config.json");
        let mut spec: Value = serde_json::from_str(&text).expect("a spec");
        *spec.pointer_mut(pointer).expect("a field of the spec") = value;
        fs::write(&path, spec.to_string()).expect("config.json");
    }

    /// Nothing is left of this container: no state, process, cgroup, mount or lock.
    #[track_caller]
    pub fn assert_gone(&self, after: &Output) {
        let leaks = self.leaks();
        assert!(leaks.is_empty(), "left behind: {leaks:#?}{after}");
    }

    /// What is left of this container on the host, once the processes that are about to exit have done so.
    pub fn leaks(&self) -> Vec<String> {
        for process in self.processes() {
            wait::exits(process.pid, DEADLINE);
        }
        self.traces()
    }

    /// What there is of this container on the host.
    fn traces(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let mounts = mounts.lines().filter(|line| self.owns(line)).map(|line| format!("mount {line}"));
        let states = files(&self.path("root"));
        let locks = files(Path::new("/run/lxc"));
        // liblxc keeps an empty directory for each state root.
        let locks = locks.into_iter().filter(|path| !path.is_dir() && self.owns(&path.to_string_lossy()));
        let processes = self.processes();
        let processes = processes.iter().map(|p| format!("process {} {}: {}", p.pid, p.name, p.command));
        let cgroups = self.cgroups();
        states
            .iter()
            .map(|path| format!("state {}", path.display()))
            .chain(locks.map(|path| format!("lock {}", path.display())))
            .chain(cgroups.iter().map(|path| format!("cgroup {}", path.display())))
            .chain(mounts)
            .chain(processes)
            .collect()
    }

    /// Whether this path or text names the container.
    fn owns(&self, text: &str) -> bool {
        text.contains(&self.bundle.key) || (self.id().len() > 8 && text.contains(self.id()))
    }

    fn processes(&self) -> Vec<Process> {
        let mut all = Process::all();
        all.retain(|p| self.owns(&p.command) || self.owns(&p.cgroups));
        all
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let mut all = cgroup::all();
        all.retain(|path| self.owns(&path.to_string_lossy()));
        all
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let mut leaks = Vec::new();
        if !self.traces().is_empty() {
            let output = self.delete_force();
            leaks = self.leaks();
            if !leaks.is_empty() {
                leaks.push(output.to_string());
            }
        }
        for process in self.processes() {
            let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
            // It may have gone by itself.
            let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
            wait::exits(process.pid, DEADLINE);
        }
        // The deepest first.
        for dir in self.cgroups().iter().rev() {
            let _ = fs::remove_dir(dir);
        }
        assert!(leaks.is_empty() || std::thread::panicking(), "left behind: {leaks:#?}");
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        // Never remove files through a mount that was left behind: they are the host's.
        if !mounts.contains(&self.key) {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
