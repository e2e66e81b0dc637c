//! Podman.

use std::fs;

use lxcrun_test::engines::{Engine, IDLE, IMAGE, Podman, Sandbox};
use lxcrun_test::{Need, Runtime};
use serde_json::Value;

use super::{COUNTER, counts};

docker_like_tests! { Podman has [
    annotations_are_in_the_runtimes_state,
    an_annotation_is_an_lxc_setting.lxcrun_only("other runtimes have no LXC"),
    an_annotation_that_leaves_the_container_is_refused.lxcrun_only("other runtimes have no LXC"),
    hooks_of_a_directory_are_run,
    containers_of_a_pod_share_its_namespaces.alone(),
    errors_come_through_a_log_in_json_too,
    a_checkpointed_container_counts_on.needs(Need::Criu),
    an_exported_checkpoint_is_a_container_again.needs(Need::Criu),
    oom_kills_with_137_and_conmon_is_told,
] }

fn a_checkpointed_container_counts_on() {
    let podman = Podman::get();
    let container = podman.start("", COUNTER);
    counts(&container, 1);
    container.call(&["container", "checkpoint", "--leave-running"]).assert_ok();
    counts(&container, 2);
    container.call(&["container", "checkpoint"]).assert_ok();
    assert_eq!(container.inspect("{{.State.Running}} {{.State.Checkpointed}}"), "false true");
    container.call(&["container", "restore"]).assert_ok();
    assert_eq!(container.inspect("{{.State.Running}}"), "true");
    counts(&container, 3);
}

fn an_exported_checkpoint_is_a_container_again() {
    let podman = Podman::get();
    let container = podman.start("", COUNTER);
    counts(&container, 1);
    let id = container.id();
    let file = format!("/run/{id}.tar");
    container.call(&["container", "checkpoint", "--export", &file]).assert_ok();
    container.call(&["rm"]).assert_ok();
    podman.call(&["container", "restore", "--import", &file]).assert_ok();
    fs::remove_file(podman.sandbox().path(&file)).expect("the exported checkpoint");
    // The program sees its own file system, with the pipe in it.
    container.exec("", "echo >/next").assert_ok();
    container.await_log("number 3\n");
}

fn an_annotation_is_an_lxc_setting() {
    let podman = Podman::get();
    let options = "--annotation org.linuxcontainers.lxc.prlimit.nofile=77";
    podman.run(options, "ulimit -n").assert_ok().assert_stdout("77\n");
}

fn an_annotation_that_leaves_the_container_is_refused() {
    let podman = Podman::get();
    for (key, value) in
        [("hook.pre-start", "/bin/true"), ("rootfs.path", "/"), ("net.0.type", "phys"), ("bogus", "1")]
    {
        let output = podman.run(&format!("--annotation org.linuxcontainers.lxc.{key}={value}"), "true");
        output.assert_fails().assert_stderr_contains(&format!("lxc.{key}"));
    }
}

fn annotations_are_in_the_runtimes_state() {
    let podman = Podman::get();
    let container = podman.start("--annotation org.example.mark=here", IDLE);
    let state =
        podman.sandbox().command(&Runtime::get().to_string()).args(["state", &container.id()]).output();
    let state: Value = serde_json::from_slice(&state.expect("the runtime").stdout).expect("a state in JSON");
    assert_eq!(state["annotations"]["org.example.mark"], "here", "{state}");
    assert_eq!(state["pid"].to_string(), container.init(), "{state}");
}

fn hooks_of_a_directory_are_run() {
    let podman = Podman::get();
    let dir = podman.sandbox().volume(
        "hook.json",
        r#"{"version": "1.0.0", "when": {"always": true}, "stages": ["prestart", "poststop"],
            "hook": {"path": "/bin/sh", "args": ["sh", "-c", "echo; cat >>\"$0\"/states", "DIR"]}}"#,
    );
    let file = podman.sandbox().path(&dir).join("hook.json");
    let hook = fs::read_to_string(&file).expect("the hook").replace("DIR", &dir);
    fs::write(file, hook).expect("the hook");
    let output =
        podman.run_once("", &["echo", "hi"], &|run| podman.call(&[&["--hooks-dir", &dir], run].concat()));
    output.assert_ok().assert_stdout("hi\n");
    let states = podman.sandbox().read(format!("{dir}/states"));
    let states: Vec<Value> = serde_json::Deserializer::from_str(&states)
        .into_iter()
        .map(|state| state.expect("a state"))
        .collect();
    let seen: Vec<&str> = states.iter().filter_map(|state| state["status"].as_str()).collect();
    assert!(
        [["creating", "stopped"], ["created", "stopped"]].iter().any(|wanted| seen == wanted),
        "{states:?}"
    );
}

fn containers_of_a_pod_share_its_namespaces() {
    lxcrun_test::remove_plain_directories();
    let podman = Podman::get();
    let pod = format!("pod-{}", std::process::id());
    let parent = podman.run_options()[1].clone();
    let infra = ["--infra-image", IMAGE, "--infra-command", "sleep 1000", "--cgroup-parent", &parent];
    podman.call(&[&["pod", "create", "--name", &pod], infra.as_slice()].concat()).assert_ok();
    let see = "for kind in net ipc uts; do readlink /proc/self/ns/$kind; done";
    let run = || podman.call(&["run", "--rm", "--pod", &pod, IMAGE, "sh", "-c", see]);
    let (one, two) = (run(), run());
    podman.call(&["pod", "rm", "--force", "--time", "0", &pod]).assert_ok();
    one.assert_ok().assert_stdout(&two.assert_ok().stdout);
}

/// podman that takes the runtime for one of those that speak JSON: it gives them `--log FILE --log-format=json`.
struct ExpectsJson {
    config: String,
}

impl ExpectsJson {
    fn new() -> ExpectsJson {
        let ours = Podman::get().sandbox().read("/etc/containers/containers.conf");
        let told = "[engine]\nruntime_supports_json = [\"lxcrun\", \"runc\", \"crun\"]\n";
        let dir = Podman::get().sandbox().volume("containers.conf", &format!("{ours}{told}"));
        ExpectsJson { config: format!("CONTAINERS_CONF={dir}/containers.conf") }
    }
}

impl Engine for ExpectsJson {
    fn sandbox(&self) -> &Sandbox {
        Podman::get().sandbox()
    }

    fn client(&self) -> Vec<String> {
        [vec!["env".into(), self.config.clone()], Podman::get().client()].concat()
    }

    fn run_options(&self) -> Vec<String> {
        Podman::get().run_options()
    }
}

fn errors_come_through_a_log_in_json_too() {
    let podman = ExpectsJson::new();
    podman.run_program("", &["nothere"]).assert_exit(127).assert_stderr_contains("nothere");
    let container = podman.start("", IDLE);
    container.exec_program("", &["nothere"]).assert_exit(127).assert_stderr_contains("nothere");
}

/// conmon, of the version that goes with podman 4.3, says so by a file in the directory that podman was called in.
fn oom_kills_with_137_and_conmon_is_told() {
    let podman = Podman::get();
    let container = podman.start("--memory 32m --memory-swap 32m", "exec tail /dev/zero");
    container.call(&["wait"]).assert_stdout("137\n");
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "137");
    let told =
        container.inspect("{{.State.OOMKilled}}") == "true" || podman.sandbox().path("/run/oom").exists();
    assert!(told, "neither podman nor conmon knows");
}
