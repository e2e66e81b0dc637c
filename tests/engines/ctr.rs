//! What `ctr` must show under any shim.

use lxcrun_test::engines::{Containerd, Engine, IDLE, until};

pub fn a_program_that_is_missing_is_an_error(ctr: &Containerd) {
    ctr.run_program("", &["nothere"]).assert_fails().assert_stderr_contains("nothere");
}

pub fn the_spec_is_as_the_options_say(ctr: &Containerd) {
    for (options, script, wanted) in [
        ("--cwd /tmp --env A=b", "pwd; echo $A", "/tmp\nb\n"),
        ("--read-only", "touch /x 2>/dev/null || echo refused", "refused\n"),
        ("--seccomp", "grep ^Seccomp: /proc/self/status", "Seccomp:\t2\n"),
        ("", "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n"),
        ("--allow-new-privs", "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t0\n"),
        ("", "ls /sys/class/net", "lo\n"),
        ("--device /dev/fuse", "stat -c %t:%T /dev/fuse", "a:e5\n"),
        ("", "stat -fc %T /dev /proc /sys", "tmpfs\nproc\nsysfs\n"),
    ] {
        ctr.run(options, script).assert_ok().assert_stdout(wanted);
    }
    let ours = ctr.sandbox().read_link("/proc/1/ns/net");
    let output = ctr.run("--net-host", "readlink /proc/self/ns/net");
    output.assert_ok().assert_stdout(&format!("{}\n", ours.display()));
    let output = ctr.run("--privileged", "mount -t tmpfs tmpfs /tmp && true >/proc/sys/kernel/hostname");
    output.assert_ok();
}

pub fn mounts_are_writable_or_not(ctr: &Containerd) {
    let volume = ctr.sandbox().volume("file", "content\n");
    let mount = |how: &str| format!("--mount type=bind,src={volume},dst=/data,options=rbind:{how}");
    let output = ctr.run(&mount("ro"), "cat /data/file; echo x >/data/file");
    output.assert_exit(1).assert_stdout("content\n").assert_stderr_contains("Read-only file system");
    ctr.run(&mount("rw"), "echo changed >/data/file").assert_ok();
    assert_eq!(ctr.sandbox().read(format!("{volume}/file")), "changed\n");
}

pub fn a_namespace_is_joined_by_path(ctr: &Containerd) {
    let other = ctr.start("", IDLE);
    for kind in ["network", "ipc", "uts", "pid"] {
        let file = if kind == "network" { "net" } else { kind };
        let path = format!("/proc/{}/ns/{file}", other.init());
        let theirs = ctr.sandbox().read_link(&path);
        let output = ctr.run(&format!("--with-ns {kind}:{path}"), &format!("readlink /proc/self/ns/{file}"));
        output.assert_ok().assert_stdout(&format!("{}\n", theirs.display()));
    }
}

pub fn kill_ends_a_task_in_the_background(ctr: &Containerd) {
    let container = ctr.start("", IDLE);
    let status = || {
        let tasks = ctr.call(&["task", "list"]);
        let own = tasks.lines().into_iter().find(|line| line.starts_with(&format!("{container} ")));
        own.and_then(|line| line.split_whitespace().last().map(str::to_owned)).unwrap_or_default()
    };
    assert_eq!(status(), "RUNNING");
    container.call(&["task", "kill", "--signal", "SIGKILL"]).assert_ok();
    assert!(until(|| status() == "STOPPED"), "{}", status());
    container.call(&["task", "rm"]).assert_ok().assert_stderr_contains("137");
}

pub fn the_memory_limit_is_in_the_cgroup(ctr: &Containerd) {
    let container = ctr.start("--memory-limit 67108864 --cpus 0.5", IDLE);
    let cgroups = container.cgroups();
    assert_eq!(cgroups.read("memory", "memory.limit_in_bytes", "memory.max"), "67108864");
    let quota = cgroups.read("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(["50000", "50000 100000"].contains(&&*quota), "{quota:?}");
}

pub fn exec_runs_a_program_and_passes_its_exit_code(ctr: &Containerd) {
    let container = ctr.start("--env FROM=container", IDLE);
    // ctr stops to read once the process has ended, so it may not end at once.
    container
        .exec("--cwd /tmp", "echo $FROM; pwd; sleep 0.2; exit 6")
        .assert_exit(6)
        .assert_stdout("container\n/tmp\n");
    container.exec("--user 1000", "id -u; sleep 0.2").assert_ok().assert_stdout("1000\n");
    container.exec_on_terminal("", "tty; sleep 0.2", "").assert_ok().assert_stdout_contains("/dev/pts/");
    container.exec_program("", &["nothere"]).assert_fails().assert_stderr_contains("nothere");
}

pub fn pause_freezes_and_resume_thaws(ctr: &Containerd) {
    let container = ctr.start("", IDLE);
    let cgroups = container.cgroups();
    let state = || cgroups.read("freezer", "freezer.state", "cgroup.freeze");
    container.call(&["task", "pause"]).assert_ok();
    assert!(["FROZEN", "1"].contains(&&*state()), "{}", state());
    container.call(&["task", "resume"]).assert_ok();
    assert!(["THAWED", "0"].contains(&&*state()), "{}", state());
}

pub fn metrics_are_those_of_the_cgroup(ctr: &Containerd) {
    let container = ctr.start("--memory-limit 67108864", "exec sleep 1000");
    let output = container.call(&["task", "metrics"]);
    let value = |name: &str| {
        let line = output.lines().into_iter().find(|line| line.split_whitespace().next() == Some(name));
        line.and_then(|line| line.split_whitespace().nth(1).map(str::to_owned))
    };
    let usage = value("memory.usage_in_bytes").unwrap_or_else(|| panic!("no usage{output}"));
    let now = container.cgroups().read("memory", "memory.usage_in_bytes", "memory.current");
    let difference = usage.parse::<f64>().expect("a number") - now.parse::<f64>().expect("a number");
    assert!(difference.abs() < 1e6, "the cgroup has {now}{output}");
    assert_eq!(value("memory.limit_in_bytes").as_deref(), Some("67108864"), "{output}");
    assert_eq!(value("pids.current").as_deref(), Some("1"), "{output}");
    let pids = container.call(&["task", "ps"]);
    let pids: Vec<&str> =
        pids.assert_ok().lines().iter().skip(1).filter_map(|l| l.split(' ').next()).collect();
    assert_eq!(pids, [container.init()]);
}
