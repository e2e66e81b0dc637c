//! Hooks: six kinds, in their order, in their namespaces, with the state on stdin.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lxcrun_test::{Bundle, Container, Fifo, pidfd, tests, until_exit};
use serde_json::{Value, json};

tests![
    all_hooks_run_in_order.not_on("runc", "1.1 runs poststart hooks at the end of create"),
    hooks_run_in_the_namespaces_that_are_theirs,
    the_state_on_stdin_has_the_status_of_the_moment
        .not_on("runc", "1.1 runs poststart hooks at the end of create"),
    the_state_on_stdin_names_the_container,
    hooks_get_exactly_the_environment_of_the_spec,
    hooks_without_an_environment_have_that_of_the_runtime,
    hooks_get_their_arguments,
    no_signal_is_blocked_in_hooks,
    hooks_may_use_every_processor,
    two_hooks_of_a_kind_run_one_after_the_other,
    a_hook_need_not_read_the_state,
    a_failing_prestart_hook_aborts_create,
    a_failing_create_runtime_hook_aborts_create,
    a_failing_create_container_hook_aborts_create,
    a_failing_start_container_hook_aborts_start,
    a_failing_poststart_hook_stops_the_container
        .lxcrun_only("runc 1.1 runs them at the end of create, crun ignores it"),
    create_container_hooks_run_in_the_root,
    start_container_hooks_inherit_the_environment_of_the_program,
    start_container_hooks_are_under_the_filter_of_the_program,
    a_failing_poststop_hook_changes_nothing.not_on("runc", "1.1 leaves the remaining hooks out"),
    poststop_hooks_run_after_a_failed_create,
    a_hook_that_takes_too_long_is_killed,
    a_hook_that_takes_too_long_is_killed_with_what_it_has_started.lxcrun_only("others kill the hook alone"),
    what_a_hook_leaves_behind_lives_on.not_on("runc", "1.1 waits for whoever has the hook's output"),
    a_signal_ends_a_run_that_waits_for_a_hook.lxcrun_only("others may leave something behind"),
    a_timeout_beyond_all_time_is_none.lxcrun_only("runc 1.1 takes it for one that is over"),
    a_timeout_of_zero_is_refused.lxcrun_only("runc 1.1 takes it for one that is over"),
    a_hook_that_does_not_exist_aborts_create,
    a_hook_that_is_no_absolute_path_is_refused.lxcrun_only("runc and crun run it, or try to"),
    start_kills_the_container_whose_poststart_hooks_it_cannot_read
        .lxcrun_only("it looks into the state directory"),
    a_hook_sees_the_network_namespace_before_the_program_runs,
];

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A bundle with a directory that is at the same path on the host and in the container, for hooks to write to.
struct Notes {
    dir: PathBuf,
}

impl Notes {
    fn new() -> (Bundle, Notes) {
        let bundle = Bundle::busybox();
        let dir = bundle.make_dir("notes");
        let place = dir.to_str().expect("UTF-8").to_owned();
        (bundle.bind(&dir, &place, &[]), Notes { dir })
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    /// A hook that runs `script` in the directory of the notes, with the state that came in $state.
    fn hook(&self, script: &str) -> Value {
        let script = format!("read -r state; cd {}; {script}", self.dir.display());
        json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] })
    }

    /// All six kinds run `script`, in which KIND is the kind.
    fn on_all(&self, bundle: Bundle, script: &str) -> Bundle {
        KINDS.iter().fold(bundle, |bundle, kind| {
            bundle.push(&format!("/hooks/{kind}"), self.hook(&script.replace("KIND", kind)))
        })
    }
}

/// Creates, starts, ends and deletes it. The notes go with what is returned.
#[must_use]
fn whole_life(bundle: Bundle) -> Container {
    let container = bundle.start();
    container.until_stopped();
    container.delete().assert_ok();
    container
}

fn all_hooks_run_in_order() {
    let (bundle, notes) = Notes::new();
    let program = format!("echo program >> {}/order", notes.dir.display());
    let container = notes.on_all(bundle, "echo KIND >> order").sh(&program).create();
    container.pid();
    assert_eq!(notes.read("order"), "prestart\ncreateRuntime\ncreateContainer\n");
    container.start().assert_ok();
    container.until_stopped();
    let mut order = notes.read("order");
    // The program doesn't wait for poststart hooks, nor they for it.
    order = order.replace("program\n", "");
    assert_eq!(order, "prestart\ncreateRuntime\ncreateContainer\nstartContainer\npoststart\n");
    container.delete().assert_ok();
    assert!(notes.read("order").ends_with("poststop\n"));
}

fn hooks_run_in_the_namespaces_that_are_theirs() {
    let (bundle, notes) = Notes::new();
    let script = "for ns in mnt pid net; do readlink /proc/self/ns/$ns; done > KIND";
    let container = notes.on_all(bundle, script).args(["sleep", "1000"]).create();
    let link = |pid: &str, ns: &str| fs::read_link(format!("/proc/{pid}/ns/{ns}")).expect("a namespace");
    let of = |pid: &str| ["mnt", "pid", "net"].map(|ns| format!("{}\n", link(pid, ns).display())).concat();
    let (host, inside) = (of("self"), of(&container.pid().to_string()));
    container.start().assert_ok();
    container.finish();
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        assert_eq!(notes.read(kind), host, "{kind} runs in the runtime's namespaces");
    }
    for kind in ["createContainer", "startContainer"] {
        assert_eq!(notes.read(kind), inside, "{kind} runs in the container's namespaces");
    }
}

fn states() -> (Container, impl Fn(&str) -> Value) {
    let (bundle, notes) = Notes::new();
    let bundle = bundle.set("/annotations", json!({ "a": "b" }));
    let container = notes.on_all(bundle, "printf %s \"$state\" > KIND").args(["sleep", "1000"]).start();
    container.finish();
    (container, move |kind| serde_json::from_str(&notes.read(kind)).unwrap_or_else(|e| panic!("{kind}: {e}")))
}

fn the_state_on_stdin_has_the_status_of_the_moment() {
    let (_container, state) = states();
    let status = KINDS.map(|kind| state(kind)["status"].as_str().unwrap_or_default().to_owned());
    assert_eq!(status, ["creating", "creating", "creating", "created", "running", "stopped"]);
}

fn the_state_on_stdin_names_the_container() {
    let (container, state) = states();
    for kind in KINDS {
        let state = state(kind);
        assert_eq!(state["id"], container.id(), "{kind}");
        assert_eq!(state["bundle"], container.dir().to_str().expect("UTF-8"), "{kind}");
        assert_eq!(state["annotations"], json!({ "a": "b" }), "{kind}");
        assert!(state["ociVersion"].is_string(), "{kind}");
    }
    for kind in ["prestart", "createRuntime", "poststart"] {
        assert_eq!(state(kind)["pid"], container.pid(), "{kind}");
    }
}

fn hooks_get_exactly_the_environment_of_the_spec() {
    let (bundle, notes) = Notes::new();
    let mut hook = notes.hook("/usr/bin/tr '\\0' '\\n' < /proc/$$/environ > env");
    hook["env"] = json!(["A=1", "B=x y"]);
    let _life = whole_life(bundle.push("/hooks/createRuntime", hook));
    assert_eq!(notes.read("env"), "A=1\nB=x y\n");
}

fn hooks_without_an_environment_have_that_of_the_runtime() {
    let (bundle, notes) = Notes::new();
    let mut hook = notes.hook("echo \"$MARK\" > env");
    hook.as_object_mut().expect("a hook").remove("env");
    let container = bundle.push("/hooks/createRuntime", hook).build();
    container.call_with_bundle("create").env("MARK", "seen").arg(container.id()).output().assert_ok();
    assert_eq!(notes.read("env"), "seen\n");
}

fn hooks_get_their_arguments() {
    let (bundle, notes) = Notes::new();
    let script = format!("for a; do echo \"[$a]\"; done > {}/args", notes.dir.display());
    let hook = json!({ "path": "/bin/sh", "args": ["any name", "-c", script, "sh", "", "a b"] });
    let _life = whole_life(bundle.push("/hooks/createRuntime", hook));
    assert_eq!(notes.read("args"), "[]\n[a b]\n");
}

fn no_signal_is_blocked_in_hooks() {
    let (bundle, notes) = Notes::new();
    // In the foreground, where the runtime keeps signals for the program.
    let container = notes.on_all(bundle, "grep SigBlk /proc/self/status > KIND").args(["true"]).build();
    container.run().assert_ok();
    for kind in KINDS {
        assert_eq!(notes.read(kind), format!("SigBlk:\t{:016x}\n", 0), "{kind}");
    }
}

fn hooks_may_use_every_processor() {
    let (bundle, notes) = Notes::new();
    let script = "grep Cpus_allowed: /proc/self/status > KIND";
    let container = notes.on_all(bundle, script).args(["true"]).build();
    container.run().assert_ok();
    let own = fs::read_to_string("/proc/self/status").expect("own status");
    let own = own.lines().find(|line| line.starts_with("Cpus_allowed:")).expect("processors");
    for kind in KINDS {
        assert_eq!(notes.read(kind).trim_end(), own, "{kind}");
    }
}

fn two_hooks_of_a_kind_run_one_after_the_other() {
    let (bundle, notes) = Notes::new();
    let bundle = notes.on_all(bundle, "echo 1 >> KIND");
    let _life = whole_life(notes.on_all(bundle, "echo 2 >> KIND"));
    assert_eq!(KINDS.map(|kind| notes.read(kind)), ["1\n2\n"; 6]);
}

fn a_hook_need_not_read_the_state() {
    // Much more than a pipe holds, so that the runtime can't just write it all and be done.
    let bundle = Bundle::busybox().set("/annotations/long", "x".repeat(1 << 20));
    let bundle = KINDS
        .iter()
        .fold(bundle, |bundle, kind| bundle.push(&format!("/hooks/{kind}"), json!({ "path": "/bin/true" })));
    let _life = whole_life(bundle);
}

/// A hook of this kind fails: create says so, the second hook doesn't run, and nothing is left.
fn aborts_create(kind: &str) {
    let (bundle, notes) = Notes::new();
    let bundle = bundle.push(&format!("/hooks/{kind}"), notes.hook("echo why >&2; exit 3"));
    let bundle = bundle.push(&format!("/hooks/{kind}"), notes.hook("echo second > second"));
    let program = format!("echo ran > {}/program", notes.dir.display());
    let container = bundle.sh(&program).build();
    container.refused(&["hook", "3"]);
    assert_eq!(notes.read("second") + &notes.read("program"), "");
}

fn a_failing_prestart_hook_aborts_create() {
    aborts_create("prestart");
}

fn a_failing_create_runtime_hook_aborts_create() {
    aborts_create("createRuntime");
}

fn a_failing_create_container_hook_aborts_create() {
    aborts_create("createContainer");
}

fn a_failing_start_container_hook_aborts_start() {
    let (bundle, notes) = Notes::new();
    let program = format!("echo ran > {}/program", notes.dir.display());
    let container = bundle.push("/hooks/startContainer", notes.hook("exit 3")).sh(&program).create();
    container.pid();
    container.start();
    container.until_stopped();
    assert_eq!(notes.read("program"), "");
    let deleted = container.delete_force();
    container.assert_gone(deleted.assert_ok());
}

fn a_failing_poststart_hook_stops_the_container() {
    let (bundle, notes) = Notes::new();
    let bundle = bundle.push("/hooks/poststart", notes.hook("exit 3"));
    let container =
        bundle.push("/hooks/poststart", notes.hook("echo 2 > second")).args(["sleep", "1000"]).create();
    let start = container.start();
    assert_ne!(start.code(), 0, "{start}");
    start.assert_stderr_contains("error running poststart hook #0: /bin/sh: exit status 3");
    container.until_stopped();
    assert_eq!(notes.read("second"), "", "the second hook ran");
    container.delete().assert_ok();
}

fn create_container_hooks_run_in_the_root() {
    let bundle = Bundle::busybox().sh("cat /made");
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", "echo inside > ./made"] });
    bundle.push("/hooks/createContainer", hook).run().assert_ok().assert_stdout("inside\n");
}

fn start_container_hooks_inherit_the_environment_of_the_program() {
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", "echo $ONE$HOME > /made"] });
    let bundle = Bundle::busybox().env("ONE=1").sh("cat /made");
    bundle.push("/hooks/startContainer", hook).run().assert_ok().assert_stdout("1/root\n");
}

fn start_container_hooks_are_under_the_filter_of_the_program() {
    let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls":
        [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }] });
    let hook = json!({ "path": "/bin/mkdir", "args": ["mkdir", "/made"] });
    let bundle = Bundle::busybox().set("/linux/seccomp", filter).push("/hooks/startContainer", hook);
    let run = bundle.run();
    assert_ne!(run.code(), 0, "{run}");
    run.assert_stderr_contains("error running");
}

fn a_failing_poststop_hook_changes_nothing() {
    let (bundle, notes) = Notes::new();
    let bundle = bundle.push("/hooks/poststop", notes.hook("exit 3"));
    let _life = whole_life(bundle.push("/hooks/poststop", notes.hook("echo 2 > second")));
    assert_eq!(notes.read("second"), "2\n");
}

fn poststop_hooks_run_after_a_failed_create() {
    let (bundle, notes) = Notes::new();
    let bundle = bundle.push("/hooks/createRuntime", notes.hook("exit 3"));
    let container = bundle.push("/hooks/poststop", notes.hook("echo x > poststop")).build();
    container.refused(&["hook"]);
    assert_eq!(notes.read("poststop"), "x\n");
}

fn a_hook_that_takes_too_long_is_killed() {
    for kind in ["createRuntime", "createContainer"] {
        let (bundle, notes) = Notes::new();
        let mut hook = notes.hook("echo $$ > pid; exec sleep 1000");
        hook["timeout"] = json!(3);
        let start = Instant::now();
        let container = bundle.push(&format!("/hooks/{kind}"), hook).build();
        container.refused(&["hook"]);
        assert!(start.elapsed() < Duration::from_secs(30), "{kind}: killed late");
        assert_ne!(notes.read("pid"), "");
    }
}

fn a_hook_that_takes_too_long_is_killed_with_what_it_has_started() {
    let (bundle, notes) = Notes::new();
    let mut hook = notes.hook("sleep 1000 & echo $! > pid; wait");
    hook["timeout"] = json!(1);
    let container = bundle.push("/hooks/createRuntime", hook).build();
    container.refused(&["hook", "timed out"]);
    until_exit(notes.read("pid").trim().parse().expect("a pid"));
}

fn what_a_hook_leaves_behind_lives_on() {
    let (bundle, notes) = Notes::new();
    let mut hook = notes.hook("sleep 1000 & echo $! > pid");
    hook["timeout"] = json!(100);
    let container = bundle.push("/hooks/createRuntime", hook).args(["true"]).build();
    container.run().assert_ok();
    let daemon = pidfd(notes.read("pid").trim().parse().expect("a pid")).expect("it lives on");
    rustix::process::pidfd_send_signal(daemon, rustix::process::Signal::KILL).expect("it lives on");
}

fn a_signal_ends_a_run_that_waits_for_a_hook() {
    for kind in ["createRuntime", "createContainer", "startContainer", "poststart"] {
        let (bundle, notes) = Notes::new();
        let mut told = Fifo::new(notes.dir.join("told"));
        let hook = notes.hook("echo ready > told; sleep 1000; true");
        let container = bundle.push(&format!("/hooks/{kind}"), hook).args(["sleep", "1000"]).build();
        let run = container.spawn(|call| call);
        assert_eq!(told.line(), "ready", "{kind}");
        run.signal(rustix::process::Signal::TERM);
        let ended = run.wait();
        container.assert_gone(ended.assert_fails().assert_stderr_contains("signal"));
    }
}

fn a_timeout_beyond_all_time_is_none() {
    for kind in KINDS {
        let (bundle, notes) = Notes::new();
        let mut hook = notes.hook("echo x > ran");
        hook["timeout"] = json!(i64::MAX);
        let _life = whole_life(bundle.push(&format!("/hooks/{kind}"), hook));
        assert_eq!(notes.read("ran"), "x\n", "{kind}");
    }
}

fn a_timeout_of_zero_is_refused() {
    for kind in KINDS {
        let hook = json!({ "path": "/bin/true", "timeout": 0 });
        let field = format!("hooks.{kind}[0].timeout");
        Bundle::busybox().push(&format!("/hooks/{kind}"), hook).refused(&[&field]);
    }
}

fn a_hook_that_does_not_exist_aborts_create() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let hook = json!({ "path": "/no/such/hook" });
        Bundle::busybox().push(&format!("/hooks/{kind}"), hook).refused(&["/no/such/hook"]);
    }
}

fn a_hook_that_is_no_absolute_path_is_refused() {
    for kind in KINDS {
        let hook = json!({ "path": "bin/true" });
        Bundle::busybox().push(&format!("/hooks/{kind}"), hook).refused(&["hooks", "bin/true"]);
    }
}

fn start_kills_the_container_whose_poststart_hooks_it_cannot_read() {
    let (bundle, notes) = Notes::new();
    let container = bundle.push("/hooks/poststart", notes.hook("true")).args(["sleep", "1000"]).create();
    let spec = container.path("root").join(container.id()).join("spec.json");
    fs::write(&spec, "not JSON").expect("the specification that was kept");
    container.start().assert_fails();
    container.until_stopped();
}

fn a_hook_sees_the_network_namespace_before_the_program_runs() {
    let (bundle, notes) = Notes::new();
    let script = "pid=${state#*\\\"pid\\\":}; pid=${pid%%[,\\}]*}; \
                  nsenter --net=/proc/$((pid))/ns/net ls /sys/class/net > seen 2>&1; \
                  nsenter --net=/proc/$((pid))/ns/net sh -c 'wc -l < /proc/net/dev' > lines 2>&1";
    let _life = whole_life(bundle.push("/hooks/createRuntime", notes.hook(script)));
    // Two lines of heading, and the loopback.
    assert_eq!(notes.read("lines"), "3\n", "{}", notes.read("seen"));
}
