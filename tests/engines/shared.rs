//! What several engines must show. Where a test has options of `run`, they are Docker's, which are podman's too.

use std::fs;
use std::thread;

use lxcrun_test::engines::{Container, Engine, IDLE, until};

pub fn what_the_program_prints_comes_through(engine: &impl Engine) {
    let output = engine.run("", "echo hi; echo oh >&2");
    output.assert_ok().assert_stdout("hi\n");
    assert_eq!(output.stderr, "oh\n", "{output}");
}

pub fn input_reaches_the_program(engine: &impl Engine) {
    engine.run_with_input("-i", "tr a-z A-Z", "hello\n").assert_ok().assert_stdout("HELLO\n");
    // Opened anew when it has ended, it gives its end.
    let script = "cat; cat /dev/stdin; echo end";
    engine.run_with_input("-i", script, "hello\n").assert_ok().assert_stdout("hello\nend\n");
}

pub fn the_exit_code_is_the_programs(engine: &impl Engine) {
    for code in [0, 3, 255] {
        engine.run("", &format!("exit {code}")).assert_exit(code);
    }
    engine.run("", "kill -USR1 $$; exec sleep 5 & kill -KILL $!; wait $!").assert_exit(137);
}

pub fn a_program_that_is_missing_is_127_and_one_that_cannot_run_is_126(engine: &impl Engine) {
    engine.run_program("", &["nothere"]).assert_exit(127).assert_stderr_contains("nothere");
    engine.run_program("", &["/no/such/program"]).assert_exit(127).assert_stderr_contains("/no/such/program");
    engine.run_program("", &["/etc/passwd"]).assert_exit(126).assert_stderr_contains("permission denied");
}

/// Waits for the size, as clients send it after the start.
const TERMINAL: &str = r#"tty; until [ "$(stty size)" = "33 77" ]; do sleep 0.05; done; stty size;
    read line; echo "got $line""#;

pub fn a_terminal_has_the_size_of_ours(engine: &impl Engine) {
    let output = engine.run_on_terminal("", TERMINAL, "word\n");
    // The terminal repeats the word when it comes, which may be in the middle of a line.
    output.assert_ok().assert_stdout_contains("/dev/pts/0").assert_stdout_contains("33 77");
    output.assert_stdout_contains("got word\n");
}

pub fn the_pid_is_that_of_the_programs_process(engine: &impl Engine) {
    let container = engine.start("--env MARK=here", IDLE);
    let init = container.init();
    // The runtime's `start` may return just before the program takes over.
    let environment = || engine.sandbox().read(format!("/proc/{init}/environ"));
    assert!(until(|| environment().split('\0').any(|word| word == "MARK=here")), "{:?}", environment());
    let status = engine.sandbox().read(format!("/proc/{init}/status"));
    let pids = status.lines().find(|line| line.starts_with("NSpid:")).unwrap_or_default();
    assert!(pids.ends_with("\t1"), "{pids:?}");
}

pub fn logs_stop_and_rm_of_a_container_in_the_background(engine: &impl Engine) {
    let container = engine.start("", "trap 'echo bye; exit 7' TERM; echo up; sleep 1000 & wait");
    container.await_log("up\n");
    container.call(&["stop", "-t", "20"]).assert_ok();
    assert_eq!(container.inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 7");
    container.call(&["logs"]).assert_stdout("up\nbye\n");
    container.call(&["rm"]).assert_ok();
}

pub fn kill_sends_the_signal_asked_for(engine: &impl Engine) {
    let container = engine.start("", "trap 'echo one' USR1; echo up; while :; do sleep 0.05; done");
    container.await_log("up\n");
    container.call(&["kill", "--signal", "USR1"]).assert_ok();
    container.await_log("one\n");
    container.call(&["kill"]).assert_ok();
    container.call(&["wait"]).assert_stdout("137\n");
}

pub fn wait_prints_the_exit_code(engine: &impl Engine) {
    let container = engine.start("", "sleep 0.5; exit 4");
    container.call(&["wait"]).assert_ok().assert_stdout("4\n");
}

pub fn attach_joins_what_runs(engine: &impl Engine) {
    let container = engine.start("-i", "read line; sleep 0.5; echo got $line; sleep 0.5; exit 5");
    // On a terminal, as docker stops to listen when the input ends.
    let output = engine.call_on_terminal(&["attach", &container.to_string()], "word\n");
    output.assert_stdout_contains("got word\n");
    container.call(&["wait"]).assert_stdout("5\n");
}

pub fn restart_starts_it_anew(engine: &impl Engine) {
    let container = engine.start("", IDLE);
    let before = container.init();
    container.call(&["restart", "-t", "20"]).assert_ok();
    assert_ne!(container.init(), before);
    assert_eq!(container.inspect("{{.State.Status}}"), "running");
}

pub fn restart_on_failure_tries_again(engine: &impl Engine) {
    let container = engine.start("--restart on-failure:2", "echo try; exit 3");
    let ended = until(|| container.inspect("{{.RestartCount}} {{.State.Status}}") == "2 exited");
    assert!(ended, "{}", container.inspect("{{json .State}}"));
    container.call(&["logs"]).assert_stdout("try\ntry\ntry\n");
}

pub fn limits_are_in_the_cgroup(engine: &impl Engine) {
    let container =
        engine.start("--memory 64m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 --pids-limit 50", IDLE);
    let cgroups = container.cgroups();
    let read = |controller, v1, v2| cgroups.read(controller, v1, v2);
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(read("pids", "pids.max", "pids.max"), "50");
    assert_eq!(read("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    let quota = read("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(["50000", "50000 100000"].contains(&&*quota), "{quota:?}");
    let shares = read("cpu", "cpu.shares", "cpu.weight");
    assert!(["512", "20", "59"].contains(&&*shares), "{shares:?}");
}

pub fn containers_reach_each_other_on_the_bridge(engine: &impl Engine) {
    let server = engine.start("", "while :; do echo hello | nc -l -p 7000; done");
    let address = server.inspect("{{.NetworkSettings.IPAddress}}");
    let ask = format!("until nc {address} 7000 </dev/null; do sleep 0.05; done; ip -4 address show dev eth0");
    let output = engine.run("", &ask);
    output.assert_ok().assert_stdout_contains("hello\n").assert_stdout_contains("inet ");
    let gateway = server.inspect("{{.NetworkSettings.Gateway}}");
    engine
        .run("--cap-add NET_RAW", &format!("ping -c 1 -W 5 {gateway} && ping -c 1 -W 5 {address}"))
        .assert_ok();
}

pub fn namespaces_are_new_or_whose_we_ask_for(engine: &impl Engine) {
    let other = engine.start("--ipc shareable", IDLE);
    let sandbox = engine.sandbox();
    let of =
        |pid: &str, kind: &str| sandbox.read_link(format!("/proc/{pid}/ns/{kind}")).display().to_string();
    let init = other.init();
    for (option, value) in [("--network", "net"), ("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts")] {
        let ask = format!("readlink /proc/self/ns/{value}");
        let seen = |options: &str| engine.run(options, &ask).assert_ok().stdout.trim().to_owned();
        let (host, theirs) = (of("1", value), of(&init, value));
        let new = seen("");
        assert!(
            new != host && new != theirs,
            "{value}: new is {new}, the host's {host}, the other's {theirs}"
        );
        assert_eq!(seen(&format!("{option} host")), host, "{option} host");
        if value != "uts" {
            assert_eq!(seen(&format!("{option} container:{other}")), theirs, "{option} container:{other}");
        }
    }
    let output = engine.run("--network none", "ls /sys/class/net");
    output.assert_ok().assert_stdout("lo\n");
}

pub fn volumes_are_writable_or_not(engine: &impl Engine) {
    let volume = engine.sandbox().volume("file", "content\n");
    let write = "cat /data/file; echo changed >/data/file";
    let output = engine.run(&format!("-v {volume}:/data:ro"), write);
    output.assert_exit(1).assert_stdout("content\n").assert_stderr_contains("Read-only file system");
    engine.run(&format!("-v {volume}:/data"), write).assert_ok().assert_stdout("content\n");
    assert_eq!(engine.sandbox().read(format!("{volume}/file")), "changed\n");
    let one_file = format!("--mount type=bind,source={volume}/file,target=/one/file,readonly");
    engine.run(&one_file, "cat /one/file").assert_ok().assert_stdout("changed\n");
    let named =
        engine.run(&format!("-v named-{}:/data", std::process::id()), "echo x >/data/new; cat /data/new");
    named.assert_ok().assert_stdout("x\n");
}

pub fn mounts_propagate_into_the_container_if_asked_to(engine: &impl Engine) {
    for (mode, mounts) in [("rslave", "2\n"), ("rprivate", "1\n")] {
        let volume = engine.sandbox().volume("file", "");
        let container = engine.start(&format!("-v {volume}:/data:{mode}"), IDLE);
        let later = |command: &str, arguments: &[&str]| {
            let status = engine.sandbox().command(command).args(arguments).arg(&volume).status();
            assert!(status.expect("it starts").success(), "{command} {volume}");
        };
        later("mount", &["-t", "tmpfs", "tmpfs"]);
        let output = container.exec("", "grep -c ' /data ' /proc/self/mounts");
        later("umount", &[]);
        output.assert_ok().assert_stdout(mounts);
    }
}

pub fn temporary_file_systems_have_their_size(engine: &impl Engine) {
    let options = "--tmpfs /one:size=1m,mode=1770 --mount type=tmpfs,target=/two,tmpfs-size=2m --shm-size 4m";
    let output = engine.run(
        options,
        r#"for dir in /one /two /dev/shm; do df -k $dir | awk 'END { print $2 }'; done; stat -c %a /one"#,
    );
    output.assert_ok().assert_stdout("1024\n2048\n4096\n1770\n");
}

pub fn a_read_only_root_takes_no_writes(engine: &impl Engine) {
    let output = engine.run("--read-only --tmpfs /tmp", "echo x >/tmp/x && cat /tmp/x; echo x >/x");
    output.assert_exit(1).assert_stdout("x\n").assert_stderr_contains("Read-only file system");
}

pub fn user_and_groups_are_those_asked_for(engine: &impl Engine) {
    let output = engine.run("--user 1000:1000 --group-add 2000", "id -u; id -g; id -G");
    output.assert_ok().assert_stdout("1000\n1000\n1000 2000\n");
    engine.run("--user user", "id -un").assert_ok().assert_stdout("user\n");
}

const CAPABILITIES: &str = "grep -E '^Cap(Prm|Eff|Bnd)' /proc/self/status";

pub fn capabilities_are_those_asked_for(engine: &impl Engine) {
    let only_net_raw = "CapPrm:\t0000000000002000\nCapEff:\t0000000000002000\nCapBnd:\t0000000000002000\n";
    let output = engine.run("--cap-drop ALL --cap-add NET_RAW", CAPABILITIES);
    output.assert_ok().assert_stdout(only_net_raw);
    let output = engine.run("--user 1000 --cap-drop ALL", CAPABILITIES);
    output.assert_ok().assert_stdout(&only_net_raw.replace('2', "0"));
}

/// Where the machine's root lacks a capability, an engine that asks for it may be refused, with the reason.
pub fn privileged_has_all_capabilities_and_devices(engine: &impl Engine) {
    let ours = fs::read_to_string("/proc/self/status").expect("our status");
    let ours =
        ours.lines().find_map(|line| line.strip_prefix("CapEff:\t")).expect("our capabilities").to_owned();
    let all = fs::read_to_string("/proc/sys/kernel/cap_last_cap").expect("the last capability");
    let all = (1u64 << (all.trim().parse::<u32>().expect("a number") + 1)) - 1;
    let see =
        "grep CapEff /proc/self/status; test -c /dev/kmsg && true >/dev/kmsg && mount -t tmpfs tmpfs /tmp";
    let output = engine.run("--privileged", see);
    if ours != format!("{all:016x}") && output.code() != 0 {
        output.assert_stderr_contains("operation not permitted");
    } else {
        output.assert_ok().assert_stdout(&format!("CapEff:\t{ours}\n"));
    }
}

pub fn devices_are_those_asked_for(engine: &impl Engine) {
    let output =
        engine.run("--device /dev/null:/dev/foo:rwm", "echo x >/dev/foo && stat -c '%F %t:%T' /dev/foo");
    output.assert_ok().assert_stdout("character special file 1:3\n");
    // Opening the kernel's log for writing writes nothing.
    let write_only = "true >/dev/foo && echo written; true </dev/foo";
    let output = engine.run("--device /dev/kmsg:/dev/foo:w", write_only);
    output.assert_exit(1).assert_stdout("written\n").assert_stderr_contains("Operation not permitted");
    let own_node = "mknod /tmp/kmsg c 1 11 && echo made; true >/tmp/kmsg";
    let output = engine.run("--cap-add MKNOD", own_node);
    output.assert_exit(1).assert_stdout("made\n").assert_stderr_contains("Operation not permitted");
    let default = engine.run("", "echo x >/dev/null && head -c 3 /dev/zero | wc -c && ls /dev");
    let names: Vec<&str> = default.assert_ok().lines();
    for name in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "stdin"] {
        assert!(names.contains(&name), "no /dev/{name}{default}");
    }
    assert!(!names.contains(&"kmsg"), "{default}");
}

pub fn sysctls_and_ulimits_are_set(engine: &impl Engine) {
    let options = "--sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=4242 --ulimit nofile=100:200 --ulimit nproc=90:95";
    let see = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; grep -E 'open files|processes' /proc/self/limits";
    let output = engine.run(options, see);
    let lines: Vec<Vec<&str>> =
        output.assert_ok().lines().into_iter().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[..2], [["1"], ["4242"]], "{output}");
    assert_eq!(lines[2][2..4], ["90", "95"], "{output}");
    assert_eq!(lines[3][3..5], ["100", "200"], "{output}");
    let output = engine.run("--sysctl net.ipv4.ip_forward=0", "cat /proc/sys/net/ipv4/ip_forward");
    output.assert_ok().assert_stdout("0\n");
}

pub fn paths_of_proc_are_masked_or_read_only(engine: &impl Engine) {
    let output =
        engine.run("", "cat /proc/keys /proc/timer_list | wc -c; echo x >/proc/sys/kernel/domainname");
    output.assert_exit(1).assert_stdout("0\n").assert_stderr_contains("Read-only file system");
}

pub fn host_name_directory_and_environment_are_set(engine: &impl Engine) {
    let options = "--hostname web --workdir /tmp --env A=b --env EMPTY=";
    let output = engine.run(options, "hostname; pwd; env");
    assert_eq!(output.assert_ok().lines()[..2], ["web", "/tmp"], "{output}");
    output
        .assert_stdout_contains("A=b\n")
        .assert_stdout_contains("EMPTY=\n")
        .assert_stdout_contains("PATH=/bin\n");
}

pub fn a_seccomp_profile_is_loaded(engine: &impl Engine) {
    let see = "grep ^Seccomp: /proc/self/status; mkdir /tmp/new";
    engine.run("", see).assert_ok().assert_stdout("Seccomp:\t2\n");
    engine.run("--security-opt seccomp=unconfined", see).assert_ok().assert_stdout("Seccomp:\t0\n");
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#;
    let dir = engine.sandbox().volume("profile.json", profile);
    let output = engine.run(&format!("--security-opt seccomp={dir}/profile.json"), see);
    output.assert_exit(1).assert_stdout("Seccomp:\t2\n").assert_stderr_contains("Permission denied");
}

pub fn no_new_privileges_is_set(engine: &impl Engine) {
    let see = "grep NoNewPrivs /proc/self/status";
    engine.run("--security-opt no-new-privileges", see).assert_ok().assert_stdout("NoNewPrivs:\t1\n");
    engine.run("", see).assert_ok().assert_stdout("NoNewPrivs:\t0\n");
}

pub fn diff_shows_nothing_of_the_runtimes(engine: &impl Engine) {
    let volume = engine.sandbox().volume("file", "content\n");
    let quiet = engine.start("", IDLE);
    quiet.exec("", "true").assert_ok();
    let changes = |container: &Container| {
        let output = container.call(&["diff"]);
        let lines = output.assert_ok().lines().into_iter();
        // That is podman's own doing.
        let mut lines: Vec<String> = lines.filter(|&line| line != "C /etc").map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(changes(&quiet), Vec::<String>::new());
    // A mount point that the image lacks has to be made.
    let mounted = engine.start(&format!("-v {volume}:/data"), "echo x >/made; sleep 1000");
    mounted.exec("", "until [ -e /made ]; do sleep 0.05; done").assert_ok();
    assert_eq!(changes(&mounted), ["A /data", "A /made"]);
}

pub fn files_are_copied_in_and_out(engine: &impl Engine) {
    let volume = engine.sandbox().volume("file", "content\n");
    let container = engine.start("", IDLE);
    engine.call(&["cp", &format!("{volume}/file"), &format!("{container}:/tmp/copy")]).assert_ok();
    container.exec("", "cat /tmp/copy").assert_ok().assert_stdout("content\n");
    container.exec("", "echo more >>/tmp/copy").assert_ok();
    engine.call(&["cp", &format!("{container}:/tmp/copy"), &volume]).assert_ok();
    assert_eq!(engine.sandbox().read(format!("{volume}/copy")), "content\nmore\n");
}

pub fn a_mount_that_cannot_be_made_is_an_error(engine: &impl Engine) {
    let output = engine.run("--mount type=bind,source=/no/such/source,target=/data", "true");
    output.assert_fails().assert_stderr_contains("/no/such/source");
    let volume = engine.sandbox().volume("file", "content\n");
    let output = engine.run(&format!("-v {volume}/file:/tmp"), "true");
    output.assert_fails().assert_stderr_contains(&format!("{volume}/file"));
}

pub fn many_containers_run_at_once(engine: &impl Engine) {
    thread::scope(|scope| {
        for number in 0..20 {
            scope.spawn(move || {
                let output = engine.run("", &format!("echo {number}; exit {number}"));
                output.assert_exit(number).assert_stdout(&format!("{number}\n"));
            });
        }
    });
}

/// The second round may leave no more than the first: what an engine makes once, it may keep.
pub fn nothing_is_left_of_any_container(engine: &impl Engine) {
    let volume = engine.sandbox().volume("file", "");
    let (data, passwd) =
        (engine.volume_options(&volume, "/data"), engine.volume_options(&volume, "/etc/passwd"));
    let round = || {
        engine.run(&data, "sleep 1000 & exit 1").assert_exit(1);
        engine.run_program("", &["nothere"]).assert_fails();
        engine.run(&passwd, "true").assert_fails();
        engine.start("", IDLE).exec("", "sleep 1000 & exit 0").assert_ok();
    };
    round();
    let (before, mounts) =
        (engine.sandbox().snapshot(), fs::read("/proc/self/mountinfo").expect("our mounts"));
    round();
    let same = until(|| engine.sandbox().snapshot() == before);
    assert!(same, "before: {before:#?}\nafter: {:#?}", engine.sandbox().snapshot());
    assert_eq!(
        mounts,
        fs::read("/proc/self/mountinfo").expect("our mounts"),
        "the machine's mounts have changed"
    );
}

pub fn exec_runs_a_program_and_passes_its_exit_code(engine: &impl Engine) {
    let container = engine.start("--env FROM=container --workdir /tmp", IDLE);
    let output = container.exec("", "echo $FROM; pwd; cat /proc/1/comm; exit 6");
    output.assert_exit(6).assert_stdout("container\n/tmp\nsh\n");
    let output = container.exec_program("", &["nothere"]);
    assert!([126, 127].contains(&output.code()), "{output}");
    assert!([&output.stdout, &output.stderr].iter().any(|text| text.contains("nothere")), "{output}");
    let input = ["exec", "-i", &container.to_string(), "tr", "a-z", "A-Z"];
    engine.call_with_input(&input, "hello\n").assert_ok().assert_stdout("HELLO\n");
    container.exec("-d", "touch /tmp/made; sleep 1000").assert_ok();
    container.exec("", "until [ -e /tmp/made ]; do sleep 0.05; done").assert_ok();
    // It is in the container's namespaces and cgroups, and has no more capabilities.
    let see = |pid| {
        format!("readlink /proc/{pid}/ns/*; cat /proc/{pid}/cgroup; grep -E '^(Cap|Secc)' /proc/{pid}/status")
    };
    let output = container.exec("", &see("self"));
    output.assert_ok().assert_stdout(&container.exec("", &see("1")).stdout);
}

pub fn exec_takes_user_directory_environment_and_terminal(engine: &impl Engine) {
    let container = engine.start("", IDLE);
    let output = container.exec_on_terminal(
        "-u 1000 -w /tmp -e A=b",
        &format!("id -u; pwd; echo $A; {TERMINAL}"),
        "x\n",
    );
    // What is typed early is echoed between any two lines.
    output.assert_ok();
    for line in ["1000\n", "/tmp\n", "b\n", "/dev/pts/", "33 77\n", "got x\n"] {
        output.assert_stdout_contains(line);
    }
}

pub fn top_lists_the_processes(engine: &impl Engine) {
    let container = engine.start("", "sleep 1001 & exec sleep 1002");
    let lists = |name: &str| container.call(&["top"]).assert_ok().stdout.contains(name);
    assert!(until(|| lists("sleep 1001") && lists("sleep 1002")), "{}", container.call(&["top"]));
    let output = container.call(&["top"]);
    assert_eq!(output.lines().len(), 3, "{output}");
}

pub fn pause_freezes_and_unpause_thaws(engine: &impl Engine) {
    let container = engine.start("", IDLE);
    let cgroups = container.cgroups();
    let state = || cgroups.read("freezer", "freezer.state", "cgroup.freeze");
    container.call(&["pause"]).assert_ok();
    assert!(["FROZEN", "1"].contains(&&*state()), "{}", state());
    assert_eq!(container.inspect("{{.State.Status}}"), "paused");
    container.exec("", "true").assert_fails();
    container.call(&["unpause"]).assert_ok();
    assert!(["THAWED", "0"].contains(&&*state()), "{}", state());
    container.exec("", "true").assert_ok();
}

/// `1.5MiB`, `64kB`, as clients print sizes, in bytes.
fn bytes(text: &str) -> f64 {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).expect("a unit"));
    let scale = match unit {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        _ => panic!("{text}"),
    };
    number.parse::<f64>().expect("a number") * scale
}

pub fn stats_are_those_of_the_cgroup(engine: &impl Engine) {
    // In the shell's own memory: of files, clients leave out what could be written back.
    let hold = "x=$(head -c 9000000 /dev/zero | tr '\\0' x)";
    let container = engine.start("--memory 64m", &format!("sleep 1001 & {hold}; echo up; wait"));
    container.await_log("up\n");
    let cgroups = container.cgroups();
    let output = container.call(&["stats", "--no-stream", "--format", "{{.MemUsage}} / {{.PIDs}}"]);
    let fields: Vec<&str> = output.assert_ok().stdout.trim().split(" / ").collect();
    let [memory, limit, pids] = fields[..] else { panic!("{output}") };
    let usage: f64 =
        cgroups.read("memory", "memory.usage_in_bytes", "memory.current").parse().expect("a number");
    assert!((bytes(memory) - usage).abs() < 2e6 && bytes(memory) > 8e6, "the cgroup has {usage}{output}");
    assert!((bytes(limit) - 67_108_864.0).abs() < 1e4, "{output}");
    assert_eq!(pids, "2", "{output}");
    assert_eq!(cgroups.read("pids", "pids.current", "pids.current"), "2");
}

pub fn update_changes_the_limits(engine: &impl Engine) {
    let container = engine.start("--memory 64m", IDLE);
    container.call(&["update", "--memory", "80m", "--memory-swap", "160m", "--cpus", "0.25"]).assert_ok();
    let cgroups = container.cgroups();
    assert_eq!(cgroups.read("memory", "memory.limit_in_bytes", "memory.max"), "83886080");
    let quota = cgroups.read("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(["25000", "25000 100000"].contains(&&*quota), "{quota:?}");
}
