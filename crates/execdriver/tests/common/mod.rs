//! A place for containers that looks for leaks when it is left, and containers that run beside a test.
#![allow(dead_code)] // every test program uses its own part
#![allow(clippy::unwrap_used)] // for tests

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use execdriver::{
    Command, CommandBuilder, ContainerId, Driver, ExitStatus, LxcDriver, Pipes, ProcessConfig, Result,
    Started, Terminal,
};
use nix::sched::CloneFlags;

/// How a container ended, and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub code: u8,
    pub oom_killed: bool,
    pub out: String,
    pub err: String,
}

impl Outcome {
    #[track_caller]
    pub fn assert_ok(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        self.out.trim_end()
    }
}

/// A driver with a directory of its own and an image.
pub struct Bed {
    dir: tempfile::TempDir,
    pub driver: LxcDriver,
}

impl Bed {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Users of a user namespace need to get to their root.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        make_rootfs(&dir.path().join("rootfs"));
        let driver = LxcDriver::builder().root(dir.path().join("state")).build().unwrap();
        Self { dir, driver }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// A command for a shell.
    pub fn sh(&self, script: &str) -> CommandBuilder {
        Command::builder(unique(), self.rootfs()).args(["sh", "-c", script])
    }

    pub fn try_run(&self, command: CommandBuilder) -> Result<Outcome> {
        let command = command.build()?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let pipes = Pipes::null().stdout(&mut out).stderr(&mut err);
        let status = self.driver.run(&command, pipes, &mut |_| ())?;
        assert_no_trace(&self.driver, &command.id);
        Ok(outcome(status, &out, &err))
    }

    #[track_caller]
    pub fn run(&self, command: CommandBuilder) -> Outcome {
        self.try_run(command).unwrap_or_else(|e| panic!("{e}"))
    }

    /// What a shell prints, which must end well.
    #[track_caller]
    pub fn prints(&self, script: &str) -> String {
        self.run(self.sh(script)).assert_ok().to_owned()
    }

    /// The message with which a command is refused.
    #[track_caller]
    pub fn refusal(&self, command: CommandBuilder) -> String {
        match self.try_run(command) {
            Err(error) => error.to_string(),
            Ok(outcome) => panic!("was not refused: {outcome:?}"),
        }
    }

    #[track_caller]
    pub fn start(&self, command: CommandBuilder) -> Running {
        Running::start(&self.driver, command.build().unwrap())
    }

    /// A container that prints `ready` and ends when its input does.
    #[track_caller]
    pub fn idle(&self) -> Running {
        let mut running = self.start(self.sh("echo ready; cat >/dev/null"));
        assert_eq!(running.line(), "ready");
        running
    }

    /// One more process.
    #[track_caller]
    pub fn exec(&self, id: &ContainerId, process: &ProcessConfig) -> Outcome {
        self.try_exec(id, process).unwrap_or_else(|e| panic!("{e}"))
    }

    pub fn try_exec(&self, id: &ContainerId, process: &ProcessConfig) -> Result<Outcome> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let pipes = Pipes::null().stdout(&mut out).stderr(&mut err);
        let status = self.driver.exec(id, process, pipes, &mut |_| ())?;
        Ok(outcome(status, &out, &err))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for left in self.driver.list().unwrap_or_default().into_iter().flatten() {
            let _ = self.driver.clean(&left.id);
            assert!(std::thread::panicking(), "{} was left behind", left.id);
        }
        // What liblxc keeps for a state root, which goes now.
        let _ = fs::remove_dir_all(format!("/run/lxc/lock{}", self.path().display()));
    }
}

fn outcome(status: ExitStatus, out: &[u8], err: &[u8]) -> Outcome {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome { code: status.exit_code, oom_killed: status.oom_killed, out: text(out), err: text(err) }
}

/// A container beside the test. Dropped, it is terminated.
pub struct Running {
    driver: LxcDriver,
    pub id: ContainerId,
    pub pid: i32,
    pub terminal: Option<Terminal>,
    pub stdin: Option<PipeWriter>,
    pub stdout: BufReader<PipeReader>,
    thread: Option<JoinHandle<Result<ExitStatus>>>,
}

impl Running {
    #[track_caller]
    pub fn start(driver: &LxcDriver, command: Command) -> Self {
        let id = command.id.clone();
        let (input, stdin) = std::io::pipe().unwrap();
        let (stdout, output) = std::io::pipe().unwrap();
        let (started, news) = mpsc::channel::<Started>();
        let thread = {
            let driver = driver.clone();
            std::thread::spawn(move || {
                let error = output.try_clone().unwrap();
                let pipes = Pipes::null().stdin(input).stdout(output).stderr(error);
                driver.run(&command, pipes, &mut |s| started.send(s).unwrap())
            })
        };
        match news.recv() {
            Ok(Started { pid, terminal }) => Self {
                driver: driver.clone(),
                id,
                pid,
                terminal,
                stdin: Some(stdin),
                stdout: BufReader::new(stdout),
                thread: Some(thread),
            },
            Err(_) => panic!("it did not start: {:?}", thread.join().unwrap()),
        }
    }

    /// The next line that it prints.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    #[track_caller]
    pub fn say(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> ExitStatus {
        let status = self.thread.take().unwrap().join().unwrap().unwrap_or_else(|e| panic!("{e}"));
        assert_no_trace(&self.driver, &self.id);
        status
    }

    /// Ends its input and waits for its end.
    #[track_caller]
    pub fn finish(mut self) -> ExitStatus {
        self.stdin = None;
        self.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.driver.terminate(&self.id);
            let _ = thread.join();
        }
    }
}

/// An id that no other test has.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("drv{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// An image that consists of busybox.
pub fn make_rootfs(path: &Path) {
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp", "root"] {
        fs::create_dir_all(path.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", path.join("bin/busybox")).expect("busybox-static is needed");
    for applet in std::process::Command::new("/bin/busybox").arg("--list").output().unwrap().stdout.lines() {
        let _ = symlink("busybox", path.join("bin").join(applet.unwrap()));
    }
    fs::write(path.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nwww:x:33:34::/www:/bin/sh\n").unwrap();
    fs::write(path.join("etc/group"), "root:x:0:\nwww:x:34:\nlogs:x:40:www\n").unwrap();
}

/// Every directory below /sys/fs/cgroup whose name contains `part`.
pub fn cgroups_named(part: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().contains(part) {
                found.push(entry.path());
            } else {
                todo.push(entry.path());
            }
        }
    }
    found
}

/// Nothing of a container is left.
#[track_caller]
pub fn assert_no_trace(driver: &LxcDriver, id: &ContainerId) {
    assert!(!driver.root().join(id.as_str()).exists(), "{id}: its directory is left");
    let cgroups: Vec<PathBuf> = cgroups_named(id.as_str());
    assert!(cgroups.iter().all(|c| !ends_with(c, id)), "{id}: cgroups are left: {cgroups:?}");
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!mounts.contains(&format!("/{id}/")), "{id}: mounts are left");
}

/// Whether the last part is that id, and not a longer one.
fn ends_with(path: &Path, id: &ContainerId) -> bool {
    path.file_name().is_some_and(|n| n.to_string_lossy().split('.').next_back() == Some(id.as_str()))
}

/// One value of a container's cgroup: `controller` and file of version 1, or the file of version 2.
#[track_caller]
pub fn cgroup_value(id: &ContainerId, controller: &str, v1: &str, v2: &str) -> String {
    let name = id.to_string();
    let dirs: Vec<PathBuf> = cgroups_named(&name).into_iter().filter(|d| d.ends_with(&name)).collect();
    let legacy = dirs.iter().map(|d| d.join(v1)).find(|f| f.exists());
    let file = legacy.or_else(|| dirs.iter().map(|d| d.join(v2)).find(|f| f.exists()));
    let file = file.unwrap_or_else(|| panic!("no {controller} file {v1} or {v2} in {dirs:?}"));
    fs::read_to_string(file).unwrap().trim_end().to_owned()
}

/// A link of /proc/PID/ns of this process.
pub fn own_namespace(kind: &str) -> String {
    fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap().to_string_lossy().into_owned()
}

/// Runs `body` in a thread with namespaces of its own, which end with it.
pub fn apart(flags: CloneFlags, body: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            nix::sched::unshare(flags).unwrap();
            body();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs `body` in a thread with a network of its own, as a host would have it: LXC looks for bridges in /sys, too.
pub fn apart_network(body: impl FnOnce() + Send) {
    use nix::mount::{MsFlags, mount};
    apart(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS, || {
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let sys = tempfile::tempdir().unwrap();
        mount(Some("sysfs"), sys.path(), Some("sysfs"), MsFlags::empty(), none).unwrap();
        for dir in ["class/net", "devices/virtual/net"] {
            mount(Some(&sys.path().join(dir)), &Path::new("/sys").join(dir), none, MsFlags::MS_BIND, none)
                .unwrap();
        }
        nix::mount::umount2(sys.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
        body();
    });
}

/// Whether a process is there and has not ended.
pub fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Runs a program of the host.
#[track_caller]
pub fn host(program: &str, args: &[&str]) -> std::process::Output {
    std::process::Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"))
}

#[track_caller]
pub fn ip(args: &str) {
    let args: Vec<&str> = args.split(' ').collect();
    let output = host("ip", &args);
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// One line.
pub fn line_of(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// The first line that begins like this.
#[track_caller]
pub fn until_line(reader: &mut impl std::io::Read, start: &str) -> String {
    let mut reader = BufReader::new(reader);
    loop {
        let line = line_of(&mut reader);
        if line.starts_with(start) {
            return line;
        }
    }
}

/// Waits for an event.
#[track_caller]
pub fn until_readable(fd: &impl std::os::fd::AsFd, within: std::time::Duration) {
    let deadline = rustix::event::Timespec::try_from(within).unwrap();
    let mut fds = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut fds, Some(&deadline)).unwrap(), 1, "no event came");
}

/// Whether a pipe has room.
pub fn takes_more(fd: &impl std::os::fd::AsFd) -> bool {
    let mut fds = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::OUT)];
    rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default())).unwrap() == 1
}
