//! Commands on one container at the same moment: each does its work or says why not, and nothing is damaged.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lxcrun_test::{Bundle, Call, Container, Fifo, Output, tests};
use rustix::fs::{FlockOperation, flock, inotify};
use serde_json::json;

tests![
    of_many_creates_with_one_id_one_wins,
    of_many_starts_one_wins.not_on("runc", "1.1 may start it twice"),
    of_many_deletes_one_wins.lxcrun_only("others may stumble over what another removes"),
    kill_during_start_ends_the_container,
    a_start_during_create_waits_for_it.lxcrun_only("others know no container yet"),
    state_and_list_never_fail_meanwhile.lxcrun_only("others may read what is just written or removed"),
    a_finished_run_spares_who_has_taken_its_id.lxcrun_only("others take the id for the container"),
    a_late_delete_spares_who_has_taken_the_id.lxcrun_only("about the lock"),
    creates_and_deletes_of_one_id_damage_nothing.lxcrun_only("others may stumble over what another removes"),
    of_many_creates_in_one_cgroup_one_wins.lxcrun_only("others share it"),
    containers_of_one_id_in_two_roots_have_cgroups_of_their_own.lxcrun_only("others share it"),
];

const ROUNDS: usize = 5;
const AT_ONCE: usize = 4;

/// Calls `command` from several threads at the same moment.
fn at_once(command: impl Fn() -> Output + Sync) -> Vec<Output> {
    let together = Barrier::new(AT_ONCE);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                scope.spawn(|| {
                    together.wait();
                    command()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

/// One of them has done it, the others say why not.
#[track_caller]
fn one_wins(outputs: &[Output], reasons: &[&str]) {
    let winners = outputs.iter().filter(|output| output.code() == 0).count();
    let all = || outputs.iter().map(ToString::to_string).collect::<String>();
    assert_eq!(winners, 1, "{}", all());
    for loser in outputs.iter().filter(|output| output.code() != 0) {
        loser.assert_fails();
        assert!(reasons.iter().any(|reason| loser.stderr.contains(reason)), "{loser}");
    }
}

fn sleeper() -> Bundle {
    Bundle::busybox().args(["sleep", "1000"])
}

#[track_caller]
fn ends(container: &Container) {
    let deleted = container.delete_force();
    container.assert_gone(deleted.assert_ok());
}

fn of_many_creates_with_one_id_one_wins() {
    for _ in 0..ROUNDS {
        let container = sleeper().build();
        one_wins(&at_once(|| container.create()), &["exist"]);
        assert_eq!(container.status(), "created");
        ends(&container);
    }
}

fn of_many_starts_one_wins() {
    for _ in 0..ROUNDS {
        let container = sleeper().create();
        container.pid();
        one_wins(&at_once(|| container.start()), &["running"]);
        assert_eq!(container.status(), "running");
        ends(&container);
    }
}

fn of_many_deletes_one_wins() {
    for _ in 0..ROUNDS {
        let container = Bundle::busybox().start();
        container.until_stopped();
        let outputs = at_once(|| container.delete());
        one_wins(&outputs, &["not exist"]);
        container.assert_gone(&outputs[0]);
    }
    let container = sleeper().start();
    for output in at_once(|| container.delete_force()) {
        container.assert_gone(output.assert_ok());
    }
}

fn kill_during_start_ends_the_container() {
    for _ in 0..ROUNDS {
        let container = sleeper().create();
        container.pid();
        thread::scope(|scope| {
            scope.spawn(|| container.start());
            container.kill("KILL").assert_ok();
        });
        container.until_stopped();
        assert_eq!(container.status(), "stopped");
        let deleted = container.delete();
        container.assert_gone(deleted.assert_ok());
    }
}

fn state_and_list_never_fail_meanwhile() {
    let container = sleeper().build();
    let working = AtomicBool::new(true);
    thread::scope(|scope| {
        let looking = scope.spawn(|| {
            while working.load(Ordering::Relaxed) {
                let state = container.verb("state");
                assert!(state.code() == 0 || state.stderr.contains("not exist"), "{state}");
                container.call("list").output().assert_ok();
            }
        });
        let work = Work(&working);
        for _ in 0..ROUNDS {
            container.create().assert_ok();
            container.start().assert_ok();
            container.verb("pause").assert_ok();
            container.delete_force().assert_ok();
        }
        drop(work);
        looking.join().expect("state and list");
    });
}

fn a_finished_run_spares_who_has_taken_its_id() {
    let script = "head -c 300000 /dev/zero | tr '\\0' x; sleep 1000";
    let container = Bundle::busybox().sh(script).set("/process/terminal", true).build();
    let (mut output, stdout) = std::io::pipe().expect("a pipe");
    let (stdin, _input) = std::io::pipe().expect("a pipe");
    let stderr = std::fs::File::create(container.path("err")).expect("a file");
    let run = container.spawn(|call| call.stdio(stdin, stdout, stderr));
    // It prints, and nobody reads: `run` can't go on until somebody does.
    assert!(lxcrun_test::readable(&output, lxcrun_test::DEADLINE), "nothing is printed");
    container.delete_force().assert_ok();
    container.rewrite("/process/terminal", false.into());
    container.rewrite("/process/args", serde_json::json!(["sleep", "1000"]));
    container.create().assert_ok();
    container.start().assert_ok();
    std::io::copy(&mut output, &mut std::io::sink()).expect("the output");
    run.wait();
    assert_eq!(container.status(), "running");
    ends(&container);
}

/// We are the other delete, which has the lock and removes the container.
fn a_late_delete_spares_who_has_taken_the_id() {
    let container = Bundle::busybox().start();
    container.until_stopped();
    let path = container.path("root").join(container.id());
    let directory = std::fs::File::open(&path).expect("the container's directory");
    flock(&directory, FlockOperation::LockExclusive).expect("the lock");
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).expect("inotify");
    inotify::add_watch(&watch, &path, inotify::WatchFlags::OPEN).expect("a watch");
    let late = container.call("delete").arg(container.id()).spawn();
    assert!(lxcrun_test::readable(&watch, lxcrun_test::DEADLINE), "nobody deletes it");
    let elsewhere = container.path("elsewhere");
    std::fs::create_dir(&elsewhere).expect("a state root");
    std::fs::rename(&path, elsewhere.join(container.id())).expect("a directory to move");
    container.rewrite("/process/args", serde_json::json!(["sleep", "1000"]));
    container.create().assert_ok();
    container.start().assert_ok();
    flock(&directory, FlockOperation::Unlock).expect("the lock");
    late.wait().assert_fails().assert_stderr_contains("not exist");
    assert_eq!(container.status(), "running");
    Call::new(elsewhere).arg("delete").arg(container.id()).output().assert_ok();
    ends(&container);
}

/// Clients that follow `state` may call it as soon as there is a container.
fn a_start_during_create_waits_for_it() {
    let bundle = sleeper();
    let (mut told, mut may_go_on) = (Fifo::new(bundle.path("told")), Fifo::new(bundle.path("go-on")));
    let script = format!("echo here >{}; read x <{}", told.path().display(), may_go_on.path().display());
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    let container = bundle.set("/hooks/createRuntime", hook).build();
    let create = container.call_with_bundle("create").arg(container.id()).spawn();
    told.line();
    assert_eq!(container.status(), "creating");
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).expect("inotify");
    let state = container.path("root").join(container.id()).join("state.json");
    inotify::add_watch(&watch, &state, inotify::WatchFlags::OPEN).expect("a watch");
    let start = container.call("start").arg(container.id()).spawn();
    // It has what was written before the container was complete.
    assert!(lxcrun_test::readable(&watch, lxcrun_test::DEADLINE), "nobody starts it");
    may_go_on.send("");
    create.wait().assert_ok();
    start.wait().assert_ok();
    assert_eq!(container.status(), "running");
    ends(&container);
}

fn creates_and_deletes_of_one_id_damage_nothing() {
    let container = sleeper().build();
    let working = AtomicBool::new(true);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while working.load(Ordering::Relaxed) {
                    container.delete_force().assert_ok();
                }
            });
        }
        let work = Work(&working);
        for _ in 0..10 * ROUNDS {
            let created = container.create();
            let told =
                ["already exists", "being deleted", "ended early", "has ended", "does not listen", "is gone"];
            let reason = told.iter().any(|told| created.stderr.contains(told));
            assert!(created.code() == 0 || reason, "{created}");
        }
        drop(work);
    });
    ends(&container);
}

fn of_many_creates_in_one_cgroup_one_wins() {
    for _ in 0..ROUNDS {
        for verb in ["create", "run"] {
            let first = sleeper();
            let path = format!("{}/{}", lxcrun_test::cgroup_parent(), first.key());
            let containers: Vec<Container> = std::iter::once(first)
                .chain((1..AT_ONCE).map(|_| sleeper()))
                .map(|bundle| bundle.set("/linux/cgroupsPath", path.as_str()).build())
                .collect();
            assert_alone(&containers, verb);
        }
    }
}

/// One of them comes up, and lives when the others are deleted.
fn assert_alone(containers: &[Container], verb: &str) {
    let detach = if verb == "run" { &["--detach"][..] } else { &[] };
    let create =
        |container: &Container| container.call_with_bundle(verb).args(detach).arg(container.id()).output();
    let outputs: Vec<Output> = thread::scope(|scope| {
        let threads: Vec<_> =
            containers.iter().map(|container| scope.spawn(move || create(container))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    one_wins(&outputs, &["cgroupsPath"]);
    let (winner, losers): (Vec<_>, Vec<_>) =
        containers.iter().zip(&outputs).partition(|(_, output)| output.code() == 0);
    for (loser, _) in losers {
        loser.delete_force().assert_ok();
    }
    let status = if verb == "run" { "running" } else { "created" };
    assert_eq!(winner[0].0.status(), status);
    ends(winner[0].0);
}

fn containers_of_one_id_in_two_roots_have_cgroups_of_their_own() {
    for _ in 0..ROUNDS {
        let first = sleeper().set("/linux/cgroupsPath", serde_json::Value::Null);
        let id = format!("same-{}", first.key());
        let second = sleeper().set("/linux/cgroupsPath", serde_json::Value::Null);
        let containers = [first.id(&id).build(), second.id(&id).build()];
        thread::scope(|scope| {
            for container in &containers {
                scope.spawn(move || container.create().assert_ok().code());
            }
        });
        let cgroups = containers.each_ref().map(|container| container.proc("cgroup"));
        assert!(cgroups[0].lines().zip(cgroups[1].lines()).all(|(one, other)| one != other), "{cgroups:?}");
        containers[0].delete_force().assert_ok();
        assert_eq!(containers[1].status(), "created");
        ends(&containers[1]);
    }
}

/// The end of some work, also when it fails.
struct Work<'a>(&'a AtomicBool);

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
