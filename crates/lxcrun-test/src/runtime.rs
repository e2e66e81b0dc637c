//! The runtime under test, and one call of it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::Signal;

use crate::wait::{DEADLINE, pidfd, readable};
use crate::{Output, cgroup};

/// The runtime under test: `$RUNTIME` (a path, or a name on the PATH), else the lxcrun built beside the tests.
#[derive(Debug)]
pub struct Runtime {
    path: PathBuf,
    name: String,
}

impl Runtime {
    /// The one of this run.
    pub fn get() -> &'static Runtime {
        static RUNTIME: OnceLock<Runtime> = OnceLock::new();
        RUNTIME.get_or_init(|| {
            let path = match std::env::var_os("RUNTIME").filter(|v| !v.is_empty()) {
                Some(name) => on_path(&name).unwrap_or_else(|| panic!("RUNTIME: no program {name:?}")),
                None => {
                    let ours = std::env::current_exe().expect("our path");
                    ours.ancestors().nth(2).expect("target/<profile>").join("lxcrun")
                }
            };
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Runtime { path, name }
        })
    }

    /// Whether the program is called `name`.
    pub fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// The program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// lxcrun's containerd shim, which is built beside it.
    pub fn shim(&self) -> Option<PathBuf> {
        on_path(self.path.with_file_name("containerd-shim-lxcrun-v2"))
    }

    /// What has to be done to the host, in a mount namespace of our own, for this runtime to work at all.
    fn host_script(&self) -> &'static str {
        // crun refuses a cgroup2 mount beside cgroup v1 ones.
        if self.is("crun") && cgroup::is_hybrid() { "umount /sys/fs/cgroup/unified;" } else { "" }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// Finds a program as a shell would.
pub fn on_path(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let name = Path::new(name.as_ref());
    let is_program =
        |p: &Path| p.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if name.components().count() > 1 {
        return fs::canonicalize(name).ok().filter(|p| is_program(p));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| is_program(p))
}

/// A call of the runtime, to be built up and then run.
pub struct Call {
    root: PathBuf,
    args: Vec<OsString>,
    host: String,
    stdio: Option<Stdio3>,
    fds: Vec<FdMapping>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
}

struct Stdio3(Stdio, Stdio, Stdio);

impl Call {
    /// `runtime --root ROOT …`; what it prints is kept in files beside `root`.
    pub fn new(root: impl Into<PathBuf>) -> Call {
        let root = root.into();
        let args = vec!["--root".into(), root.clone().into_os_string()];
        Call { root, args, host: String::new(), stdio: None, fds: Vec::new(), env: Vec::new(), dir: None }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Call {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Call {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the runtime's own environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Call {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Runs it in this directory.
    #[must_use]
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Call {
        self.dir = Some(dir.into());
        self
    }

    /// Runs `script` (of sh) before the runtime, in a private mount namespace that the runtime then gets.
    #[must_use]
    pub fn host(mut self, script: impl AsRef<str>) -> Call {
        self.host = script.as_ref().to_owned();
        self
    }

    /// Gives the runtime these three, for itself and the container.
    #[must_use]
    pub fn stdio(mut self, stdin: impl Into<Stdio>, out: impl Into<Stdio>, err: impl Into<Stdio>) -> Call {
        self.stdio = Some(Stdio3(stdin.into(), out.into(), err.into()));
        self
    }

    /// Opens `fd` as number `number` in the runtime.
    #[must_use]
    pub fn fd(mut self, number: i32, fd: impl Into<OwnedFd>) -> Call {
        self.fds.push(FdMapping { parent_fd: fd.into(), child_fd: number });
        self
    }

    /// The whole command line.
    pub fn argv(&self) -> Vec<OsString> {
        let runtime = Runtime::get();
        let script = format!("{}{}", runtime.host_script(), self.host);
        let mut argv: Vec<OsString> = Vec::new();
        if !script.is_empty() {
            let script = format!("set -e; {script}\nexec \"$0\" \"$@\"");
            argv.extend(["unshare", "-m", "--propagation", "private", "sh", "-c"].map(OsString::from));
            argv.push(script.into());
        }
        argv.push(runtime.path.clone().into_os_string());
        argv.extend(self.args.iter().cloned());
        argv
    }

    /// Starts it.
    #[track_caller]
    pub fn spawn(self) -> Running {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let argv = self.argv();
        let line = argv.iter().map(|a| quoted(&a.to_string_lossy())).collect::<Vec<_>>().join(" ");
        let beside = self.root.parent().expect("root has a parent");
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let [out, err] = ["out", "err"].map(|name| beside.join(format!("{number}.{name}")));

        let Stdio3(stdin, stdout, stderr) = self.stdio.unwrap_or_else(|| {
            let file = |path| Stdio::from(File::create(path).expect("a file for the output"));
            Stdio3(Stdio::null(), file(&out), file(&err))
        });
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).envs(self.env).stdin(stdin).stdout(stdout).stderr(stderr);
        if let Some(dir) = self.dir {
            command.current_dir(dir);
        }
        command.fd_mappings(self.fds).expect("fds that differ");
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot run {line}: {e}"));
        Running { child, line, root: self.root, out, err }
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn output(self) -> Output {
        self.spawn().wait()
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A call that may still run.
pub struct Running {
    child: Child,
    line: String,
    root: PathBuf,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let fd = pidfd(self.pid()).expect("our child");
        rustix::process::pidfd_send_signal(fd, signal).expect("a signal to our child");
    }

    /// Runs `script` (of sh) in its mount namespace.
    #[track_caller]
    pub fn in_mount_namespace(&self, script: &str) -> Output {
        let target = self.pid().to_string();
        let output =
            Command::new("nsenter").args(["--mount", "--target", &target, "sh", "-c", script]).output();
        Output::new(script, &output.expect("nsenter"))
    }

    /// Waits for its end; past the deadline it is killed, which fails the test.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        let ended = pidfd(self.pid()).is_none_or(|fd| readable(fd, DEADLINE));
        if !ended {
            self.child.kill().expect("kill our child");
        }
        let status = self.child.wait().expect("our child");
        let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let output = Output {
            status,
            stdout: text(&self.out),
            stderr: text(&self.err),
            log: logs(&self.root),
            command: self.line,
        };
        assert!(ended, "it still ran after {DEADLINE:?}{output}");
        output
    }

    /// The file that its stdout goes to, and that of the container if it created one.
    pub fn stdout_file(&self) -> &Path {
        &self.out
    }
}

/// All `*.log` files of the containers below `root`.
fn logs(root: &Path) -> String {
    let mut text = String::new();
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    for file in entries(root).flat_map(|container| entries(&container).collect::<Vec<_>>()) {
        if file.extension().is_some_and(|e| e == "log") {
            text += &format!("{}:\n{}", file.display(), fs::read_to_string(&file).unwrap_or_default());
        }
    }
    text
}
