//! kill -9 of any command at any moment: `delete --force` leaves nothing.
//!
//! A moment is a system call of the command: strace(1) notes all of them once, and then kills the command at one of them
//! after the other, spread over its whole life. No clock is involved.

use std::collections::HashMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use lxcrun_test::{Bundle, Call, Container, DEADLINE, Need, pidfd, readable, tests};

const STRACE: Need = Need::Program("strace");

tests![
    create_can_be_killed_at_any_moment.needs(STRACE).lxcrun_only(OTHERS_LEAVE),
    start_can_be_killed_at_any_moment.needs(STRACE).lxcrun_only(OTHERS_LEAVE),
    run_can_be_killed_at_any_moment.needs(STRACE).lxcrun_only(OTHERS_LEAVE),
    exec_can_be_killed_at_any_moment.needs(STRACE).lxcrun_only(OTHERS_LEAVE),
    pause_can_be_killed_at_any_moment.needs(STRACE).lxcrun_only(OTHERS_LEAVE),
    resume_can_be_killed_at_any_moment.needs(STRACE).lxcrun_only(OTHERS_LEAVE),
    update_can_be_killed_at_any_moment.needs(STRACE).lxcrun_only(OTHERS_LEAVE),
    kill_can_be_killed_at_any_moment.needs(STRACE).lxcrun_only(OTHERS_LEAVE),
    delete_can_be_killed_at_any_moment.needs(STRACE).lxcrun_only(OTHERS_LEAVE),
    delete_by_force_can_be_killed_at_any_moment.needs(STRACE).lxcrun_only(OTHERS_LEAVE),
    an_init_killed_while_it_tells_of_its_network_ends_create
        .needs(STRACE)
        .lxcrun_only("others have no liblxc"),
];

const OTHERS_LEAVE: &str = "killed early, others leave cgroups that nothing tells them of";

/// How many moments are tried, and how many of them must be met: two runs do not make quite the same calls.
const MOMENTS: usize = 24;
const MET: usize = 20;

/// The `count`th call of `name`.
type Moment = (String, usize);

/// Runs the command of `call` under strace with these options, and returns the trace.
fn strace(options: &[&str], call: &Call, trace: &Path) -> String {
    let status = command(options, call, trace).status().expect("strace");
    assert!(status.success() || status.signal() == Some(9), "{status}: {:?}", call.argv());
    fs::read_to_string(trace).expect("strace has written it")
}

fn command(options: &[&str], call: &Call, trace: &Path) -> Command {
    let mut command = Command::new("strace");
    command.arg("-o").arg(trace).args(options).args(call.argv());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Moments all over this trace.
fn moments(trace: &str) -> Vec<Moment> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut all: Vec<Moment> = Vec::new();
    for name in trace.lines().filter_map(|line| Some(line.split_once('(')?.0)) {
        if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            let count = counts.entry(name).or_default();
            *count += 1;
            all.push((name.to_owned(), *count));
        }
    }
    (0..MOMENTS).map(|i| all[i * (all.len() - 1) / (MOMENTS - 1)].clone()).collect()
}

/// Kills the command at moments of its life, each time on a new container, which is then deleted by force.
fn killed(container: fn() -> Container, call: fn(&Container) -> Call) {
    at_moments(container, |container, options| strace(options, &call(container), &container.path("trace")));
}

fn at_moments(container: fn() -> Container, run: impl Fn(&Container, &[&str]) -> String) {
    let noted = container();
    let moments = moments(&run(&noted, &[]));
    ends(&noted, "not at all");
    let mut met = 0;
    for (name, count) in moments {
        let container = container();
        let (trace, inject) =
            (format!("trace=execve,{name}"), format!("inject={name}:signal=KILL:when={count}"));
        let trace = run(&container, &["-e", &trace, "-e", &inject]);
        met += usize::from(trace.contains("+++ killed by SIGKILL"));
        ends(&container, &format!("at call {count} of {name}"));
    }
    assert!(met >= MET, "only {met} of {MOMENTS} moments were met");
}

#[track_caller]
fn ends(container: &Container, when: &str) {
    let deleted = container.delete_force();
    let leaks = container.leaks();
    assert!(leaks.is_empty(), "left behind, killed {when}: {leaks:#?}{deleted}");
    deleted.assert_ok();
}

fn bare() -> Container {
    Bundle::busybox().build()
}

fn created() -> Container {
    Bundle::busybox().args(["sleep", "1000"]).create()
}

fn running() -> Container {
    Bundle::busybox().args(["sleep", "1000"]).start()
}

fn paused() -> Container {
    let container = running();
    container.verb("pause").assert_ok();
    container
}

fn stopped() -> Container {
    let container = Bundle::busybox().start();
    container.until_stopped();
    container
}

fn create(container: &Container) -> Call {
    container.call_with_bundle("create").arg(container.id())
}

fn run(container: &Container) -> Call {
    container.call_with_bundle("run").arg(container.id())
}

fn create_can_be_killed_at_any_moment() {
    killed(bare, create);
}

fn start_can_be_killed_at_any_moment() {
    killed(created, |container| container.call("start").arg(container.id()));
}

fn run_can_be_killed_at_any_moment() {
    killed(bare, run);
}

fn exec_can_be_killed_at_any_moment() {
    killed(running, |container| container.call("exec").arg(container.id()).arg("true"));
}

fn pause_can_be_killed_at_any_moment() {
    killed(running, |container| container.call("pause").arg(container.id()));
}

fn resume_can_be_killed_at_any_moment() {
    killed(paused, |container| container.call("resume").arg(container.id()));
}

fn update_can_be_killed_at_any_moment() {
    killed(running, |container| {
        container.call("update").args(["--pids-limit", "50", "--cpu-share", "512"]).arg(container.id())
    });
}

fn kill_can_be_killed_at_any_moment() {
    killed(running, |container| container.call("kill").arg(container.id()).arg("KILL"));
}

fn delete_can_be_killed_at_any_moment() {
    killed(stopped, |container| container.call("delete").arg(container.id()));
}

fn delete_by_force_can_be_killed_at_any_moment() {
    killed(paused, |container| container.call("delete").arg("--force").arg(container.id()));
}

/// Names and numbers of its devices are all that anybody sends by send(2) here.
fn an_init_killed_while_it_tells_of_its_network_ends_create() {
    for count in 1..=2 {
        let container = bare();
        let (trace, inject) = (container.path("trace"), format!("inject=sendto:signal=KILL:when={count}"));
        let options = ["-f", "-e", "trace=sendto", "-e", &inject];
        let mut strace = command(&options, &create(&container), &trace).spawn().expect("strace");
        let ended = pidfd(strace.id()).is_none_or(|strace| readable(strace, DEADLINE));
        if !ended {
            container.delete_force();
        }
        let status = strace.wait().expect("strace");
        assert!(ended && status.code() == Some(1), "killed at call {count}: {status}");
        assert!(
            fs::read_to_string(trace).expect("a trace").contains("+++ killed by SIGKILL"),
            "call {count}"
        );
        let leaks = container.leaks();
        assert!(leaks.is_empty(), "left behind, killed at call {count}: {leaks:#?}");
    }
}
