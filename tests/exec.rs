//! Further processes in a container: exec and ps.

use std::fs;

use lxcrun_test::{
    Bundle, Cgroups, ConsoleSocket, Container, DEADLINE, Need, Output, hierarchies, readable, tests,
    until_exit,
};
use rustix::fs::inotify;
use rustix::process::Signal;
use serde_json::{Value, json};

tests![
    exec_runs_a_program_in_the_container,
    exec_passes_arguments_exactly,
    what_comes_after_the_id_is_the_programs.not_on("crun", "it reads on"),
    exec_refuses_a_variable_without_a_value.not_on("crun", "it takes it"),
    exec_goes_to_where_somebody_has_moved_the_init
        .not_on("runc", "1.1 refuses it")
        .not_on("crun", "it does not"),
    exec_gives_the_exit_code,
    exec_gives_128_and_the_signal,
    exec_takes_the_environment_of_the_spec_and_its_own,
    exec_takes_a_directory,
    exec_takes_a_user_and_group,
    exec_takes_a_process_file,
    exec_of_a_process_without_a_user_is_roots,
    exec_has_the_containers_rights_where_its_process_file_says_nothing,
    exec_takes_a_umask_of_its_process_file.not_on("runc", "1.1 ignores it"),
    exec_has_the_capabilities_of_the_container,
    exec_refuses_an_unknown_capability.lxcrun_only("runc only warns"),
    what_is_wrong_with_an_option_or_a_file_names_the_container.lxcrun_only("others don't name it"),
    exec_has_a_terminal_over_the_console_socket,
    exec_detached_writes_its_pid_file,
    exec_is_in_the_cgroups_of_the_container,
    exec_gets_into_a_container_that_may_have_no_more_processes
        .needs(Need::Controller("pids"))
        .not_on("runc", "its own threads are too many"),
    the_session_keyring_of_the_caller_can_be_kept.needs(Need::File("/proc/keys")),
    exec_has_the_session_keyring_of_the_container.needs(Need::File("/proc/keys")),
    exec_passes_stdin,
    exec_of_a_missing_program_says_so,
    exec_of_a_missing_program_is_255.not_on("crun", "it has other codes"),
    exec_adds_capabilities_to_what_the_container_hands_on.not_on("runc", "1.1 leaves ambient ones out"),
    exec_says_which_cgroup_it_cannot_enter,
    exec_in_a_paused_container_ends_by_a_signal.lxcrun_only("others wait until it is resumed"),
    exec_in_a_paused_container_is_refused,
    exec_in_a_created_container_works,
    exec_in_a_stopped_container_is_refused,
    exec_in_an_unknown_container_is_refused,
    the_end_of_exec_is_not_that_of_the_container,
    ps_lists_the_processes,
    exec_with_a_terminal_says_what_it_cannot_execute.not_on("crun", "its words are others"),
    ps_prints_numbers_as_json,
];

fn sleeper() -> Container {
    Bundle::busybox().args(["sleep", "1000"]).env("SPEC=spec").start()
}

fn exec_runs_a_program_in_the_container() {
    let container = sleeper();
    let links = ["mnt", "pid", "net", "ipc", "uts"].map(|ns| {
        let link = fs::read_link(format!("/proc/{}/ns/{ns}", container.pid())).expect("a namespace");
        format!("{}\n", link.display())
    });
    let script = "for ns in mnt pid net ipc uts; do readlink /proc/self/ns/$ns; done";
    container.exec(["sh", "-c", script]).assert_ok().assert_stdout(&links.concat());
}

fn exec_passes_arguments_exactly() {
    let run =
        sleeper().exec(["sh", "-c", r#"for a; do echo "[$a]"; done"#, "sh", "", "-x", "a b", "--", "'"]);
    run.assert_ok().assert_stdout("[]\n[-x]\n[a b]\n[--]\n[']\n");
}

fn what_comes_after_the_id_is_the_programs() {
    let container = sleeper();
    let exec = |words: &[&str]| container.call("exec").arg(container.id()).args(words).output();
    for option in ["-t", "--help", "--cwd"] {
        exec(&[option]).assert_fails().assert_stdout("").assert_stderr_contains(option);
    }
    exec(&["echo", "--tty=false", "--", "-x"]).assert_ok().assert_stdout("--tty=false -- -x\n");
    let ps = container.call("ps").arg(container.id()).args(["-o", "pid"]).output();
    assert_eq!(ps.assert_ok().stdout.trim().lines().count(), 2, "{}", ps.stdout);
}

fn exec_refuses_a_variable_without_a_value() {
    let container = sleeper();
    for variable in ["SPEC", "=value", ""] {
        let exec = container.exec_with(&["--env", variable], ["true"]);
        exec.assert_fails().assert_stderr_contains("environment variable");
    }
    Bundle::busybox().args(["true"]).env("SPEC").refused(&["environment variable", "SPEC"]);
}

fn exec_goes_to_where_somebody_has_moved_the_init() {
    let container = sleeper();
    let cgroups = Cgroups::of(container.pid());
    let controllers: Vec<String> = hierarchies()
        .iter()
        .map(|hierarchy| hierarchy.controllers().first().cloned().unwrap_or_default())
        .collect();
    let moved = controllers.iter().map(|controller| {
        let old = cgroups.dir(controller);
        let new = old.with_file_name(format!("{}-moved", container.id()));
        let _ = fs::create_dir(&new);
        for file in ["cpuset.cpus", "cpuset.mems"].map(|file| (old.join(file), new.join(file))) {
            let _ = fs::copy(file.0, file.1);
        }
        fs::write(new.join("cgroup.procs"), container.pid().to_string()).expect("the init moves");
        fs::remove_dir(&old).expect("an empty cgroup");
        new
    });
    let moved: Vec<_> = moved.collect();
    let exec = container.exec(["cat", "/proc/self/cgroup"]);
    let of_init = container.proc("cgroup");
    container.kill("KILL").assert_ok();
    container.until_stopped();
    for directory in moved {
        fs::remove_dir(directory).expect("an empty cgroup");
    }
    assert_eq!(exec.assert_ok().stdout, of_init);
    assert!(of_init.contains("-moved"));
}

fn exec_gives_the_exit_code() {
    let container = sleeper();
    for code in [0, 1, 42, 255] {
        container.exec(["sh", "-c", &format!("exit {code}")]).assert_exit(code);
    }
}

fn exec_gives_128_and_the_signal() {
    sleeper().exec(["sh", "-c", "kill -KILL $$"]).assert_exit(137);
}

fn exec_takes_the_environment_of_the_spec_and_its_own() {
    let run = sleeper().exec_with(&["--env", "MORE=a b", "--env", "AND="], ["env"]);
    for variable in ["SPEC=spec\n", "MORE=a b\n", "AND=\n", "PATH=/usr/local/sbin"] {
        run.assert_ok().assert_stdout_contains(variable);
    }
}

fn exec_takes_a_directory() {
    sleeper().exec_with(&["--cwd", "/tmp"], ["/bin/pwd"]).assert_ok().assert_stdout("/tmp\n");
}

fn exec_takes_a_user_and_group() {
    let container = sleeper();
    container.exec_with(&["--user", "1000:1001"], ["sh", "-c", "id -u; id -g"]).assert_stdout("1000\n1001\n");
    container.exec_with(&["--user", "1000"], ["id", "-u"]).assert_stdout("1000\n");
}

fn exec_takes_a_process_file() {
    let container = sleeper();
    let process = json!({
        "args": ["sh", "-c", "pwd; echo $A; id -u; ulimit -n; grep CapBnd /proc/self/status"],
        "cwd": "/tmp",
        "env": ["PATH=/bin", "A=file"],
        "user": { "uid": 1000, "gid": 1000 },
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 99, "hard": 99 }],
        "capabilities": { "bounding": ["CAP_KILL"] },
    });
    let run = exec_process(&container, &process);
    run.assert_ok().assert_stdout("/tmp\nfile\n1000\n99\nCapBnd:\t0000000000000020\n");
}

fn exec_of_a_process_without_a_user_is_roots() {
    let process = json!({ "args": ["/bin/id", "-u"], "cwd": "/" });
    exec_process(&sleeper(), &process).assert_ok().assert_stdout("0\n");
}

fn exec_process(container: &Container, process: &Value) -> Output {
    let file = container.path("process.json");
    fs::write(&file, process.to_string()).expect("a process file");
    container.call("exec").arg("--process").arg(file).arg(container.id()).output()
}

fn exec_takes_a_umask_of_its_process_file() {
    let user = json!({ "uid": 0, "gid": 0, "umask": 0o77 });
    let process = json!({ "args": ["/bin/sh", "-c", "umask"], "cwd": "/", "user": user });
    exec_process(&sleeper(), &process).assert_ok().assert_stdout("0077\n");
}

fn exec_has_the_containers_rights_where_its_process_file_says_nothing() {
    let script = "grep -E 'CapEff|CapBnd' /proc/self/status";
    let process = json!({ "args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"] });
    let container = Bundle::busybox().capabilities(&["CAP_CHOWN"]).args(["sleep", "1000"]).start();
    exec_process(&container, &process)
        .assert_ok()
        .assert_stdout("CapEff:\t0000000000000001\nCapBnd:\t0000000000000001\n");
}

fn exec_adds_capabilities_to_what_the_container_hands_on() {
    let (chown, both) = (json!(["CAP_CHOWN"]), json!(["CAP_CHOWN", "CAP_SYSLOG"]));
    let sets = json!({ "bounding": both, "effective": chown, "permitted": chown, "inheritable": both, "ambient": chown });
    let bundle = Bundle::busybox().set("/process/capabilities", sets).args(["sleep", "1000"]);
    let run = bundle.start().exec_with(&["--cap", "CAP_SYSLOG"], ["grep", "CapAmb", "/proc/self/status"]);
    run.assert_ok().assert_stdout("CapAmb:\t0000000400000001\n");
}

fn exec_refuses_an_unknown_capability() {
    let run = sleeper().exec_with(&["--cap", "CAP_NOPE"], ["echo", "here"]);
    run.assert_fails().assert_stdout("").assert_stderr_contains("CAP_NOPE");
}

fn what_is_wrong_with_an_option_or_a_file_names_the_container() {
    let container = sleeper();
    let name = format!("container {}: ", container.id());
    let file = container.path("process.json");
    fs::write(&file, r#"{ "cwd": 1 }"#).expect("a file");
    let exec = container.call("exec").arg("--process").arg(&file).arg(container.id()).output();
    exec.assert_fails().assert_stderr_contains(&name).assert_stderr_contains("cwd");
    fs::write(&file, r#"{ "pids": { "limit": "many" } }"#).expect("a file");
    let update = container.call("update").arg("--resources").arg(&file).arg(container.id()).output();
    update.assert_fails().assert_stderr_contains(&name).assert_stderr_contains("pids.limit");
    container.exec_with(&["--cap", "CAP_NOPE"], ["true"]).assert_fails().assert_stderr_contains(&name);
}

fn exec_says_which_cgroup_it_cannot_enter() {
    let container = sleeper();
    let says = |path: &str, words: &str| {
        let run = container.exec_with(&["--cgroup", path], ["true"]);
        run.assert_fails().assert_stderr_contains(words);
    };
    says("..", " .. is not a sub cgroup path");
    says("none", "/none/cgroup.procs: no such file ");
    says("whaaat:/", "unknown controller ");
}

fn exec_in_a_paused_container_is_refused() {
    let container = sleeper();
    container.verb("pause").assert_ok();
    container.exec(["true"]).assert_exit(255).assert_stderr_contains("cannot exec in a paused container");
    container.verb("resume").assert_ok();
}

fn exec_in_a_paused_container_ends_by_a_signal() {
    let container = sleeper();
    container.verb("pause").assert_ok();
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).expect("inotify");
    let processes = Cgroups::of(container.pid()).dir("freezer").join("cgroup.procs");
    inotify::add_watch(&watch, processes, inotify::WatchFlags::MODIFY).expect("a watch");
    let exec = container.call("exec").arg("--ignore-paused").arg(container.id()).arg("true").spawn();
    assert!(readable(&watch, DEADLINE), "nobody comes in");
    exec.signal(Signal::TERM);
    exec.wait().assert_fails().assert_stderr_contains("signal");
    assert_eq!(container.status(), "paused");
    container.verb("resume").assert_ok();
    assert_eq!(container.processes_on_host().len(), 1);
}

fn exec_has_the_capabilities_of_the_container() {
    let container = sleeper();
    let of_init = container.exec(["sh", "-c", "grep -E 'CapBnd|NoNew' /proc/1/status"]);
    let own = container.exec(["sh", "-c", "grep -E 'CapBnd|NoNew' /proc/$$/status"]);
    own.assert_ok().assert_stdout(&of_init.assert_ok().stdout);
}

fn exec_has_a_terminal_over_the_console_socket() {
    let container = sleeper();
    let socket = ConsoleSocket::new(container.path("console"));
    let path = socket.path().to_str().expect("UTF-8");
    let script = "test -t 0 && echo terminal; echo controlling > /dev/tty";
    let options = ["--tty", "--detach", "--console-socket", path];
    let run = container.exec_with(&options, ["sh", "-c", script]);
    assert_eq!(socket.receive().read_to_end(), "terminal\r\ncontrolling\r\n");
    run.assert_ok();
}

fn exec_detached_writes_its_pid_file() {
    let container = sleeper();
    let file = container.path("exec.pid");
    let options = ["--detach", "--pid-file", file.to_str().expect("UTF-8")];
    container.exec_with(&options, ["sleep", "2000"]).assert_ok();
    let pid: u32 = fs::read_to_string(file).expect("the pid file").parse().expect("a number");
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("its command line");
    assert_eq!(command, "sleep\u{0}2000\u{0}");
    container.finish();
    until_exit(pid);
}

fn exec_is_in_the_cgroups_of_the_container() {
    let container = sleeper();
    let run = container.exec(["cat", "/proc/self/cgroup"]);
    let of_init = container.proc("cgroup");
    run.assert_ok().assert_stdout(&of_init);
}

fn exec_gets_into_a_container_that_may_have_no_more_processes() {
    let container = Bundle::busybox().args(["sleep", "1000"]).resource("pids", json!({ "limit": 1 })).start();
    let run = container.exec(["cat", "/proc/self/cgroup"]);
    run.assert_ok().assert_stdout(&container.proc("cgroup"));
    // Who looks is one too many itself.
    let run = container.exec(["sh", "-c", "true | true"]);
    assert!(!run.status.success() && run.stderr.contains("can't fork"), "{run}");
}

fn exec_has_the_session_keyring_of_the_container() {
    for own in [true, false] {
        let bundle = Bundle::busybox().args(["sleep", "1000"]).set("/linux/maskedPaths", json!([]));
        let container = bundle.build();
        let option = if own { &[][..] } else { &["--no-new-keyring"] };
        container.create_with(|call| call.args(option)).assert_ok();
        container.start().assert_ok();
        // Those that a process may look at, as its own session keyring.
        let keys = container.exec(["cat", "/proc/keys"]);
        let keyring = format!("_ses.{}", container.id());
        assert_eq!(keys.assert_ok().stdout.contains(&keyring), own, "{keys}");
        container.finish();
    }
}

/// The keys of who calls the runtime, in a thread that has some of its own.
fn the_session_keyring_of_the_caller_can_be_kept() {
    // Another user than the keyrings' sees only what is in its own.
    let keys = |options: &[&str]| {
        let bundle = Bundle::busybox().args(["cat", "/proc/keys"]).set("/linux/maskedPaths", json!([]));
        bundle
            .set("/process/user/uid", 1000)
            .build()
            .run_with(|call| call.args(options))
            .assert_ok()
            .stdout
            .clone()
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            kernel::join_session_keyring(c"lxcrun-test-keys").expect("a session keyring");
            assert!(keys(&["--no-new-keyring"]).contains("lxcrun-test-keys"));
            assert!(!keys(&[]).contains("lxcrun-test-keys"));
        });
    });
}

fn exec_passes_stdin() {
    let container = sleeper();
    let input = container.path("input");
    fs::write(&input, "from stdin").expect("a file");
    let output = container.path("output");
    let open = fs::File::open(input).expect("the input");
    let into = fs::File::create(&output).expect("the output");
    let call =
        container.call("exec").arg(container.id()).arg("cat").stdio(open, into, std::process::Stdio::null());
    call.output().assert_ok();
    assert_eq!(fs::read_to_string(output).expect("the output"), "from stdin");
}

fn exec_of_a_missing_program_says_so() {
    let run = sleeper().exec(["no-such-program"]);
    run.assert_fails().assert_stderr_contains("no-such-program");
}

fn exec_of_a_missing_program_is_255() {
    sleeper().exec(["no-such-program"]).assert_exit(255).assert_stderr_contains("executable file not found");
}

fn exec_in_a_created_container_works() {
    let container = Bundle::busybox().args(["sleep", "1000"]).create();
    container.exec(["echo", "early"]).assert_ok().assert_stdout("early\n");
}

fn exec_in_a_stopped_container_is_refused() {
    let container = Bundle::busybox().start();
    container.until_stopped();
    container.exec(["true"]).assert_fails().assert_stderr_contains("stopped");
}

fn exec_in_an_unknown_container_is_refused() {
    Bundle::busybox().build().exec(["true"]).assert_fails().assert_stderr_contains("does not exist");
}

fn the_end_of_exec_is_not_that_of_the_container() {
    let container = sleeper();
    container.exec(["false"]).assert_exit(1);
    assert_eq!(container.status(), "running");
}

/// Who leads the session of a terminal that ends is ended, before it could say something.
fn exec_with_a_terminal_says_what_it_cannot_execute() {
    let container = sleeper();
    for (program, reason) in
        [("nosuch", "not found"), ("/etc", "permission denied"), ("/no/such", "no such file")]
    {
        let socket = ConsoleSocket::new(container.path(&format!("{}.sock", program.replace('/', "_"))));
        let options = ["--tty", "--detach", "--console-socket"];
        let exec = container.call("exec").args(options).arg(socket.path()).args([container.id(), program]);
        exec.output().assert_fails().assert_stderr_contains(reason);
    }
}

fn ps_lists_the_processes() {
    let container = sleeper();
    let list = container.verb("ps");
    list.assert_ok().assert_stdout_contains("sleep 1000");
    assert_eq!(list.lines().len(), 2, "a heading and the process{list}");
}

fn ps_prints_numbers_as_json() {
    let container = sleeper();
    let list = container.call("ps").args(["--format", "json", container.id()]).output();
    let numbers: Value = serde_json::from_str(&list.assert_ok().stdout).expect("JSON");
    assert_eq!(numbers, json!([container.pid()]));
}
