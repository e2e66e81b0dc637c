//! Commands on one container at the same moment: each does its work or says why not, and nothing is damaged.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lxcrun_test::{Bundle, Container, Output, tests};

tests![
    of_many_creates_with_one_id_one_wins,
    of_many_starts_one_wins.not_on("runc", "1.1 may start it twice"),
    of_many_deletes_one_wins.lxcrun_only("others may stumble over what another removes"),
    kill_during_start_ends_the_container,
    state_and_list_never_fail_meanwhile.lxcrun_only("others may read what is just written or removed"),
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

/// The end of some work, also when it fails.
struct Work<'a>(&'a AtomicBool);

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
