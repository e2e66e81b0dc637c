//! Signals: how they are named, whom they reach, and what `run` does with its own.

use lxcrun_test::{Bundle, Container, Fifo, tests};
use rustix::process::Signal;

tests![
    a_signal_may_be_a_name_a_full_name_or_a_number,
    the_default_signal_is_term,
    a_signal_name_may_be_in_lower_case,
    kill_of_a_stopped_container_fails,
    kill_all_reaches_every_process,
    kill_without_a_pid_namespace_reaches_the_init,
    kill_by_force_without_a_pid_namespace_reaches_every_process
        .not_on("runc", "new in 1.2")
        .not_on("crun", "it kills the init"),
    signal_zero_asks_whether_it_runs,
    delete_ends_all_processes_without_a_pid_namespace,
    run_passes_signals_on,
    a_stopped_program_can_be_continued,
    real_time_signals_work,
    no_signal_is_ignored_or_blocked_in_the_program,
    a_caller_may_ignore_the_end_of_its_children,
];

fn no_signal_is_ignored_or_blocked_in_the_program() {
    let run = Bundle::busybox().args(["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"]).run();
    run.assert_ok().assert_stdout("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

fn a_caller_may_ignore_the_end_of_its_children() {
    let container = Bundle::busybox().sh("true; exit 7").build();
    container.run_with(|call| call.host("trap '' CHLD")).assert_exit(7);
    let container = Bundle::busybox().args(["sleep", "1000"]).build();
    container.create_with(|call| call.host("trap '' CHLD")).assert_ok();
    container.start().assert_ok();
    let exec = container.call("exec").arg(container.id()).args(["sh", "-c", "exit 7"]).host("trap '' CHLD");
    exec.output().assert_exit(7);
}

/// A shell that tells which signal it got, and then exits with 7.
fn trapper() -> (Container, Fifo) {
    let bundle = Bundle::busybox();
    let meeting = bundle.make_dir("meeting");
    let told = Fifo::new(meeting.join("told"));
    let traps: String = ["TERM", "HUP", "INT", "USR1", "USR2", "WINCH", "34"]
        .map(|s| format!("trap 'echo {s} > /meeting/told; exit 7' {s}; "))
        .concat();
    let script = format!("{traps} echo ready > /meeting/told; while :; do sleep 0.01; done");
    let bundle = bundle.bind(meeting, "/meeting", &[]).sh(&script);
    (bundle.build(), told)
}

fn started_trapper() -> (Container, Fifo) {
    let (container, mut told) = trapper();
    container.create().assert_ok();
    container.pid();
    container.start().assert_ok();
    assert_eq!(told.line(), "ready");
    (container, told)
}

fn gets(signal: &str, name: &str) {
    let (container, mut told) = started_trapper();
    container.kill(signal).assert_ok();
    assert_eq!(told.line(), name, "{signal}");
    container.until_stopped();
}

fn a_signal_may_be_a_name_a_full_name_or_a_number() {
    for (signal, name) in
        [("TERM", "TERM"), ("SIGHUP", "HUP"), ("10", "USR1"), ("SIGUSR2", "USR2"), ("2", "INT")]
    {
        gets(signal, name);
    }
}

fn the_default_signal_is_term() {
    let (container, mut told) = started_trapper();
    container.verb("kill").assert_ok();
    assert_eq!(told.line(), "TERM");
    container.until_stopped();
}

fn a_signal_name_may_be_in_lower_case() {
    gets("term", "TERM");
    gets("sigusr1", "USR1");
}

fn kill_of_a_stopped_container_fails() {
    let container = Bundle::busybox().start();
    container.until_stopped();
    // containerd looks for these words.
    container.kill("TERM").assert_fails().assert_stderr_contains("container not running");
}

fn kill_all_reaches_every_process() {
    let bundle = Bundle::busybox().without_namespace("pid");
    let meeting = bundle.make_dir("meeting");
    let mut told = Fifo::new(meeting.join("told"));
    let script = "sleep 1000 & sleep 1000 & echo ready > /meeting/told; wait";
    let container = bundle.bind(meeting, "/meeting", &[]).sh(script).start();
    assert_eq!(told.line(), "ready");
    assert_eq!(container.processes_on_host().len(), 3);
    container.call("kill").args(["--all", container.id(), "KILL"]).output().assert_ok();
    container.until_stopped();
    container.leaks(); // waits for all of them
    assert_eq!(container.processes_on_host(), [0u32; 0]);
    container.delete().assert_ok();
}

/// The end of the init is not theirs.
fn kill_by_force_without_a_pid_namespace_reaches_every_process() {
    let bundle = Bundle::busybox().without_namespace("pid");
    let meeting = bundle.make_dir("meeting");
    let mut told = Fifo::new(meeting.join("told"));
    let script = "sleep 1000 & sleep 1000 & echo ready > /meeting/told; wait";
    let container = bundle.bind(meeting, "/meeting", &[]).sh(script).start();
    assert_eq!(told.line(), "ready");
    container.kill("KILL").assert_ok();
    container.leaks(); // waits for all of them
    assert_eq!(container.processes_on_host(), [0u32; 0]);
    container.kill("KILL").assert_fails().assert_stderr_contains("container not running");
    container.delete().assert_ok();
}

fn signal_zero_asks_whether_it_runs() {
    let container = Bundle::busybox().args(["sleep", "1000"]).start();
    container.kill("0").assert_ok();
    assert_eq!(container.status(), "running");
    container.delete_force().assert_ok();
    let container = Bundle::busybox().start();
    container.until_stopped();
    container.kill("0").assert_fails().assert_stderr_contains("container not running");
}

fn kill_without_a_pid_namespace_reaches_the_init() {
    let container = Bundle::busybox().without_namespace("pid").args(["sleep", "1000"]).start();
    container.kill("TERM").assert_ok();
    container.until_stopped();
    container.delete().assert_ok();
}

fn delete_ends_all_processes_without_a_pid_namespace() {
    let container = Bundle::busybox().without_namespace("pid").sh("sleep 1000 & exit").start();
    container.until_stopped();
    let deleted = container.delete_force();
    container.assert_gone(deleted.assert_ok());
}

fn run_passes_signals_on() {
    for (signal, name) in
        [(Signal::TERM, "TERM"), (Signal::HUP, "HUP"), (Signal::USR1, "USR1"), (Signal::INT, "INT")]
    {
        let (container, mut told) = trapper();
        let running = container.spawn(|call| call);
        assert_eq!(told.line(), "ready");
        running.signal(signal);
        assert_eq!(told.line(), name);
        let run = running.wait();
        container.assert_gone(run.assert_exit(7));
    }
}

fn a_stopped_program_can_be_continued() {
    let (container, mut told) = started_trapper();
    container.kill("STOP").assert_ok();
    container.kill("CONT").assert_ok();
    container.kill("TERM").assert_ok();
    assert_eq!(told.line(), "TERM");
    container.until_stopped();
}

fn real_time_signals_work() {
    gets("34", "34");
}
