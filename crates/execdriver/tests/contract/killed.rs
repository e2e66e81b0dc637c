use std::fs;
use std::process::Child;
use std::time::Duration;

use execdriver::{Command, ContainerId, Driver, Pipes, ProcessConfig, Signal, Status};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::common::{self, Bed, unique};
use crate::{monitor_of, role_command};

/// A daemon in a process of its own, with one container that runs until it is told to end.
struct Daemon {
    process: Child,
    id: ContainerId,
}

impl Daemon {
    fn start(bed: &Bed, memory: Option<u64>) -> Self {
        let id: ContainerId = unique().parse().unwrap();
        let mut command = role_command("daemon", bed.path(), &[]);
        command.env("ROLE_ID", id.as_str()).envs(memory.map(|bytes| ("ROLE_MEMORY", bytes.to_string())));
        Self { process: command.spawn().unwrap(), id }
    }

    /// Waits until its container runs, and returns that one's init.
    fn until_started(&mut self) -> i32 {
        let said = common::until_line(self.process.stdout.as_mut().unwrap(), "ROLE started");
        said.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn kill(mut self) -> ContainerId {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.id
    }
}

#[test]
fn row_21_clean_removes_every_trace_of_a_crash() {
    let bed = Bed::new();
    // The monitor is killed: the container goes with it, and its end is known.
    let running = bed.idle();
    let monitor = nix::unistd::Pid::from_raw(monitor_of(running.pid));
    nix::sys::signal::kill(monitor, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(running.wait().exit_code, 137);

    // The daemon is killed: its container stays, and another driver finds it and removes it.
    let mut daemon = Daemon::start(&bed, None);
    let pid = daemon.until_started();
    let id = daemon.kill();
    let info = bed.driver.info(&id).unwrap();
    assert_eq!((info.pid, info.exit_code), (Some(pid), None));
    let monitor = pidfd_open(Pid::from_raw(monitor_of(pid)).unwrap(), PidfdFlags::empty()).unwrap();
    // Nobody removes it when it ends: it is as dead as asked.
    let end = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    bed.driver.terminate(&id).unwrap();
    common::until_readable(&end, Duration::from_secs(10));
    // Its monitor leaves behind how it ended before it ends itself.
    common::until_readable(&monitor, Duration::from_secs(10));
    let info = bed.driver.info(&id).unwrap();
    assert_eq!((info.status, info.exit_code), (Status::Stopped, Some(137)));
    bed.driver.kill(&id, Signal::TERM).unwrap();
    bed.driver.terminate(&id).unwrap();
    bed.driver.clean(&id).unwrap();
    assert!(!common::lives(pid));
    common::assert_no_trace(&bed.driver, &id);
    bed.driver.clean(&id).unwrap();
}

#[test]
fn row_24_a_later_process_can_manage_it() {
    let bed = Bed::new();
    let running = bed.idle();
    let path = bed.driver.root().join(running.id.as_str()).join("state.json");
    let state: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(state["version"], 1);
    assert_eq!(state["init"]["pid"], running.pid);
    assert!(state["init"]["start_time"].is_u64());
    assert_eq!(state["cgroup"], running.id.as_str());
    let output = role_command("later", bed.path(), &[]).env("ROLE_ID", running.id.as_str()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("ROLE exec 3"), "{said}");
    assert_eq!(running.wait().exit_code, 137, "the later process has terminated it");
}

#[test]
fn row_24_a_damaged_container_hides_no_other() {
    let bed = Bed::new();
    let running = bed.idle();
    let damaged: ContainerId = "a-damaged-one".parse().unwrap();
    let directory = bed.driver.root().join(damaged.as_str());
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("state.json"), "{").unwrap();
    let listed = bed.driver.list().unwrap();
    let [Err(error), Ok(info)] = listed.as_slice() else { panic!("{listed:?}") };
    assert!(error.to_string().contains("a-damaged-one"), "{error}");
    assert_eq!(info.id, running.id);
    bed.driver.clean(&damaged).unwrap();
    assert_eq!(bed.driver.list().unwrap().len(), 1);
    running.finish();
}

#[test]
fn row_24_what_a_killed_daemon_has_begun_is_known() {
    use std::os::unix::fs::DirBuilderExt;
    let bed = Bed::new();
    let root = bed.driver.root().to_owned();
    let make =
        |id: &ContainerId, mode| fs::DirBuilder::new().mode(mode).create(root.join(id.as_str())).unwrap();
    let command = bed.sh("true").build().unwrap();
    let id = &command.id;
    make(id, 0o700);
    let directory = fs::File::open(root.join(id.as_str())).unwrap();
    // Somebody is making it, or removes it.
    let lock = rustix::fs::FlockOperation::LockExclusive;
    rustix::fs::flock(&directory, lock).unwrap();
    assert!(bed.driver.list().unwrap().is_empty());
    assert!(bed.driver.info(id).unwrap_err().is_not_found());
    drop(directory);
    // Nobody is any more.
    let listed = bed.driver.list().unwrap();
    let [Err(error)] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!(error.container(), Some(id.as_str()), "{error}");
    let error = bed.driver.info(id).unwrap_err();
    assert!(!error.is_not_found() && error.to_string().contains("was killed"), "{error}");
    assert!(bed.driver.run(&command, Pipes::null(), &mut |_| ()).unwrap_err().to_string().contains("exists"));
    bed.driver.kill(id, Signal::TERM).unwrap();
    bed.driver.terminate(id).unwrap();
    bed.driver.clean(id).unwrap();
    common::assert_no_trace(&bed.driver, id);
    // One that was just made is nobody's before it is locked.
    make(id, 0o500);
    assert!(bed.driver.list().unwrap().is_empty());
    assert!(bed.driver.info(id).unwrap_err().is_not_found());
    assert!(bed.driver.run(&command, Pipes::null(), &mut |_| ()).unwrap().success());
    make(id, 0o500);
    bed.driver.clean(id).unwrap();
    common::assert_no_trace(&bed.driver, id);
}

#[test]
fn row_24_a_daemon_may_be_killed_at_its_first_step() {
    use rustix::fs::inotify;
    let bed = Bed::new();
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, bed.driver.root(), inotify::WatchFlags::CREATE).unwrap();
    for _ in 0..10 {
        let daemon = Daemon::start(&bed, None);
        common::until_readable(&watch, Duration::from_secs(20));
        let id = daemon.kill();
        rustix::io::read(&watch, &mut [0; 4096]).unwrap();
        let listed = bed.driver.list().unwrap();
        let named = |container: &execdriver::Result<execdriver::Info>| match container {
            Ok(info) => info.id == id,
            Err(error) => error.container() == Some(id.as_str()),
        };
        let again = Command::builder(&id, bed.rootfs()).args(["true"]).build().unwrap();
        let run = || bed.driver.run(&again, Pipes::null(), &mut |_| ());
        let is_named = || bed.driver.list().unwrap().iter().any(named);
        if !listed.iter().any(named) {
            match run() {
                Ok(status) => assert!(status.success()),
                Err(error) => {
                    // A helper of the daemon's that has not ended yet holds the lock for so long.
                    if let Ok(directory) = fs::File::open(bed.driver.root().join(id.as_str())) {
                        rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive).unwrap();
                    }
                    assert!(is_named() || run().is_ok_and(|status| status.success()), "{error}");
                }
            }
        }
        bed.driver.clean(&id).unwrap();
        common::assert_no_trace(&bed.driver, &id);
    }
}

/// The example of `watch_oom` in a daemon that was started again.
#[test]
fn row_25_a_watch_ends_with_a_container_that_is_left_behind() {
    let bed = Bed::new();
    let mut daemon = Daemon::start(&bed, None);
    daemon.until_started();
    let id = daemon.kill();
    let watch = bed.driver.watch_oom(&id).unwrap();
    let mut rounds = 0;
    while bed.driver.info(&id).is_ok_and(|info| info.status != Status::Stopped) {
        if rounds == 0 {
            bed.driver.terminate(&id).unwrap();
        }
        common::until_readable(&watch, Duration::from_secs(20));
        assert!(!watch.next().unwrap(), "nobody was short of memory");
        rounds += 1;
    }
    assert!(rounds > 0, "it was not there");
    assert_eq!(bed.driver.info(&id).unwrap().status, Status::Stopped);
    bed.driver.clean(&id).unwrap();
    common::assert_no_trace(&bed.driver, &id);
}

#[test]
fn row_25_a_kill_is_known_after_the_daemon() {
    let bed = Bed::new();
    let mut daemon = Daemon::start(&bed, Some(32 << 20));
    daemon.until_started();
    assert_eq!(bed.driver.info(&daemon.id).unwrap().oom_killed, Some(false));
    let hog = bed.exec(&daemon.id, &ProcessConfig::new(["tail", "/dev/zero"]));
    assert!(hog.oom_killed, "{hog:?}");
    let id = daemon.kill();
    let info = bed.driver.info(&id).unwrap();
    assert_eq!((info.status, info.oom_killed), (Status::Running, Some(true)));
    bed.driver.clean(&id).unwrap();
    common::assert_no_trace(&bed.driver, &id);
}
