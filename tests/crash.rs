//! kill -9 of `create`, at any moment: `delete --force` leaves nothing.

use std::time::{Duration, Instant};

use lxcrun_test::{Bundle, Container, Fifo, tests};
use rustix::process::Signal;
use serde_json::json;

tests![
    killed_at_twenty_moments_create_leaves_nothing_that_delete_does_not_remove.not_on("runc", RUNC_LEAVES),
    killed_during_a_hook_create_leaves_nothing_that_delete_does_not_remove.not_on("runc", RUNC_LEAVES),
    killed_during_a_hook_in_the_container_create_leaves_nothing_that_delete_does_not_remove
        .not_on("runc", RUNC_LEAVES),
    killed_during_run_nothing_is_left_that_delete_does_not_remove,
    a_crash_does_not_keep_the_id_from_being_used_again.not_on("runc", RUNC_LEAVES),
];

const RUNC_LEAVES: &str = "1.1 leaves its cgroups when it is killed before it has written its state";

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

fn killed_during_run_nothing_is_left_that_delete_does_not_remove() {
    let bundle = Bundle::busybox();
    let meeting = bundle.make_dir("meeting");
    let mut ready = Fifo::new(meeting.join("ready"));
    let container =
        bundle.bind(meeting, "/meeting", &[]).sh("echo ready > /meeting/ready; sleep 1000").build();
    let run = container.spawn(|call| call);
    assert_eq!(ready.line(), "ready");
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
