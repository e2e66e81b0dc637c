//! containerd with lxcrun's own shim, by `ctr`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci::Options as RuncOptions;
use containerd_shim_protos::types::introspection::RuntimeInfo;
use containerd_shim_protos::types::mount::Mount;
use lxcrun_test::engines::{Container, Containerd, Engine, IDLE, IMAGE, ShimTask, until};
use lxcrun_test::{Bundle, Fifo, Need, Runtime};
use serde_json::{Value, json};

struct Shim;

impl Shim {
    fn get() -> &'static Containerd {
        Containerd::with_shim()
    }
}

ctr_tests! { Shim has [
    it_says_what_the_runtime_can_do,
    a_hundred_containers_run_in_parallel,
    events_come_in_the_order_of_runcs_shim.needs(Need::Program("runc")),
    the_end_of_the_init_is_the_last_one,
    an_oom_kill_is_an_event.needs(Need::Controller("memory")),
    a_restored_checkpoint_counts_on.needs(Need::Criu),
    a_restored_checkpoint_with_fifos_counts_on.needs(Need::Criu),
    a_restored_checkpoint_prints_to_the_new_fifo.needs(Need::Criu),
    what_cannot_be_restored_can_be_removed.needs(Need::Criu),
    a_killed_shim_takes_its_container_along,
    a_killed_monitor_takes_its_container_along,
    containers_outlive_a_killed_containerd,
    a_pod_has_one_shim,
    an_idle_shim_does_not_wake_up,
    an_idle_container_costs_little_memory,
    a_pod_costs_little_memory_for_each_container,
    a_terminal_has_no_fifo_for_errors,
    a_terminal_ends_with_its_process,
    a_terminal_may_be_closed_and_opened_again,
    a_file_gets_what_is_printed,
    a_logger_gets_what_is_printed,
    a_logger_is_asked_to_end,
    options_are_runcs,
    a_user_namespace_is_made_as_ctr_asks,
    options_that_cannot_be_had_are_refused,
    owners_in_an_overlay_are_mapped,
    owners_in_a_bound_root_are_mapped,
    mappings_that_cannot_be_had_are_refused,
    a_file_is_mounted_by_a_loop_device.needs(Need::Program("mke2fs")).needs(Need::File("/dev/loop-control")),
    a_mount_gets_other_options_by_a_remount,
    a_type_that_is_a_program_is_mounted_by_its_helper,
] }

/// What containerd 2 asks any shim, and how it reads the answer.
fn it_says_what_the_runtime_can_do() {
    let told = |options: &[u8]| {
        let mut shim = Command::new(Runtime::get().shim().expect("our shim"));
        shim.arg("-info").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut shim = shim.spawn().expect("our shim");
        shim.stdin.take().expect("its input").write_all(options).expect("options");
        shim.wait_with_output().expect("its end")
    };
    let any = |kind: &str, value: Vec<u8>| Any { type_url: kind.into(), value, ..Any::default() };
    let runc = RuncOptions { systemd_cgroup: true, root: "/run/own".into(), ..RuncOptions::default() };
    let runc = any("containerd.runc.v1.Options", runc.write_to_bytes().expect("a message"));
    for options in [None, Some(runc)] {
        let output =
            told(&options.as_ref().map(|any| any.write_to_bytes().expect("a message")).unwrap_or_default());
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let info = RuntimeInfo::parse_from_bytes(&output.stdout).expect("containerd's message");
        assert_eq!(info.name, "io.containerd.lxcrun.v2");
        assert!(!info.version.version.is_empty());
        assert_eq!(info.options.as_ref(), options.as_ref());
        let (kind, features) = (&info.features.type_url, &info.features.value);
        assert_eq!(kind, "types.containerd.io/opencontainers/runtime-spec/1/features/Features");
        let features: Value = serde_json::from_slice(features).expect("JSON");
        let printed = Command::new(Runtime::get().path()).arg("features").output().expect("lxcrun");
        assert_eq!(features, serde_json::from_slice::<Value>(&printed.stdout).expect("JSON"));
        // What containerd looks for.
        assert!(features["mountOptions"].as_array().expect("a list").contains(&json!("rro")));
        assert!(features["linux"]["namespaces"].as_array().expect("a list").contains(&json!("user")));
        assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    }
    let binary = RuncOptions { binary_name: "runc".into(), ..RuncOptions::default() };
    let binary = any("containerd.runc.v1.Options", binary.write_to_bytes().expect("a message"));
    for options in [binary, any("nonsense.v1.Options", Vec::new())] {
        let output = told(&options.write_to_bytes().expect("a message"));
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    }
}

/// A path in the sandbox that no other test uses.
fn path(kind: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("/run/{kind}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// What containerd says of a task; nothing when it knows none.
fn status(ctr: &Containerd, name: &str) -> String {
    let tasks = ctr.call(&["task", "list"]);
    let own = tasks.lines().into_iter().find(|line| line.split_whitespace().next() == Some(name));
    own.and_then(|line| line.split_whitespace().last()).unwrap_or_default().to_owned()
}

/// The process that serves a container, unless it is another one's, too.
fn shims(ctr: &Containerd, container: &Container<'_>) -> Vec<String> {
    ctr.sandbox().pids_of(&["containerd-shim-lxcrun-v2 -namespace", &format!("-id {container} ")])
}

fn monitors(ctr: &Containerd, container: &Container<'_>) -> Vec<String> {
    ctr.sandbox().pids_of(&[&format!("lxcrun: monitor of {container} ")])
}

#[track_caller]
fn the_one(pids: &[String]) -> &str {
    assert_eq!(pids.len(), 1, "{pids:?}");
    &pids[0]
}

fn a_hundred_containers_run_in_parallel() {
    let next = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let number @ 0..100 = next.fetch_add(1, Ordering::Relaxed) {
                    let output = Shim::get().run("", &format!("echo {number}; exit {number}"));
                    output.assert_exit(number.cast_signed()).assert_stdout(&format!("{number}\n"));
                }
            });
        }
    });
}

/// `ctr events`, listening.
struct Events {
    child: Child,
    file: std::path::PathBuf,
}

impl Events {
    #[track_caller]
    fn listen(ctr: &Containerd) -> Events {
        let file = ctr.sandbox().path(path("events"));
        let output = fs::File::create(&file).expect("a file for events");
        let child = ctr.command(&["events"]).stdin(Stdio::null()).stdout(output).spawn().expect("ctr events");
        let events = Events { child, file };
        // It says nothing until there is something to say.
        let mut number = 0;
        let listening = until(|| {
            number += 1;
            let label = format!("probe={number}");
            ctr.call(&["namespaces", "label", ctr.sandbox().name(), &label]);
            !events.text().is_empty()
        });
        assert!(listening, "ctr events prints nothing");
        events
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// The topics of a container's task, in order.
    fn of(&self, name: &str) -> Vec<String> {
        let text = self.text();
        let own = text.lines().filter(|line| line.contains(&format!("\"{name}\"")));
        own.filter_map(|line| line.split(' ').find(|word| word.starts_with("/tasks/")).map(str::to_owned))
            .collect()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that can happen to a task, and the events of it.
fn life(ctr: &Containerd, runtime: &str, name: &str) -> Vec<String> {
    let events = Events::listen(ctr);
    let run = ["run", "--detach", "--null-io", "--runtime", runtime, IMAGE, name, "sh", "-c", IDLE];
    ctr.call(&run).assert_ok();
    ctr.call(&["task", "pause", name]).assert_ok();
    ctr.call(&["task", "resume", name]).assert_ok();
    ctr.call(&["task", "exec", "--exec-id", "one", name, "true"]).assert_ok();
    ctr.call(&["task", "kill", "--signal", "SIGKILL", name]).assert_ok();
    assert!(until(|| status(ctr, name) == "STOPPED"), "{}", status(ctr, name));
    ctr.call(&["task", "rm", name]);
    ctr.call(&["container", "rm", name]).assert_ok();
    let _ = until(|| events.of(name).last().is_some_and(|topic| topic == "/tasks/delete"));
    events.of(name)
}

fn events_come_in_the_order_of_runcs_shim() {
    let ctr = Shim::get();
    let theirs = life(ctr, "io.containerd.runc.v2", "events-of-runc");
    let ours = life(ctr, "io.containerd.lxcrun.v2", "events-of-lxcrun");
    let topics =
        ["create", "start", "paused", "resumed", "exec-added", "exec-started", "exit", "exit", "delete"];
    assert_eq!(ours, topics.map(|topic| format!("/tasks/{topic}")));
    assert_eq!(ours, theirs);
}

fn the_end_of_the_init_is_the_last_one() {
    let ctr = Shim::get();
    let events = Events::listen(ctr);
    let container = ctr.start("", IDLE);
    let (name, quoted) = (container.to_string(), format!("\"{container}\""));
    let execs: Vec<String> = (0..8).map(|number| format!("exec-{number}")).collect();
    for exec in &execs {
        ctr.call(&["task", "exec", "--detach", "--exec-id", exec, &name, "sleep", "1000"]).assert_ok();
    }
    container.call(&["task", "kill", "--signal", "SIGKILL"]).assert_ok();
    let exits = || -> Vec<String> {
        let text = events.text();
        let own = text.lines().filter(|line| line.contains(" /tasks/exit ") && line.contains(&quoted));
        own.map(str::to_owned).collect()
    };
    assert!(until(|| exits().len() == execs.len() + 1), "{:?}", exits());
    let exits = exits();
    assert!(exits.last().is_some_and(|exit| exit.contains(&format!("\"id\":{quoted}"))), "{exits:?}");
}

fn an_oom_kill_is_an_event() {
    let ctr = Shim::get();
    let events = Events::listen(ctr);
    let container = ctr.start("--memory-limit 33554432", "tail /dev/zero; exec sleep 1000");
    let name = container.to_string();
    assert!(until(|| events.of(&name).contains(&"/tasks/oom".to_owned())), "{:?}", events.of(&name));
    assert_eq!(status(ctr, &name), "RUNNING");
}

fn a_restored_checkpoint_counts_on() {
    counts_on_when_restored("");
}

fn a_restored_checkpoint_with_fifos_counts_on() {
    counts_on_when_restored("--null-io=false");
}

fn counts_on_when_restored(options: &str) {
    let ctr = Shim::get();
    // The token is in the program's memory alone: who says it again is the same program.
    let script = "token=$(cat /proc/sys/kernel/random/uuid); i=0;
        while :; do i=$((i+1)); echo $token $i > /next; mv /next /count; sleep 0.1; done";
    let container = ctr.start(options, script);
    let stdout = ctr.sandbox().read_link(format!("/proc/{}/fd/1", container.init()));
    assert_eq!(stdout.starts_with("/run/containerd/fifo"), !options.is_empty(), "{}", stdout.display());
    let said = || {
        let output = container.exec("", "cat /count");
        let (token, count) = output.stdout.trim().split_once(' ')?;
        Some((token.to_owned(), count.parse::<u32>().ok()?))
    };
    let has_reached = |count: u32| until(|| said().is_some_and(|(_, now)| now >= count));
    assert!(has_reached(3), "{:?}", said());
    let (token, count) = said().expect("it counts");

    let (name, image) = (container.to_string(), format!("localhost/checkpoint:{container}"));
    ctr.call(&["container", "checkpoint", "--task", "--rw", "--image", &name, &image]).assert_ok();
    assert!(has_reached(count + 3), "it does not go on: {:?}", said());
    ctr.call(&["task", "rm", "--force", &name]);
    ctr.call(&["container", "rm", &name]).assert_ok();
    ctr.call(&["container", "restore", "--live", "--rw", &name, &image]).assert_ok();
    let (restored, count) = said().expect("it counts again");
    assert_eq!(restored, token);
    assert!(has_reached(count + 3), "it does not count on: {:?}", said());
}

fn a_restored_checkpoint_prints_to_the_new_fifo() {
    let bundle = Bundle::busybox().sh("n=0; while read word; do n=$((n+1)); echo $n $word; done").build();
    let task = ShimTask::serve(Shim::get(), &bundle, Path::new("/bin"));
    let images = bundle.path("images");
    for (number, word) in [(1, "a"), (2, "b"), (3, "c")] {
        let mut ends = ["in", "out"].map(|name| Fifo::new(bundle.path(&format!("{name}-{number}"))));
        let created = task.create_with(|request| {
            let [stdin, stdout] = ends.each_ref().map(|fifo| fifo.path().display().to_string());
            (request.stdin, request.stdout, request.stderr) = (stdin, stdout.clone(), stdout);
            if number > 1 {
                request.checkpoint = images.display().to_string();
            }
        });
        created.expect("a container");
        task.start();
        ends[0].send(word);
        assert_eq!(ends[1].line(), format!("{number} {word}"));
        let _ = fs::remove_dir_all(&images);
        if number == 2 {
            task.checkpoint_by_containerd_1(&images);
        } else {
            task.checkpoint(&images);
        }
        assert_eq!(task.end(), 137);
    }
}

/// containerd's client names a fifo for errors, and makes none.
fn a_terminal_has_no_fifo_for_errors() {
    let bundle = Bundle::busybox().terminal().sh("echo one >&2; read word; echo $word").build();
    let task = ShimTask::serve(Shim::get(), &bundle, Path::new("/bin"));
    let mut ends = ["in", "out"].map(|name| Fifo::new(bundle.path(name)));
    let created = task.create_with(|request| {
        let paths = ["in", "out", "errors"].map(|name| bundle.path(name).display().to_string());
        [request.stdin, request.stdout, request.stderr] = paths;
        request.terminal = true;
    });
    created.expect("a container");
    task.start();
    assert_eq!(ends[1].line(), "one\r");
    ends[0].send("two");
    assert_eq!([ends[1].line(), ends[1].line()], ["two\r", "two\r"]);
    assert_eq!(task.end(), 0);
}

fn what_cannot_be_restored_can_be_removed() {
    let ctr = Shim::get();
    let lost = path("lost");
    let directory = ctr.sandbox().path(&lost);
    fs::create_dir(&directory).expect("a directory");
    let mount = format!("--mount type=bind,src={lost},dst=/lost,options=rbind");
    let container = ctr.start(&mount, IDLE);
    let (name, image) = (container.to_string(), format!("localhost/checkpoint:{container}"));
    ctr.call(&["container", "checkpoint", "--task", "--rw", "--image", &name, &image]).assert_ok();
    ctr.call(&["task", "rm", "--force", &name]);
    ctr.call(&["container", "rm", &name]).assert_ok();
    fs::remove_dir(&directory).expect("an empty directory");
    let restored = ctr.call(&["container", "restore", "--live", "--rw", &name, &image]);
    restored.assert_fails().assert_stderr_contains(&lost);
    ctr.call(&["task", "rm", "--force", &name]);
    assert_eq!(status(ctr, &name), "");
    ctr.call(&["container", "rm", &name]).assert_ok();
}

/// As under runc's shim: containerd removes what has lost its shim.
fn a_killed_shim_takes_its_container_along() {
    let ctr = Shim::get();
    let container = ctr.start("", IDLE);
    ctr.sandbox().kill(the_one(&shims(ctr, &container)));
    let name = container.to_string();
    assert!(until(|| matches!(&*status(ctr, &name), "" | "STOPPED")), "{}", status(ctr, &name));
    assert!(until(|| monitors(ctr, &container).is_empty()));
}

fn a_killed_monitor_takes_its_container_along() {
    let ctr = Shim::get();
    let container = ctr.start("", IDLE);
    ctr.sandbox().kill(the_one(&monitors(ctr, &container)));
    let name = container.to_string();
    assert!(until(|| status(ctr, &name) == "STOPPED"), "{}", status(ctr, &name));
    container.call(&["task", "rm"]).assert_ok().assert_stderr_contains("137");
}

fn containers_outlive_a_killed_containerd() {
    let ctr = Containerd::of_its_own_with_shim().unwrap_or_else(|reason| panic!("{reason}"));
    let [lasting, ended, orphan] = [(); 3].map(|()| ctr.start("", IDLE));
    let [ended_init, orphan_init] = [&ended, &orphan].map(Container::init);
    let orphans_shim = shims(&ctr, &orphan);
    ctr.sandbox().kill(the_one(&ctr.sandbox().pids_of(&["containerd --config"])));
    assert!(until(|| ctr.sandbox().pids_of(&["containerd --config"]).is_empty()));
    ctr.sandbox().kill(&ended_init);
    // Nobody cleans up now, so the container lives on.
    ctr.sandbox().kill(the_one(&orphans_shim));
    assert!(until(|| shims(&ctr, &orphan).is_empty()));
    assert!(ctr.sandbox().path(format!("/proc/{orphan_init}/root/bin")).exists());

    ctr.start_daemon().unwrap_or_else(|reason| panic!("{reason}"));
    assert_eq!(status(&ctr, &lasting.to_string()), "RUNNING");
    lasting.exec("", "echo there; sleep 0.2").assert_ok().assert_stdout("there\n");
    assert!(until(|| status(&ctr, &ended.to_string()) == "STOPPED"));
    ended.call(&["task", "rm"]).assert_ok().assert_stderr_contains("137");
    assert!(until(|| monitors(&ctr, &orphan).is_empty()));
    lasting.call(&["task", "kill"]).assert_ok();
    assert!(until(|| status(&ctr, &lasting.to_string()) == "STOPPED"));
}

fn a_pod_has_one_shim() {
    let ctr = Shim::get();
    let pod = path("pod").replace('/', "");
    let options = format!("--annotation io.kubernetes.cri.sandbox-id={pod}");
    let [first, second] = [(); 2].map(|()| ctr.start(&options, IDLE));
    let shim = shims(ctr, &first);
    assert!(shims(ctr, &second).is_empty());
    for container in [&first, &second] {
        let status = ctr.sandbox().read(format!("/proc/{}/status", the_one(&monitors(ctr, container))));
        assert!(status.contains(&format!("PPid:\t{}\n", the_one(&shim))), "{status}");
    }
    drop(second);
    first.exec("", "sleep 0.2; exit 3").assert_exit(3);
    drop(first);
    assert!(until(|| !ctr.sandbox().path(format!("/proc/{}", shim[0])).exists()));
}

fn an_idle_shim_does_not_wake_up() {
    let ctr = Shim::get();
    let container = ctr.start("", "exec sleep 1000");
    let shim = shims(ctr, &container);
    let tasks = ctr.sandbox().path(format!("/proc/{}/task", the_one(&shim)));
    let switches = || -> Vec<String> {
        let threads = fs::read_dir(&tasks).expect("the shim's threads").flatten();
        let status =
            threads.map(|thread| fs::read_to_string(thread.path().join("status")).unwrap_or_default());
        let line = |text: String| text.lines().find(|line| line.starts_with("voluntary")).map(str::to_owned);
        status.filter_map(line).collect()
    };
    // What has to do with the start may still go on.
    let quiet = until(|| {
        let before = switches();
        thread::sleep(std::time::Duration::from_secs(1));
        before == switches()
    });
    assert!(quiet, "{:?}", switches());
}

/// KiB of memory that processes account for: what they share with others is divided (PSS, proc_pid_smaps(5)).
fn memory_of(ctr: &Containerd, pids: &[String]) -> u64 {
    let of = |pid: &String| {
        let text = ctr.sandbox().read(format!("/proc/{pid}/smaps_rollup"));
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("PSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    pids.iter().map(of).sum()
}

fn an_idle_container_costs_little_memory() {
    let ctr = Shim::get();
    let container = ctr.start("", "exec sleep 1000");
    let beside = [shims(ctr, &container), monitors(ctr, &container)].concat();
    assert_eq!(beside.len(), 2);
    assert!(until(|| memory_of(ctr, &beside) <= 4 << 10), "{} KiB", memory_of(ctr, &beside));
}

fn a_pod_costs_little_memory_for_each_container() {
    const CONTAINERS: u64 = 20;
    let ctr = Shim::get();
    let options = format!("--annotation io.kubernetes.cri.sandbox-id={}", path("pod").replace('/', ""));
    let mut all: Vec<Container<'_>> =
        (0..CONTAINERS).map(|_| ctr.start(&options, "exec sleep 1000")).collect();
    let mut beside = shims(ctr, &all[0]);
    beside.extend(all.iter().flat_map(|container| monitors(ctr, container)));
    assert_eq!(beside.len(), all.len() + 1);
    let each = || memory_of(ctr, &beside) / CONTAINERS;
    assert!(until(|| each() <= 1331), "{} KiB", each()); // 1.3 MiB
    // The shim has the first one's name, and serves until the last one is gone.
    while all.pop().is_some() {}
}

/// Whoever it has left behind with the terminal: ctr reads to the end.
fn a_terminal_ends_with_its_process() {
    let container = Shim::get().start("", IDLE);
    let output = container.exec_on_terminal("", "setsid sleep 1001 & sleep 0.2; echo the end; exit 3", "");
    output.assert_exit(3).assert_stdout_contains("the end");
    container
        .exec("", "ps | grep 'sleep 100[1]'; sleep 0.2")
        .assert_ok()
        .assert_stdout_contains("sleep 1001");
}

fn a_terminal_may_be_closed_and_opened_again() {
    let script =
        "terminal=$(tty); echo one; exec 0<&- 1>&- 2>&-; sleep 0.2; exec >$terminal; echo two; sleep 0.2";
    let output = Shim::get().run_on_terminal("", script, "");
    output.assert_ok().assert_stdout_contains("one").assert_stdout_contains("two");
}

fn a_file_gets_what_is_printed() {
    let ctr = Shim::get();
    let directory = path("logs");
    for _ in 0..2 {
        let uri = format!("--log-uri file://{directory}/deep/a%20log");
        ctr.run(&uri, "echo out; echo err >&2").assert_ok().assert_stdout("");
    }
    let mut lines: Vec<String> =
        ctr.sandbox().read(format!("{directory}/deep/a log")).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["err", "err", "out", "out"]);
}

/// A program in the sandbox.
fn logger(ctr: &Containerd, script: &str) -> String {
    let program = path("logger");
    fs::write(ctr.sandbox().path(&program), format!("#!/bin/sh\n{script}")).expect("a logger");
    ctr.sandbox().command("chmod").args(["755", &program]).status().expect("chmod");
    program
}

fn a_logger_gets_what_is_printed() {
    let ctr = Shim::get();
    // It closes what says that it is ready, in itself and in the shell that reads on. To the end of what was printed.
    let script = "exec 5>&-\n{ echo \"$1 $CONTAINER_NAMESPACE $4\"; cat <&3; cat <&4; } >\"$2\"\n";
    let (program, log) = (logger(ctr, &format!("trap '' TERM\n{script}")), path("logged"));
    let uri = format!("--log-uri binary://{program}?into={log}&into=/no&text=a+b");
    ctr.run(&uri, "echo out; echo err >&2").assert_ok().assert_stdout("");
    let wanted = format!("into {} a b\nout\nerr\n", ctr.sandbox().name());
    assert_eq!(ctr.sandbox().read(&log), wanted);
    let output = ctr.run("--log-uri binary:///nothere", "echo out");
    output.assert_fails().assert_stderr_contains("nothere");
}

/// By its signal: this one would go on.
fn a_logger_is_asked_to_end() {
    let ctr = Shim::get();
    let log = path("logged");
    let script = "trap 'echo asked >>\"$2\"; exit' TERM\nmkfifo \"$2.never\"\nexec 6<>\"$2.never\" 5>&-\n\
        echo \"$CONTAINER_ID\" >>\"$2\"\nread line <&6\n";
    let uri = format!("--log-uri binary://{}?into={log}", logger(ctr, script));
    let container = ctr.start("", IDLE);
    container.exec(&format!("--exec-id of-its-own {uri}"), "true").assert_ok();
    assert_eq!(ctr.sandbox().read(&log), "of-its-own\nasked\n");
}

/// `ctr run` with options of the runtime.
fn options(ctr: &Containerd, toml: &str) -> String {
    let file = path("options");
    fs::write(ctr.sandbox().path(&file), toml).expect("a file of options");
    format!("--runtime-config-path {file}")
}

fn options_are_runcs() {
    let ctr = Shim::get();
    let root = path("root");
    let options = options(ctr, &format!("Root = \"{root}\"\nIoUid = 7\nIoGid = 8\nNoPivotRoot = true\n"));
    let container = ctr.start(&options, IDLE);
    let state = ctr.sandbox().path(format!("{root}/{}/{container}/state.json", ctr.sandbox().name()));
    assert!(state.exists(), "{}", state.display());
    // Also by whoever cleans up after a killed one.
    ctr.sandbox().kill(the_one(&shims(ctr, &container)));
    assert!(until(|| !state.exists()));
}

/// It says who owns the pipes by options that it has for no other runtime.
fn a_user_namespace_is_made_as_ctr_asks() {
    let ctr = Shim::get();
    let anew = "echo out >/dev/stdout; echo err >/dev/stderr; sleep 0.2";
    let users = "--uidmap 0:65536:65536 --gidmap 0:65536:65536";
    ctr.run(users, anew).assert_ok().assert_stdout("out\n").assert_stderr_contains("err\n");
    let container = ctr.start(users, IDLE);
    for user in ["0", "1000"] {
        let output = container.exec(&format!("--user {user}"), anew);
        output.assert_ok().assert_stdout("out\n").assert_stderr_contains("err\n");
    }
}

fn options_that_cannot_be_had_are_refused() {
    let ctr = Shim::get();
    for (toml, reason) in [
        ("BinaryName = \"/usr/bin/runc\"", "BinaryName"),
        ("Root = \"relative\"", "no absolute path"),
        ("Nonsense = true", "Nonsense"),
        ("ShimCgroup = \"/no/such/cgroup\"", "no such cgroup"),
    ] {
        ctr.run(&options(ctr, toml), "true").assert_fails().assert_stderr_contains(reason);
    }
}

/// Root of the containers below, on the host.
const BASE: u32 = 200_000;

/// A bundle whose root is still to be mounted: what is in it is in `lower`.
fn without_root() -> Bundle {
    let bundle = Bundle::busybox();
    fs::rename(bundle.rootfs("/"), bundle.path("lower")).expect("the layer");
    bundle
}

/// A bundle in a user namespace. What its root is made of is in `lower` and belongs to root of the host.
fn mapped(script: &str) -> lxcrun_test::Container {
    let bundle = without_root();
    let map = json!([{ "containerID": 0, "hostID": BASE, "size": 65536 }]);
    bundle
        .namespace("user", None)
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .sh(script)
        .build()
}

/// An option of a mount with a path of the bundle.
fn option(name: &str, bundle: &lxcrun_test::Container, path: &str) -> String {
    format!("{name}={}", bundle.path(path).display())
}

fn owners_in_an_overlay_are_mapped() {
    let script = "stat -c %u:%g / /bin /second; cat /second; touch /new; chown 5:6 /new; stat -c %u:%g /new";
    let bundle = mapped(script);
    bundle.rewrite(
        "/process/capabilities",
        json!({ "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"],
        "bounding": ["CAP_CHOWN"] }),
    );
    for directory in ["second", "upper", "work"] {
        fs::create_dir(bundle.path(directory)).expect("a directory");
    }
    fs::write(bundle.path("second/second"), "of the second layer\n").expect("a file");
    chown(bundle.path("second/second"), Some(7), Some(8)).expect("a new owner");
    // As containerd's snapshotter has it: what is written belongs to the container.
    chown(bundle.path("upper"), Some(BASE), Some(BASE)).expect("a new owner");
    let task = ShimTask::serve(Shim::get(), &bundle, Path::new("/bin"));
    let layers = format!("{}:{}", option("lowerdir", &bundle, "second"), bundle.path("lower").display());
    let [upper, work] =
        [("upperdir", "upper"), ("workdir", "work")].map(|(name, path)| option(name, &bundle, path));
    let map = format!("0:{BASE}:65536");
    let (uidmap, gidmap) = (format!("uidmap={map}"), format!("gidmap={map}"));
    task.create("overlay", "overlay", &["index=off", &layers, &upper, &work, &uidmap, &gidmap])
        .expect("a container");
    assert_eq!(task.mounts().len(), 1, "{:#?}", task.mounts());
    let wanted = "0:0\n0:0\n7:8\nof the second layer\n5:6\n";
    assert_eq!(task.run(), (0, wanted.into()));
    assert_eq!(task.mounts(), [""; 0]);
    assert_eq!(fs::metadata(bundle.path("upper/new")).expect("the new file").uid(), BASE + 5);
    assert_eq!(fs::metadata(bundle.path("lower/bin")).expect("the layer").uid(), 0);
}

fn owners_in_a_bound_root_are_mapped() {
    let bundle = mapped("stat -c %u:%g / /bin; touch /new 2>/dev/null || echo refused");
    let task = ShimTask::serve(Shim::get(), &bundle, Path::new("/bin"));
    let source = bundle.path("lower").display().to_string();
    // Several ranges, which leave no id out.
    let (uidmap, gidmap) = ("uidmap=0:200000:1000,1000:201000:64536", "gidmap=0:200000:65536");
    task.create("bind", &source, &["rbind", "ro", uidmap, gidmap]).expect("a container");
    assert_eq!(task.mounts().len(), 1, "{:#?}", task.mounts());
    assert_eq!(task.run(), (0, "0:0\n0:0\nrefused\n".into()));
    assert_eq!(task.mounts(), [""; 0]);
}

fn mappings_that_cannot_be_had_are_refused() {
    let bundle = mapped("true");
    let task = ShimTask::serve(Shim::get(), &bundle, Path::new("/bin"));
    let (uidmap, gidmap) = ("uidmap=0:200000:65536", "gidmap=0:200000:65536");
    let source = bundle.path("lower").display().to_string();
    let layer = option("lowerdir", &bundle, "lower");
    let missing = format!("{layer}:{}", bundle.path("missing").display());
    let same = format!("upperdir={source}");
    for (kind, options, word) in [
        ("bind", vec!["bind", uidmap], "gidmap"),
        ("bind", vec!["bind", "uidmap=0:200000", gidmap], "CONTAINER:HOST:SIZE"),
        ("bind", vec!["bind", "uidmap=0:0:1,0:1:1", gidmap], "uidmap=0:0:1,0:1:1"),
        ("overlay", vec![uidmap, gidmap], "lowerdir"),
        ("overlay", vec![&*missing, uidmap, gidmap], "missing"),
        ("overlay", vec![&*layer, &*same, uidmap, gidmap], "overlay"),
        // Others of its kind may have it, too, so its owners can't be mapped.
        ("proc", vec![uidmap, gidmap], "cannot map the owners"),
    ] {
        let refusal = task.create(kind, &source, &options).expect_err(kind);
        assert!(refusal.contains(word), "{refusal}");
        assert_eq!(task.mounts(), [""; 0], "{refusal}");
    }
}

/// Whether a file is a loop device.
fn is_looped(file: &Path) -> bool {
    let devices = fs::read_dir("/sys/block").expect("block devices").flatten();
    let files = devices.map(|device| fs::read_to_string(device.path().join("loop/backing_file")));
    files.flatten().any(|name| name.trim() == file.to_string_lossy())
}

fn a_file_is_mounted_by_a_loop_device() {
    let bundle = without_root().sh("cat /kept 2>/dev/null; echo written >/kept || echo refused").build();
    let image = bundle.path("image");
    fs::File::create(&image).and_then(|file| file.set_len(16 << 20)).expect("a file");
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-d"])
        .arg(bundle.path("lower"))
        .arg(&image)
        .status();
    assert!(made.expect("mke2fs").success());
    let task = ShimTask::serve(Shim::get(), &bundle, Path::new("/bin"));
    let source = image.display().to_string();
    for (options, printed) in [
        (["loop", "ro", "nomand", "noatime"].as_slice(), "refused\n"),
        // The last one of a kind counts.
        (&["ro", "loop", "rw", "strictatime", "nostrictatime"], ""),
        (&["loop", "ro", "direct-io"], "written\nrefused\n"),
    ] {
        task.create("ext4", &source, options).expect("a container");
        assert!(is_looped(&image), "{options:?}");
        let (status, output) = task.run();
        assert_eq!(status, 0, "{output}");
        let output: Vec<&str> = output.lines().filter(|line| !line.contains("can't create")).collect();
        assert_eq!(output.join("\n").trim(), printed.trim(), "{options:?}");
        assert_eq!(task.mounts(), [""; 0]);
        assert!(until(|| !is_looped(&image)));
        let _ = fs::remove_file(bundle.path("output"));
    }
    let refusal = task.create("xfs", &source, &["loop", "ro"]).expect_err("no xfs");
    assert!(refusal.contains("xfs"), "{refusal}");
    assert!(until(|| !is_looped(&image)));
}

fn a_mount_gets_other_options_by_a_remount() {
    let bundle = without_root().sh("touch /new 2>/dev/null || echo refused").build();
    let task = ShimTask::serve(Shim::get(), &bundle, Path::new("/bin"));
    let (source, output) = (bundle.path("lower"), bundle.path("output"));
    let created = task.create_with(|request| {
        request.stdout = format!("file://{}", output.display());
        for options in [["rbind"].as_slice(), &["bind", "remount", "ro"]] {
            request.rootfs.push(Mount {
                type_: "bind".into(),
                source: source.display().to_string(),
                options: options.iter().map(|&option| option.into()).collect(),
                ..Mount::default()
            });
        }
    });
    created.expect("a container");
    assert_eq!(task.mounts().len(), 1, "{:#?}", task.mounts());
    assert_eq!(task.run(), (0, "refused\n".into()));
    let refusal = task.create("bind", "/", &["bind", "remount"]).expect_err("nothing is mounted");
    assert!(refusal.contains("Invalid argument"), "{refusal}");
}

fn a_type_that_is_a_program_is_mounted_by_its_helper() {
    let bundle = without_root().sh("cat /said").build();
    let programs = bundle.path("programs");
    fs::create_dir(&programs).expect("a directory");
    // What it leaves behind keeps its output open.
    let script = "#!/bin/sh\n[ \"$4\" = good ] || { echo no such type >&2; exit 1; }\nsleep 1000 &\n\
        echo $! >\"$1/../pid\"; mount --bind \"$1\" \"$2\"; shift 2; echo \"$@\" >\"$0.said\"\n";
    fs::write(programs.join("mount.fuse3"), script).expect("a helper");
    fs::set_permissions(programs.join("mount.fuse3"), fs::Permissions::from_mode(0o755)).expect("a mode");
    let task = ShimTask::serve(Shim::get(), &bundle, &programs);
    let source = bundle.path("lower").display().to_string();
    let refusal = task.create("fuse3.bad", &source, &[]).expect_err("no such type");
    assert!(refusal.contains("no such type"), "{refusal}");
    assert_eq!(task.mounts(), [""; 0]);
    fs::write(bundle.path("lower/said"), "mounted\n").expect("a file");
    task.create("fuse3.good", &source, &["a=b", "uidmap=0:1:2"]).expect("a container");
    let said = fs::read_to_string(programs.join("mount.fuse3.said")).expect("its words");
    assert_eq!(said, "-t good -o a=b -o uidmap=0:1:2\n");
    assert_eq!(task.run(), (0, "mounted\n".into()));
    assert_eq!(task.mounts(), [""; 0]);
    Shim::get().sandbox().kill(fs::read_to_string(bundle.path("pid")).expect("a pid").trim());
}
