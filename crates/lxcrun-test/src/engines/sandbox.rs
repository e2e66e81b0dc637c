//! Namespaces in which an engine lives, so that the machine never notices it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::until;
use crate::{DEADLINE, Process, Runtime, cgroup};

const INIT: &str = include_str!("sandbox.sh");

/// Where daemons look for programs: last where the runtime is, which may have a shim beside it.
fn daemon_path() -> String {
    let beside = Runtime::get().path().parent().unwrap_or(Path::new("/"));
    format!("{PATH}:{}", beside.display())
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The options of unshare(1) and nsenter(1).
fn namespaces(with_systemd: bool) -> impl Iterator<Item = &'static str> {
    ["--mount", "--net", "--ipc", "--uts"].into_iter().chain((!with_systemd).then_some("--pid"))
}

/// Namespaces (pid, mount, network, IPC, UTS) in which an engine and all that it starts live.
///
/// `/run`, `/var/lib` and `/var/tmp` are empty there, and what is written to `/etc` stays there, so an engine uses
/// its default paths without meeting the machine's. When the sandbox ends, or the test process does, however
/// that dies, the kernel ends every process and mount in it; its init removes the cgroups.
///
/// Where systemd keeps the cgroups, it is asked by pids of the machine: such a sandbox has those, and is ended by systemd.
#[derive(Debug)]
pub struct Sandbox {
    name: String,
    with_systemd: bool,
    pid: u32,
    init: Mutex<Option<(Child, ChildStdin)>>,
}

impl Sandbox {
    /// Starts one; its cgroups will lie below a cgroup of its own, whose name begins with `engine`.
    pub(super) fn start(engine: &str) -> Result<Sandbox, String> {
        Sandbox::start_with(engine, false)
    }

    /// Starts one whose cgroups the machine's systemd makes, below a slice that has the sandbox's name.
    pub(super) fn with_systemd(engine: &str) -> Result<Sandbox, String> {
        Sandbox::start_with(engine, true)
    }

    fn start_with(engine: &str, with_systemd: bool) -> Result<Sandbox, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (number, id) = (COUNT.fetch_add(1, Ordering::Relaxed), std::process::id());
        // In the name of a slice, what is before a hyphen is a slice above.
        let name =
            if with_systemd { format!("{engine}_{id}_{number}") } else { format!("{engine}-{id}-{number}") };
        let mut init = Command::new("unshare")
            .args(namespaces(with_systemd))
            .args(["--fork", "bash", "-c", INIT, "sandbox", &name, &Runtime::get().to_string()])
            .args(with_systemd.then_some("systemd"))
            .env_clear()
            .env("PATH", PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start unshare: {e}"))?;
        let input = init.stdin.take().expect("piped");
        let mut pid = String::new();
        let _ = BufReader::new(init.stdout.take().expect("piped")).read_line(&mut pid);
        match pid.trim().parse() {
            Ok(pid) => Ok(Sandbox { name, with_systemd, pid, init: Mutex::new(Some((init, input))) }),
            Err(_) => {
                let mut reason = String::new();
                let _ = init.stderr.take().expect("piped").read_to_string(&mut reason);
                let _ = init.wait();
                Err(format!("cannot make a sandbox: {reason}"))
            }
        }
    }

    /// The cgroup, of every hierarchy, below which the sandbox's containers are.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cgroup that engines are told to put containers below: a path, or a slice.
    pub(super) fn cgroup_parent(&self) -> String {
        if self.with_systemd { format!("{}.slice", self.name) } else { format!("/{}", self.name) }
    }

    /// The pid of the sandbox's init, as the machine counts.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where a path of the sandbox is for us.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        Path::new("/proc")
            .join(self.pid.to_string())
            .join("root")
            .join(inside.strip_prefix("/").unwrap_or(inside))
    }

    /// Reads a file of the sandbox, `/proc/PID/…` included, with the pids that the engine knows.
    pub fn read(&self, inside: impl AsRef<Path>) -> String {
        let path = self.path(inside);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
    }

    /// Where a symbolic link of the sandbox points, e.g. `/proc/PID/ns/net`.
    pub fn read_link(&self, inside: impl AsRef<Path>) -> PathBuf {
        let path = self.path(inside);
        fs::read_link(&path).unwrap_or_else(|e| panic!("cannot read the link {}: {e}", path.display()))
    }

    /// Makes a directory for volumes, holding one file, and returns its path inside.
    pub fn volume(&self, file: &str, content: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let inside = format!("/run/volume-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        fs::create_dir(self.path(&inside)).expect("a volume's directory");
        fs::write(self.path(&inside).join(file), content).expect("a volume's file");
        inside
    }

    /// The machine's pid of a process of a container, from the sandbox's.
    #[track_caller]
    pub fn machine_pid(&self, inside: &str) -> u32 {
        if self.with_systemd {
            return inside.parse().unwrap_or_else(|_| panic!("{inside:?} is no pid"));
        }
        let ours = Process::all().into_iter().filter(|process| process.cgroups.contains(&self.name));
        let found = ours.map(|process| process.pid).find(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            pids.and_then(|pids| pids.split_whitespace().nth(1)) == Some(inside)
        });
        found.unwrap_or_else(|| panic!("no process {inside} in the cgroups of {}", self.name))
    }

    /// The pids, as the sandbox counts, of processes whose command line contains all of `parts`.
    pub fn pids_of(&self, parts: &[&str]) -> Vec<String> {
        let entries = fs::read_dir(self.path("/proc")).into_iter().flatten().flatten();
        let matches = |entry: &fs::DirEntry| {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            parts.iter().all(|part| command.contains(part))
        };
        let number =
            |entry: fs::DirEntry| entry.file_name().into_string().ok().filter(|n| n.parse::<u32>().is_ok());
        entries.filter(matches).filter_map(number).collect()
    }

    /// Kills a process inside by its pid there.
    #[track_caller]
    pub fn kill(&self, pid: &str) {
        let status = self.command("kill").args(["-KILL", pid]).status();
        assert!(status.is_ok_and(|status| status.success()), "cannot kill the process {pid}");
    }

    /// A command that runs inside, and gives up at the deadline.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.pid.to_string()])
            .args(namespaces(self.with_systemd))
            .args(["env", "--chdir=/run", "timeout", "--foreground", "--kill-after=5"])
            .args([&DEADLINE.as_secs().to_string(), program])
            .env_clear()
            .envs([("PATH", PATH), ("HOME", "/run"), ("TERM", "xterm")]);
        command
    }

    /// Starts a daemon inside and waits until `ready` says that it answers.
    pub(super) fn daemon(&self, command: &[&str], mut ready: impl FnMut() -> bool) -> Result<(), String> {
        let log = self.path(format!("/run/{}.log", command[0]));
        let file = fs::File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        // As a service where there is systemd, which then ends it with all that it has started.
        let unit = format!("--unit={}-{}.service", self.name, command[0]);
        let service = ["systemd-run", "--quiet", "--collect", "--wait", "--pipe", &unit, "nsenter"];
        let words = if self.with_systemd { service.as_slice() } else { &["nsenter"] };
        let mut daemon = Command::new(words[0])
            .args(&words[1..])
            .args(["--target", &self.pid.to_string()])
            .args(namespaces(self.with_systemd))
            // containerd leaves the images of a checkpoint in its temporary directory.
            .args(["env", "--chdir=/run", "HOME=/run", "TMPDIR=/run", &format!("PATH={}", daemon_path())])
            .args(command)
            .env_clear()
            .env("PATH", PATH)
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(|e| e.to_string())?)
            .stderr(file)
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", command[0]))?;
        let mut ended = false;
        if until(|| {
            ended = daemon.try_wait().is_ok_and(|status| status.is_some());
            ended || ready()
        }) && !ended
        {
            // It ends with the sandbox; this only reaps it.
            std::thread::spawn(move || daemon.wait());
            return Ok(());
        }
        Err(format!(
            "{} doesn't answer; its log:\n{}",
            command[0],
            fs::read_to_string(&log).unwrap_or_default()
        ))
    }

    /// What is left of the container `id`: cgroups, mounts, processes, files in `/run`.
    pub fn traces(&self, id: &str) -> Vec<String> {
        let cgroups = self.cgroups().into_iter().filter(|path| path.contains(id));
        let mounts = self.mounts().into_iter().filter(|path| path.contains(id));
        let processes = self.processes().into_iter().filter(|command| command.contains(id));
        let mut files = Vec::new();
        find(&self.path("/run"), id, 8, &mut files);
        cgroups.chain(mounts).chain(processes).chain(files).collect()
    }

    /// Everything of the sandbox that containers could leave behind.
    pub fn snapshot(&self) -> Snapshot {
        let interfaces = self.read("/proc/1/net/dev");
        Snapshot {
            mounts: self.mounts(),
            cgroups: self.cgroups(),
            processes: self.processes(),
            interfaces: interfaces
                .lines()
                .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
                .collect(),
        }
    }

    fn mounts(&self) -> BTreeSet<String> {
        let mountinfo = self.read("/proc/1/mountinfo");
        mountinfo.lines().filter_map(|line| Some(line.split(' ').nth(4)?.to_owned())).collect()
    }

    /// Wherever they are: a runtime may have put one into the wrong place.
    fn cgroups(&self) -> BTreeSet<String> {
        let names = [self.name.clone(), format!("{}.slice", self.name)];
        let ours = |path: &PathBuf| path.iter().any(|part| names.iter().any(|name| part == name.as_str()));
        cgroup::all().into_iter().filter(ours).map(|path| path.display().to_string()).collect()
    }

    fn processes(&self) -> BTreeSet<String> {
        let own = [b"timeout\0".as_slice(), b"bash\0"];
        fs::read_dir(self.path("/proc"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
            .filter(|command| !command.is_empty() && !own.iter().any(|own| command.starts_with(own)))
            .map(|command| String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " "))
            .collect()
    }

    /// Ends the sandbox, if that hasn't been done, and waits until nothing is left of it.
    pub fn end(&self) {
        let init = self.init.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some((mut init, input)) = init {
            drop(input);
            let _ = init.wait();
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.end();
    }
}

/// What [`Sandbox::snapshot`] saw; equal before and after means that nothing was left.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    processes: BTreeSet<String>,
    interfaces: BTreeSet<String>,
}

/// Collects the paths below `dir`, on its file system, whose name contains `part`.
fn find(dir: &Path, part: &str, depth: u32, found: &mut Vec<String>) {
    let Ok(device) = fs::symlink_metadata(dir).map(|metadata| metadata.dev()) else { return };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(part) {
            found.push(entry.path().display().to_string());
        }
        let below = entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.dev() == device);
        if below && depth > 0 {
            find(&entry.path(), part, depth - 1, found);
        }
    }
}
