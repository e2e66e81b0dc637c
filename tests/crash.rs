//! kill -9 of `create` and of what it starts, at any moment: `delete --force` leaves nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use lxcrun_test::{Bundle, Container, Fifo, Running, pidfd, tests, until_exit};
use rustix::process::{Pid, Signal, kill_process, pidfd_send_signal};
use serde_json::json;

tests![
    killed_at_twenty_moments_create_leaves_nothing_that_delete_does_not_remove.not_on("runc", RUNC_LEAVES),
    a_monitor_killed_at_twenty_moments_leaves_nothing_that_delete_does_not_remove.lxcrun_only(MONITOR),
    an_init_killed_at_twenty_moments_leaves_nothing_that_delete_does_not_remove.lxcrun_only(MONITOR),
    killed_during_a_hook_create_leaves_nothing_that_delete_does_not_remove.not_on("runc", RUNC_LEAVES),
    killed_during_a_hook_in_the_container_create_leaves_nothing_that_delete_does_not_remove
        .not_on("runc", RUNC_LEAVES),
    killed_during_run_nothing_is_left_that_delete_does_not_remove,
    what_a_program_says_at_its_end_outlives_a_killed_run.lxcrun_only(MONITOR),
    a_killed_monitor_takes_the_container_with_it.lxcrun_only(MONITOR),
    a_crash_does_not_keep_the_id_from_being_used_again.not_on("runc", RUNC_LEAVES),
];

const RUNC_LEAVES: &str = "1.1 leaves its cgroups when it is killed before it has written its state";

const MONITOR: &str = "others have no monitor";

const MOMENTS: u32 = 20;

/// How long an undisturbed create takes: the median of five.
fn duration_of_create() -> Duration {
    let mut all: Vec<Duration> = (0..5)
        .map(|_| {
            let container = Bundle::busybox().build();
            let start = Instant::now();
            container.create().assert_ok();
            start.elapsed()
        })
        .collect();
    all.sort();
    all[2]
}

/// Deletes by force what a killed create left, after which nothing may be there.
#[track_caller]
fn delete(container: &Container, when: &str) {
    let deleted = container.delete_force();
    let leaks = container.leaks();
    assert!(leaks.is_empty(), "left behind, killed {when}: {leaks:#?}{deleted}");
    deleted.assert_ok();
}

fn killed_at_twenty_moments_create_leaves_nothing_that_delete_does_not_remove() {
    let whole = duration_of_create();
    for moment in 0..MOMENTS {
        let container = Bundle::busybox().set("/linux/cgroupsPath", json!(null)).build();
        let after = whole * moment / (MOMENTS - 1);
        let create = container.call_with_bundle("create").arg(container.id()).spawn();
        std::thread::sleep(after); // time itself is what is tried here
        create.signal(Signal::KILL);
        create.wait();
        delete(&container, &format!("after {after:?} of {whole:?}"));
    }
}

/// Kills the process that many generations below `ancestor`, if there is one now.
fn kill_below(ancestor: u32, generations: u32) -> bool {
    let child = |pid: u32| -> Option<u32> {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    };
    let find = || (0..generations).try_fold(ancestor, |pid, _| child(pid));
    let Some(pid) = find() else { return false };
    let Some(held) = pidfd(pid) else { return false };
    // The number may have been given away before it was held.
    find() == Some(pid) && pidfd_send_signal(held, Signal::KILL).is_ok()
}

/// Create may fail or have got what it needs: but it ends, in words if it fails.
fn killed_below_create(generations: u32) {
    let whole = duration_of_create();
    let mut killed = 0;
    for moment in 0..MOMENTS {
        let container = Bundle::busybox().set("/linux/cgroupsPath", json!(null)).build();
        let after = whole * moment / (MOMENTS - 1);
        let create = container.call_with_bundle("create").arg(container.id()).spawn();
        std::thread::sleep(after); // time itself is what is tried here
        killed += u32::from(kill_below(create.pid(), generations));
        let create = create.wait();
        assert!(matches!(create.code(), 0 | 1), "{create}");
        delete(&container, &format!("after {after:?} of {whole:?}"));
    }
    assert!(killed > 0, "there was nothing to kill at any of {MOMENTS} moments of {whole:?}");
}

fn a_monitor_killed_at_twenty_moments_leaves_nothing_that_delete_does_not_remove() {
    killed_below_create(1);
}

fn an_init_killed_at_twenty_moments_leaves_nothing_that_delete_does_not_remove() {
    killed_below_create(2);
}

/// A container whose hook of this kind tells that it runs, and then waits for a line from the second pipe.
fn with_blocking_hook(kind: &str) -> (Container, Fifo, Fifo) {
    let bundle = Bundle::busybox();
    let meeting = bundle.make_dir("meeting");
    let (ready, go) = (Fifo::new(meeting.join("ready")), Fifo::new(meeting.join("go")));
    let script = format!("echo ready > {}; read x < {}", ready.path().display(), go.path().display());
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] });
    (bundle.push(&format!("/hooks/{kind}"), hook).build(), ready, go)
}

fn killed_during_hook(kind: &str) {
    let (container, mut ready, mut go) = with_blocking_hook(kind);
    let create = container.call_with_bundle("create").arg(container.id()).spawn();
    assert_eq!(ready.line(), "ready");
    create.signal(Signal::KILL);
    create.wait();
    go.send("go"); // a hook is the user's program: it ends by itself
    delete(&container, kind);
}

fn killed_during_a_hook_create_leaves_nothing_that_delete_does_not_remove() {
    killed_during_hook("prestart");
    killed_during_hook("createRuntime");
}

fn killed_during_a_hook_in_the_container_create_leaves_nothing_that_delete_does_not_remove() {
    killed_during_hook("createContainer");
}

/// A container whose program is at work, its `run`, and the pipe that ends the program with code 7.
fn running() -> (Container, Running, Fifo) {
    running_as("/bin/busybox", 0)
}

/// The same as another user, by a program that is a busybox.
fn running_as(program: &str, user: u32) -> (Container, Running, Fifo) {
    let bundle = Bundle::busybox();
    let meeting = bundle.make_dir("meeting");
    let (mut ready, go) = (Fifo::new(meeting.join("ready")), Fifo::new(meeting.join("go")));
    for pipe in [&ready, &go] {
        fs::set_permissions(pipe.path(), Permissions::from_mode(0o666)).expect("a mode");
    }
    if !bundle.rootfs(program).exists() {
        fs::copy(bundle.rootfs("/bin/busybox"), bundle.rootfs(program)).expect("a copy");
        fs::set_permissions(bundle.rootfs(program), Permissions::from_mode(0o4755)).expect("a mode");
    }
    let script = "echo ready > /meeting/ready; read word < /meeting/go; exit 7";
    let bundle = bundle.bind(meeting, "/meeting", &[]).user(user, user);
    let bundle = bundle.args([program, "sh", "-c", script]).set("/process/noNewPrivileges", false);
    let container = bundle.build();
    let run = container.spawn(|call| call);
    assert_eq!(ready.line(), "ready");
    (container, run, go)
}

/// The parent of a container's init.
fn monitor(container: &Container) -> u32 {
    let status = container.proc("status");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    parent.trim().parse().expect("a pid")
}

fn what_a_program_says_at_its_end_outlives_a_killed_run() {
    let (container, run, mut go) = running();
    let monitor = monitor(&container);
    run.signal(Signal::KILL);
    run.wait();
    assert_eq!(container.status(), "running");
    go.send("go");
    until_exit(monitor);
    let exit = container.path("root").join(container.id()).join("exit");
    assert_eq!(fs::read_to_string(exit).expect("an exit code"), "7");
    delete(&container, "while it ran");
}

fn a_killed_monitor_takes_the_container_with_it() {
    // The kernel sends a signal at a parent's death, but not to who has become another user, nor to a program that has other
    // rights than who executed it (prctl(2)).
    for (program, user) in [("/bin/busybox", 0), ("/bin/busybox", 1000), ("/bin/busybox-setuid", 1000)] {
        assert_it_ends_with_its_monitor(program, user);
    }
}

fn assert_it_ends_with_its_monitor(program: &str, user: u32) {
    let (container, run, _go) = running_as(program, user);
    let monitor = Pid::from_raw(i32::try_from(monitor(&container)).expect("a pid")).expect("a pid");
    kill_process(monitor, Signal::KILL).expect("it runs");
    let run = run.wait();
    container.assert_gone(run.assert_exit(137));
}

fn killed_during_run_nothing_is_left_that_delete_does_not_remove() {
    let (container, run, _go) = running();
    run.signal(Signal::KILL);
    run.wait();
    delete(&container, "while it ran");
}

fn a_crash_does_not_keep_the_id_from_being_used_again() {
    let (container, mut ready, mut go) = with_blocking_hook("createRuntime");
    let create = container.call_with_bundle("create").arg(container.id()).spawn();
    assert_eq!(ready.line(), "ready");
    create.signal(Signal::KILL);
    create.wait();
    go.send("go");
    delete(&container, "during a hook");
    container.rewrite("/hooks", json!({}));
    container.run().assert_ok();
}
