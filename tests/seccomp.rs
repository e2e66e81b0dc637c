//! Seccomp: actions, defaults, arguments, architectures.

use std::fs::File;

use lxcrun_test::{Bundle, Output, SeccompAgent, tests};
use serde_json::{Value, json};

tests![
    a_listed_call_fails_and_others_work,
    the_errno_is_that_of_the_rule,
    a_default_action_refuses_what_is_not_listed,
    the_default_errno_is_that_of_the_spec,
    flags_of_the_filter_are_taken.not_on("runc", "1.1.5 refuses every flag"),
    the_log_has_the_flags_as_runc_counts_them
        .not_on("runc", "1.1.5 logs others")
        .not_on("crun", "it logs none"),
    an_errno_for_an_action_without_one_is_refused.not_on("runc", "it ignores the number"),
    a_rule_without_names_is_refused.lxcrun_only("others ignore it"),
    metadata_without_an_agent_is_refused.lxcrun_only("others ignore it"),
    an_argument_is_compared,
    every_comparison_of_arguments_works,
    a_call_can_kill,
    an_unknown_call_is_skipped,
    the_filter_is_in_force_without_no_new_privileges,
    the_filter_is_in_force_for_a_user,
    exec_is_filtered_too,
    a_filter_that_ends_the_init_fails_start.lxcrun_only("others say that the program has started"),
    an_agent_answers_for_the_container,
    an_agent_hears_of_create.not_on("crun", "it needs more than twenty descriptors to create"),
    an_agent_answers_for_an_exec,
    an_agent_that_is_not_there_is_an_error,
    calls_that_no_agent_can_answer_are_refused,
    an_argument_that_no_call_has_is_refused,
];

fn with_filter(default: &str, calls: &Value) -> Bundle {
    let seccomp = json!({
        "defaultAction": default,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
        "syscalls": calls,
    });
    Bundle::busybox().set("/linux/seccomp", seccomp)
}

fn without_mkdir() -> Bundle {
    with_filter("SCMP_ACT_ALLOW", &json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]))
}

#[track_caller]
fn assert_no_mkdir(run: &Output) {
    run.assert_exit(1).assert_stdout("works\n").assert_stderr_contains("operation not permitted");
}

const MKDIR: &str = "touch /tmp/file && echo works; mkdir /tmp/dir";

fn an_argument_that_no_call_has_is_refused() {
    let argument = json!({ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" });
    let rule = json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [argument] }]);
    with_filter("SCMP_ACT_ALLOW", &rule).refused(&["seccomp"]);
}

fn a_listed_call_fails_and_others_work() {
    assert_no_mkdir(&without_mkdir().sh(MKDIR).run());
}

fn the_errno_is_that_of_the_rule() {
    let rule = json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }]);
    let run = with_filter("SCMP_ACT_ALLOW", &rule).sh(MKDIR).run();
    run.assert_exit(1).assert_stderr_contains("no space left on device");
}

fn a_default_action_refuses_what_is_not_listed() {
    assert_no_mkdir(&with_filter("SCMP_ACT_ERRNO", &allowed()).sh(MKDIR).run());
}

fn the_default_errno_is_that_of_the_spec() {
    let bundle = with_filter("SCMP_ACT_ERRNO", &allowed()).set("/linux/seccomp/defaultErrnoRet", 28);
    bundle.sh(MKDIR).run().assert_exit(1).assert_stderr_contains("no space left on device");
}

fn the_log_has_the_flags_as_runc_counts_them() {
    let log = |flags: Value| {
        let container = Bundle::busybox()
            .args(["true"])
            .edit(|spec| {
                spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
                if !flags.is_null() {
                    spec["linux"]["seccomp"]["flags"] = flags;
                }
            })
            .build();
        let run = container.global([
            "--debug".as_ref(),
            "run".as_ref(),
            "--bundle".as_ref(),
            container.dir().as_os_str(),
        ]);
        run.arg(container.id()).output().assert_ok().stderr.clone()
    };
    let (logs, allows) = ("SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW");
    for (flags, number) in [
        (Value::Null, 4),
        (json!([]), 0),
        (json!([logs]), 2),
        (json!(["SECCOMP_FILTER_FLAG_TSYNC"]), 0),
        (json!([logs, allows]), 6),
    ] {
        let said = log(flags);
        assert!(said.contains(&format!("seccomp filter flags: {number}")), "{number}: {said}");
    }
}

fn an_errno_for_an_action_without_one_is_refused() {
    let rule = json!([{ "names": ["mkdir"], "action": "SCMP_ACT_LOG", "errnoRet": 28 }]);
    with_filter("SCMP_ACT_ALLOW", &rule).build().create().assert_fails();
    with_filter("SCMP_ACT_ALLOW", &json!([]))
        .set("/linux/seccomp/defaultErrnoRet", 28)
        .build()
        .create()
        .assert_fails();
}

fn a_rule_without_names_is_refused() {
    let rule = json!([{ "names": [], "action": "SCMP_ACT_ERRNO" }]);
    with_filter("SCMP_ACT_ALLOW", &rule).refused(&["linux.seccomp.syscalls[0]"]);
}

fn metadata_without_an_agent_is_refused() {
    without_mkdir()
        .set("/linux/seccomp/listenerMetadata", "x")
        .refused(&["listenerMetadata", "listenerPath"]);
}

fn flags_of_the_filter_are_taken() {
    let flags = json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]);
    assert_no_mkdir(&without_mkdir().set("/linux/seccomp/flags", flags).sh(MKDIR).run());
    without_mkdir().set("/linux/seccomp/flags", json!(["NO_SUCH_FLAG"])).build().create().assert_fails();
}

/// What a runtime and a busybox need to get to the program, to run it, and to end.
fn allowed() -> Value {
    json!([{ "action": "SCMP_ACT_ALLOW", "names": [
        "access", "arch_prctl", "brk", "capget", "capset", "chdir", "clone", "clone3", "close", "close_range",
        "dup", "dup2", "dup3", "epoll_create1", "epoll_ctl", "epoll_pwait", "execve", "execveat", "exit",
        "exit_group", "faccessat2", "fchdir", "fcntl", "fstat", "fstatfs", "futex", "getcwd", "getdents64",
        "geteuid", "getegid", "getgid", "getpgrp", "getpid", "getppid", "getrandom", "getrlimit", "gettid",
        "getuid", "ioctl", "lseek", "lstat", "madvise", "mmap", "mprotect", "mremap", "munmap", "nanosleep",
        "newfstatat", "open", "openat", "openat2", "pipe2", "poll", "prctl", "pread64", "prlimit64", "read",
        "readlink", "readlinkat", "rseq", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sched_getaffinity",
        "sched_yield", "set_robust_list", "set_tid_address", "setgid", "setgroups", "setresgid", "setresuid",
        "setuid", "sigaltstack", "stat", "statx", "tgkill", "umask", "uname", "utimensat", "vfork", "wait4",
        "waitid", "write", "writev",
    ] }])
}

fn an_argument_is_compared() {
    let rule = |name: &str, index: u32| {
        let args = json!([{ "index": index, "value": 0o777, "op": "SCMP_CMP_EQ" }]);
        json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "args": args })
    };
    let rules = json!([rule("chmod", 1), rule("fchmodat", 2)]);
    let script = "touch /tmp/f; chmod 700 /tmp/f && echo works; chmod 777 /tmp/f";
    assert_no_mkdir(&with_filter("SCMP_ACT_ALLOW", &rules).sh(script).run());
}

fn every_comparison_of_arguments_works() {
    let script = "touch /tmp/f; chmod 700 /tmp/f || echo not 700; chmod 600 /tmp/f || echo not 600";
    for (op, value, value_two, refused) in [
        ("SCMP_CMP_EQ", 0o700, 0, "not 700\n"),
        ("SCMP_CMP_NE", 0o600, 0, "not 700\n"),
        ("SCMP_CMP_GE", 0o700, 0, "not 700\n"),
        ("SCMP_CMP_GT", 0o600, 0, "not 700\n"),
        ("SCMP_CMP_LE", 0o600, 0, "not 600\n"),
        ("SCMP_CMP_LT", 0o700, 0, "not 600\n"),
        ("SCMP_CMP_MASKED_EQ", 0o100, 0o100, "not 700\n"),
    ] {
        let rule = |name: &str, index: u32| {
            let args = json!([{ "index": index, "value": value, "valueTwo": value_two, "op": op }]);
            json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "args": args })
        };
        let rules = json!([rule("chmod", 1), rule("fchmodat", 2), rule("fchmodat2", 2)]);
        let run = with_filter("SCMP_ACT_ALLOW", &rules).sh(script).run();
        assert_eq!(run.stdout, refused, "{op}");
    }
}

fn a_call_can_kill() {
    let rule = json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS" }]);
    let run = with_filter("SCMP_ACT_ALLOW", &rule).args(["mkdir", "/tmp/dir"]).run();
    run.assert_exit(128 + 31);
}

fn an_unknown_call_is_skipped() {
    let rules = json!([
        { "names": ["no_such_call", "mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" },
    ]);
    assert_no_mkdir(&with_filter("SCMP_ACT_ALLOW", &rules).sh(MKDIR).run());
}

fn the_filter_is_in_force_without_no_new_privileges() {
    assert_no_mkdir(&without_mkdir().set("/process/noNewPrivileges", false).sh(MKDIR).run());
}

fn the_filter_is_in_force_for_a_user() {
    for no_new_privileges in [true, false] {
        let bundle = without_mkdir().set("/process/noNewPrivileges", no_new_privileges);
        assert_no_mkdir(&bundle.user(1000, 1000).sh(MKDIR).run());
    }
}

fn exec_is_filtered_too() {
    let container = without_mkdir().args(["sleep", "1000"]).start();
    assert_no_mkdir(&container.exec(["sh", "-c", MKDIR]));
}

/// A bundle whose calls of mkdir(2) an agent answers.
fn with_agent(no_new_privileges: bool) -> (Bundle, SeccompAgent) {
    let calls = json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }]);
    let bundle = with_filter("SCMP_ACT_ALLOW", &calls).set("/process/noNewPrivileges", no_new_privileges);
    let agent = SeccompAgent::new(bundle.path("agent.sock"));
    let path = agent.path().display().to_string();
    let bundle =
        bundle.set("/linux/seccomp/listenerPath", path).set("/linux/seccomp/listenerMetadata", "for me");
    (bundle, agent)
}

/// Makes another directory than was asked for, so that it shows who did it.
fn make_directory(name: &str, pid: u32) -> i32 {
    assert!(name.starts_with("mkdir"), "{name}");
    std::fs::create_dir(format!("/proc/{pid}/root/tmp/by-agent")).expect("a directory in the container");
    0
}

fn an_agent_answers_for_the_container() {
    for no_new_privileges in [true, false] {
        let (bundle, agent) = with_agent(no_new_privileges);
        let container = bundle.sh("mkdir /tmp/asked && ls /tmp; mkdir /tmp/refused").build();
        let run = container.spawn(|call| call);
        let notifications = agent.receive();
        let state = &notifications.state;
        assert_eq!(state["fds"], json!(["seccompFd"]));
        assert_eq!(state["metadata"], "for me");
        assert_eq!(state["state"]["id"], container.id());
        assert_eq!(state["pid"], state["state"]["pid"]);
        assert!(state["pid"].as_i64().is_some_and(|pid| pid > 1), "{state}");
        notifications.answer(make_directory);
        notifications.answer(|_, _| 28);
        let run = run.wait();
        run.assert_exit(1).assert_stdout("by-agent\n").assert_stderr_contains("no space left on device");
    }
}

/// As with runc: an agent may want to be there before anything of the program's happens.
fn an_agent_hears_of_create() {
    for no_new_privileges in [true, false] {
        let (bundle, agent) = with_agent(no_new_privileges);
        let preserved = File::open("/proc/version").expect("a file");
        let script = "id -u; ulimit -n; cat <&3 >/dev/null && mkdir /tmp/asked && ls /tmp";
        let few = json!([{ "type": "RLIMIT_NOFILE", "soft": 20, "hard": 20 }]);
        let container = bundle.user(1000, 1000).sh(script).set("/process/rlimits", few).build();
        let create = container.create_with(|call| call.arg("--preserve-fds").arg("1").fd(3, preserved));
        create.assert_ok();
        let notifications = agent.receive();
        assert_eq!(notifications.state["state"]["status"], "creating");
        assert_eq!(notifications.state["pid"], container.pid());
        assert_eq!(container.status(), "created");
        container.start().assert_ok();
        notifications.answer(make_directory);
        container.until_stopped();
        assert_eq!(container.stdout(), "1000\n20\nby-agent\n");
        container.delete().assert_ok();
    }
}

fn an_agent_answers_for_an_exec() {
    let (bundle, agent) = with_agent(true);
    let container = bundle.args(["sleep", "1000"]).create();
    let first = agent.receive();
    container.start().assert_ok();
    let script = "mkdir /tmp/asked; ls /tmp";
    let exec = container.call("exec").arg(container.id()).args(["sh", "-c", script]).spawn();
    let notifications = agent.receive();
    assert_eq!(notifications.state["state"]["pid"], first.state["pid"]);
    assert_ne!(notifications.state["pid"], first.state["pid"]);
    notifications.answer(make_directory);
    exec.wait().assert_ok().assert_stdout("by-agent\n");
}

fn an_agent_that_is_not_there_is_an_error() {
    let (bundle, agent) = with_agent(true);
    std::fs::remove_file(agent.path()).expect("the agent's socket");
    let container = bundle.build();
    let run = container.run();
    run.assert_fails().assert_stderr_contains("agent.sock");
    container.assert_gone(&run);
}

fn calls_that_no_agent_can_answer_are_refused() {
    let (bundle, _agent) = with_agent(true);
    let bundle = bundle.edit(|spec| spec["linux"]["seccomp"]["syscalls"][0]["names"] = json!(["write"]));
    bundle.refused(&["SCMP_ACT_NOTIFY", "write"]);
    let (bundle, _agent) = with_agent(true);
    bundle.set("/linux/seccomp/defaultAction", "SCMP_ACT_NOTIFY").refused(&["SCMP_ACT_NOTIFY", "default"]);
}

fn a_filter_that_ends_the_init_fails_start() {
    // Without no_new_privs it is loaded before the init becomes the user.
    let calls = ["setresuid", "setresgid", "setgroups", "capset", "prctl"];
    for action in ["SCMP_ACT_KILL_PROCESS", "SCMP_ACT_ERRNO"] {
        let forbidden = [&calls[..], &["sendmsg", "sendto", "write"]].concat();
        let filter = with_filter("SCMP_ACT_ALLOW", &json!([{ "names": forbidden, "action": action }]));
        let container = filter.set("/process/noNewPrivileges", false).create();
        container.pid();
        container.start().assert_fails().assert_stderr_contains("process.");
        container.until_stopped();
        let deleted = container.delete();
        container.assert_gone(deleted.assert_ok());
    }
}
