//! `delete --force` ends a container whatever is at work on it, and whatever keeps its processes from ending.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use command_fds::{CommandFdExt, FdMapping};
use lxcrun_test::{
    Bundle, Cgroups, Container, DEADLINE, Fifo, Need, Running, hierarchies, is_v2, pidfd, readable, tests,
    until_exit,
};
use rustix::fs::inotify;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen, socket};
use serde_json::json;

tests![
    processes_that_are_frozen_in_a_cgroup_below_are_ended
        .needs(Need::CgroupV1("freezer"))
        .lxcrun_only("others give up on what is frozen below"),
    an_init_that_is_frozen_in_a_cgroup_below_is_ended
        .needs(Need::CgroupV1("freezer"))
        .lxcrun_only("others give up on what is frozen below"),
    kill_reaches_what_is_frozen_in_a_cgroup_below
        .needs(Need::CgroupV1("freezer"))
        .lxcrun_only("others thaw nothing below the container's cgroup"),
    a_paused_container_is_ended,
    a_container_whose_state_cannot_be_removed_is_ended.not_on("runc", "1.1 says nothing of it"),
    a_container_that_is_paused_meanwhile_is_ended.lxcrun_only("others may leave it frozen"),
    what_cannot_be_frozen_is_told_and_runs_on
        .needs(Need::File("/dev/fuse"))
        .needs(Need::Program("nsenter"))
        .lxcrun_only("about the words, and runc 1.1 leaves it half frozen"),
    a_container_that_somebody_waits_to_pause_is_ended
        .needs(Need::File("/dev/fuse"))
        .needs(Need::Program("nsenter"))
        .lxcrun_only("others take no care of each other"),
    what_is_resumed_below_a_frozen_cgroup_waits_for_nobody
        .needs(Need::CgroupV2)
        .lxcrun_only("about the promise to return"),
    a_frozen_cgroup_above_is_told
        .needs(Need::CgroupV1("freezer"))
        .lxcrun_only("others wait ten seconds and give up"),
    a_process_frozen_in_a_foreign_cgroup_is_told
        .needs(Need::CgroupV1("freezer"))
        .lxcrun_only("others wait ten seconds and give up"),
    a_create_that_waits_for_a_hook_is_ended.lxcrun_only("others don't know of a create at work"),
    a_create_that_waits_for_a_hook_in_the_container_is_ended
        .lxcrun_only("others don't know of a create at work"),
    a_killed_create_of_an_ordinary_user_leaves_no_init
        .for_ordinary_user()
        .lxcrun_only("others leave it behind"),
    a_start_that_waits_for_a_hook_is_ended,
    a_hook_ends_with_the_init_that_it_is_for.lxcrun_only("others wait for the hook"),
    a_socket_that_accepts_nobody_is_told.lxcrun_only("about the words, and crun waits"),
    a_hook_of_a_killed_create_is_ended.lxcrun_only("others leave it behind"),
    a_hook_of_a_killed_start_is_ended.lxcrun_only("others leave it behind"),
    a_start_that_waits_for_its_own_hook_is_ended.lxcrun_only("others leave the hook behind"),
    an_exec_at_the_same_time_is_ended.lxcrun_only("others leave cgroups behind"),
    who_forks_all_the_time_is_ended,
];

fn sleeper() -> Container {
    Bundle::busybox().args(["sleep", "1000"]).start()
}

#[track_caller]
fn ends(container: &Container) {
    let deleted = container.delete_force();
    container.assert_gone(deleted.assert_ok());
}

/// The freezer cgroup of the container.
fn freezer(container: &Container) -> PathBuf {
    let list = container.proc("cgroup");
    let path = list.lines().find_map(|line| line.split_once(":freezer:")).expect("a freezer cgroup").1;
    let hierarchy = hierarchies().iter().find(|h| h.controllers().iter().any(|c| c == "freezer"));
    hierarchy.expect("a freezer hierarchy").mount.join(&path[1..])
}

/// Puts a process into two cgroups below the container's and freezes both, as a container may that has the right to.
fn freeze_below(container: &Container, pid: u32) {
    let outer = freezer(container).join("outer");
    let inner = outer.join("inner");
    fs::create_dir_all(&inner).expect("cgroups");
    fs::write(inner.join("cgroup.procs"), pid.to_string()).expect("a process for the cgroup");
    for frozen in [&inner, &outer] {
        fs::write(frozen.join("freezer.state"), "FROZEN").expect("a frozen cgroup");
    }
}

fn processes_that_are_frozen_in_a_cgroup_below_are_ended() {
    for namespace in [true, false] {
        let bundle = if namespace { Bundle::busybox() } else { Bundle::busybox().without_namespace("pid") };
        let meeting = bundle.make_dir("meeting");
        let mut told = Fifo::new(meeting.join("told"));
        let script = "sleep 1000 & sleep 1000 & echo ready > /meeting/told; wait";
        let container = bundle.bind(meeting, "/meeting", &[]).sh(script).start();
        assert_eq!(told.line(), "ready");
        let other = container.processes_on_host().into_iter().find(|pid| *pid != container.pid());
        freeze_below(&container, other.expect("a second process"));
        ends(&container);
    }
}

fn an_init_that_is_frozen_in_a_cgroup_below_is_ended() {
    let container = sleeper();
    freeze_below(&container, container.pid());
    ends(&container);
}

fn kill_reaches_what_is_frozen_in_a_cgroup_below() {
    for all in [false, true] {
        let container = sleeper();
        freeze_below(&container, container.pid());
        let options = if all { &["--all"][..] } else { &[] };
        container.call("kill").args(options).arg(container.id()).arg("KILL").output().assert_ok();
        container.until_stopped();
        let deleted = container.delete();
        container.assert_gone(deleted.assert_ok());
    }
}

fn a_paused_container_is_ended() {
    let container = sleeper();
    container.verb("pause").assert_ok();
    ends(&container);
}

fn a_container_that_is_paused_meanwhile_is_ended() {
    for _ in 0..10 {
        let container = sleeper();
        container.pid();
        let at_work = AtomicBool::new(true);
        let deleted = thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while at_work.load(Ordering::Relaxed) {
                        container.verb("pause");
                        container.verb("resume");
                    }
                });
            }
            let deleted = container.delete_force();
            at_work.store(false, Ordering::Relaxed);
            deleted
        });
        // Only now: while they work, there are always processes that name the container.
        container.assert_gone(deleted.assert_ok());
    }
}

/// A container with a process that can be killed and not frozen: it waits for a file system whose server does not answer.
/// The server is what is returned.
fn unfreezable() -> (Container, fs::File) {
    let bundle = Bundle::busybox().args(["sleep", "1000"]);
    fs::create_dir(bundle.rootfs("served")).expect("a mount point");
    let container = bundle.start();
    let mut server = fs::File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
    let fd = FdMapping { parent_fd: server.try_clone().expect("a descriptor").into(), child_fd: 3 };
    let mut mount = Command::new("nsenter");
    mount.args(["--mount", "--target", &container.pid().to_string(), "/bin/busybox", "mount", "-i"]);
    mount.args(["-t", "fuse", "-o", "fd=3,rootmode=40000,user_id=0,group_id=0", "served", "/served"]);
    let mounted = mount.fd_mappings(vec![fd]).expect("one descriptor").output().expect("nsenter");
    assert!(mounted.status.success(), "{mounted:?}");
    // FUSE_INIT is answered, and nothing else. Source: linux/fuse.h, fuse_in_header, fuse_out_header, fuse_init_out.
    let mut request = [0; 16384];
    assert!(server.read(&mut request).expect("a request") > 16);
    let mut answer = [0; 80];
    answer[..4].copy_from_slice(&80_u32.to_ne_bytes());
    answer[8..16].copy_from_slice(&request[8..16]);
    for (place, value) in [(16, 7_u32), (20, 31), (36, 4096), (40, 1)] {
        answer[place..place + 4].copy_from_slice(&value.to_ne_bytes());
    }
    server.write_all(&answer).expect("an answer");
    container.exec_with(&["--detach"], ["cat", "/served/file"]).assert_ok();
    assert!(readable(&server, DEADLINE), "nobody asks for the file");
    (container, server)
}

/// The file that freezes the container.
fn freezer_file(container: &Container) -> PathBuf {
    let file = if is_v2() { "cgroup.freeze" } else { "freezer.state" };
    Cgroups::of(container.pid()).dir("freezer").join(file)
}

fn what_cannot_be_frozen_is_told_and_runs_on() {
    let (container, server) = unfreezable();
    container.verb("pause").assert_fails().assert_stderr_contains("cannot be frozen");
    assert_eq!(container.status(), "running");
    container.exec(["true"]).assert_ok();
    ends(&container);
    drop(server);
}

fn a_container_that_somebody_waits_to_pause_is_ended() {
    let (container, server) = unfreezable();
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).expect("inotify");
    inotify::add_watch(&watch, freezer_file(&container), inotify::WatchFlags::MODIFY).expect("a watch");
    let pause = container.call("pause").arg(container.id()).spawn();
    assert!(readable(&watch, DEADLINE), "nothing is frozen");
    let deleted = container.delete_force();
    // It may have come to its end, or to that of the container.
    pause.wait();
    container.assert_gone(deleted.assert_ok());
    drop(server);
}

fn what_is_resumed_below_a_frozen_cgroup_waits_for_nobody() {
    let parent = format!("{}-resumed", lxcrun_test::cgroup_parent());
    let bundle = Bundle::busybox();
    let path = format!("{parent}/{}", bundle.key());
    let container = bundle.set("/linux/cgroupsPath", path.as_str()).args(["sleep", "1000"]).start();
    let own = Cgroups::of(container.pid()).dir("freezer");
    let above = own.parent().expect("a cgroup above").to_owned();
    container.verb("pause").assert_ok();
    fs::write(above.join("cgroup.freeze"), "1").expect("a frozen cgroup");
    let resumed = container.verb("resume");
    let killed = container.kill("KILL");
    fs::write(above.join("cgroup.freeze"), "0").expect("a thawed cgroup");
    resumed.assert_ok();
    killed.assert_ok();
    ends(&container);
    // It was made on the way, and belongs to nobody.
    fs::remove_dir(&above).expect("the cgroup above is empty");
}

fn a_process_frozen_in_a_foreign_cgroup_is_told() {
    let container = Bundle::busybox().args(["sleep", "1000"]).start();
    let own = freezer(&container);
    let pid = container.pid().to_string();
    let foreign = own.with_file_name(format!("lxcrun-test-foreign-{pid}"));
    fs::create_dir(&foreign).expect("a cgroup");
    fs::write(foreign.join("cgroup.procs"), &pid).expect("a process moved");
    fs::write(foreign.join("freezer.state"), "FROZEN").expect("a frozen cgroup");
    let deleted = container.delete_force();
    fs::write(foreign.join("freezer.state"), "THAWED").expect("a thawed cgroup");
    deleted.assert_fails().assert_stderr_contains("is frozen in").assert_stderr_contains(&pid);
    ends(&container);
    fs::remove_dir(&foreign).expect("the cgroup is empty");
}

fn a_frozen_cgroup_above_is_told() {
    let parent = format!("{}-frozen", lxcrun_test::cgroup_parent());
    let bundle = Bundle::busybox();
    let path = format!("{parent}/{}", bundle.key());
    let container = bundle.set("/linux/cgroupsPath", path.as_str()).args(["sleep", "1000"]).start();
    let above = freezer(&container).parent().expect("a cgroup above").to_owned();
    fs::write(above.join("freezer.state"), "FROZEN").expect("a frozen cgroup");
    let deleted = container.delete_force();
    fs::write(above.join("freezer.state"), "THAWED").expect("a thawed cgroup");
    deleted.assert_fails().assert_stderr_contains("a cgroup above");
    ends(&container);
    // It was made on the way, and belongs to nobody.
    let above = hierarchies().iter().map(|h| h.mount.join(&parent[1..])).filter(|dir| dir.exists());
    above.for_each(|dir| fs::remove_dir(dir).expect("the cgroup above is empty"));
}

/// A container whose hook of this kind tells that it runs and then hangs.
fn with_hanging_hook(kind: &str) -> (Container, Fifo) {
    hanging_in(Bundle::busybox(), kind, "exec sleep 1000")
}

/// The same in this bundle, with a hook that hangs so.
fn hanging_in(bundle: Bundle, kind: &str, hang: &str) -> (Container, Fifo) {
    let meeting = bundle.make_dir("meeting");
    let ready = Fifo::new(meeting.join("ready"));
    let place = meeting.to_str().expect("UTF-8").to_owned();
    let script = format!("echo ready > {place}/ready; {hang}");
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] });
    let bundle = bundle.bind(meeting, &place, &[]).push(&format!("/hooks/{kind}"), hook);
    (bundle.args(["sleep", "1000"]).build(), ready)
}

fn hanging_create(kind: &str) -> (Container, Running) {
    let (container, mut ready) = with_hanging_hook(kind);
    let create = container.call_with_bundle("create").arg(container.id()).spawn();
    assert_eq!(ready.line(), "ready");
    (container, create)
}

fn a_create_that_waits_for_a_hook_is_ended() {
    for kind in ["prestart", "createRuntime"] {
        let (container, create) = hanging_create(kind);
        ends(&container);
        create.wait().assert_fails().assert_stderr_contains("hook");
    }
}

fn a_create_that_waits_for_a_hook_in_the_container_is_ended() {
    let (container, create) = hanging_create("createContainer");
    ends(&container);
    create.wait().assert_fails().assert_stderr_contains(container.id());
}

/// Without a cgroup its processes can be found by the state alone.
fn a_killed_create_of_an_ordinary_user_leaves_no_init() {
    let own = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    let bundle = Bundle::busybox()
        .namespace("user", None)
        .set("/linux/uidMappings", own(rustix::process::geteuid().as_raw()))
        .set("/linux/gidMappings", own(rustix::process::getegid().as_raw()))
        .without_mount("/dev/pts")
        .edit(|spec| drop(spec["linux"].as_object_mut().expect("an object").remove("resources")));
    // The shell stays, and its command line names the container.
    let (container, mut ready) = hanging_in(bundle, "createContainer", "sleep 1000; :");
    let create = container.call_with_bundle("create").arg(container.id()).spawn();
    assert_eq!(ready.line(), "ready");
    create.signal(rustix::process::Signal::KILL);
    create.wait();
    ends(&container);
}

fn a_start_that_waits_for_a_hook_is_ended() {
    let (container, mut ready) = with_hanging_hook("startContainer");
    container.create().assert_ok();
    container.pid();
    let start = container.call("start").arg(container.id()).spawn();
    assert_eq!(ready.line(), "ready");
    ends(&container);
    start.wait();
}

fn a_hook_ends_with_the_init_that_it_is_for() {
    let (container, create) = hanging_create("createRuntime");
    let init = container.processes_on_host().into_iter().find(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
    });
    let init = rustix::process::Pid::from_raw(init.expect("an init").cast_signed()).expect("a pid");
    rustix::process::kill_process(init, rustix::process::Signal::KILL).expect("a signal to the init");
    let created = create.wait();
    container.refuses(created, &["hook"]);
}

/// A listening socket whose queue holds one client, who is there.
fn full_socket(path: &Path) -> [OwnedFd; 2] {
    let address = SocketAddrUnix::new(path).expect("a short path");
    let socket = || socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
    let (listener, client) = (socket(), socket());
    bind(&listener, &address).expect("an address");
    listen(&listener, 0).expect("a listener");
    connect(&client, &address).expect("a connection");
    [listener, client]
}

fn a_socket_that_accepts_nobody_is_told() {
    for (option, terminal) in [("--console-socket", true), ("--pidfd-socket", false)] {
        let container = Bundle::busybox().set("/process/terminal", terminal).build();
        let path = container.path("socket");
        let _full = full_socket(&path);
        let created = container.create_with(|call| call.arg(option).arg(&path));
        container.refuses(created, &["queue is full", path.to_str().expect("UTF-8")]);
    }
}

/// A container whose hook of this kind has begun a sleep, which its shell waits for, and the pid of that.
fn with_hook_in_the_background(kind: &str, verb: &str) -> (Container, Running, u32) {
    let bundle = Bundle::busybox();
    let ready = bundle.path("meeting/ready").display().to_string();
    let (container, mut told) = hanging_in(bundle, kind, &format!("sleep 1000 & echo $! > {ready}; wait"));
    if verb == "start" {
        container.create().assert_ok();
    }
    let call = if verb == "start" { container.call(verb) } else { container.call_with_bundle(verb) };
    let waiting = call.arg(container.id()).spawn();
    assert_eq!(told.line(), "ready");
    let pid = told.line().parse().expect("a pid");
    (container, waiting, pid)
}

fn ended_after_a_kill(kind: &str, verb: &str) {
    let (container, killed, sleep) = with_hook_in_the_background(kind, verb);
    killed.signal(rustix::process::Signal::KILL);
    killed.wait();
    ends(&container);
    until_exit(sleep);
}

fn a_hook_of_a_killed_create_is_ended() {
    ended_after_a_kill("createRuntime", "create");
}

fn a_hook_of_a_killed_start_is_ended() {
    ended_after_a_kill("poststart", "start");
}

fn a_start_that_waits_for_its_own_hook_is_ended() {
    let (container, start, sleep) = with_hook_in_the_background("poststart", "start");
    container.delete_force().assert_ok();
    until_exit(sleep);
    start.wait().assert_fails().assert_stderr_contains("hook");
    container.assert_gone(&container.delete_force());
}

fn an_exec_at_the_same_time_is_ended() {
    for _ in 0..10 {
        let container = sleeper();
        container.pid();
        let execs: Vec<Running> = (0..4)
            .map(|_| container.call("exec").arg(container.id()).args(["sleep", "1000"]).spawn())
            .collect();
        ends(&container);
        for exec in execs {
            exec.wait().assert_fails();
        }
        container.assert_gone(&container.delete_force());
    }
}

fn a_container_whose_state_cannot_be_removed_is_ended() {
    let container = sleeper();
    let init = pidfd(container.pid()).expect("it runs");
    let root = container.path("root");
    let read_only = format!("mount --bind {0} {0}; mount -o remount,bind,ro {0}", root.display());
    let deleted = container.call("delete").host(read_only).args(["--force", container.id()]).output();
    deleted.assert_fails().assert_stderr_contains("read-only");
    assert!(readable(&init, DEADLINE), "it lives on{deleted}");
    container.assert_gone(container.delete_force().assert_ok());
}

fn who_forks_all_the_time_is_ended() {
    let bundle = Bundle::busybox().without_namespace("pid");
    let meeting = bundle.make_dir("meeting");
    let mut told = Fifo::new(meeting.join("told"));
    // Each generation is gone when the next one is there: whoever lists them sees those of before.
    let script = "f() { f & }; echo ready > /meeting/told; f; f; exit";
    let container = bundle.bind(meeting, "/meeting", &[]).sh(script).start();
    assert_eq!(told.line(), "ready");
    ends(&container);
}
