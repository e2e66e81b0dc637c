//! Docker.

use std::fs;

use lxcrun_test::Need;
use lxcrun_test::engines::{Docker, Engine, IDLE, until};

use super::{COUNTER, counts};

docker_like_tests! { Docker has [
    the_default_seccomp_profile_blocks,
    init_reaps_and_passes_signals_on,
    health_checks_run_in_the_container,
    containers_of_a_network_know_each_others_names,
    oom_kills_with_137_and_is_an_event,
    a_checkpointed_container_counts_on.needs(Need::Criu),
    annotations_reach_lxc.needs(Need::Docker(24)).lxcrun_only("other runtimes have no LXC"),
    a_delegated_cgroup_is_the_containers
        .needs(Need::Docker(24))
        .needs(Need::CgroupV2)
        .lxcrun_only("it is an annotation of lxcrun's"),
    a_generated_apparmor_profile_confines
        .needs(Need::Docker(24))
        .needs(Need::AppArmor)
        .lxcrun_only("it is an annotation of lxcrun's"),
    users_are_remapped,
] }

fn annotations_reach_lxc() {
    let docker = Docker::get();
    let annotation = |setting: &str| format!("--annotation org.linuxcontainers.lxc.{setting}");
    docker.run(&annotation("prlimit.nofile=77"), "ulimit -n").assert_ok().assert_stdout("77\n");
    let refused = docker.run(&annotation("hook.pre-start=/bin/true"), "true");
    refused.assert_fails().assert_stderr_contains("lxc.hook.pre-start");
}

fn a_delegated_cgroup_is_the_containers() {
    let options = "--annotation org.linuxcontainers.lxc.cgroup-delegate=true --pids-limit 50";
    let script = "mkdir /sys/fs/cgroup/mine && cat /proc/self/cgroup /sys/fs/cgroup/pids.max";
    Docker::get().run(options, script).assert_ok().assert_stdout("0::/\nmax\n");
    // Without it the cgroup is the host's.
    Docker::get().run("", "mkdir /sys/fs/cgroup/mine").assert_fails();
}

fn a_generated_apparmor_profile_confines() {
    let docker = Docker::get();
    let directory = docker.sandbox().path("/etc/lxcrun");
    fs::create_dir_all(&directory).expect("a directory");
    let allow = "[annotations]\nallow = [\"lxc.apparmor.profile\"]\n";
    fs::write(directory.join("lxcrun.toml"), allow).expect("a configuration");
    let options = "--annotation org.linuxcontainers.lxc.apparmor.profile=generated";
    let output = docker.run(options, "cat /proc/self/attr/current");
    output.assert_ok().assert_stdout_contains("(enforce)").assert_stdout_contains("lxc");
}

/// `--userns-remap`: root of the containers is somebody without rights.
fn users_are_remapped() {
    let docker = Docker::remapped();
    let container = docker.start("-v /run/image:/host", IDLE);
    let map = container.exec("", "cat /proc/self/uid_map; id -u; touch /new; stat -c %u /new /host /dev/shm");
    let words: Vec<&str> = map.assert_ok().stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "65536", "0", "0", "65534", "0"]);
    container.exec("", "touch /host/new").assert_fails();
    container.exec("", "mount -t tmpfs tmpfs /tmp").assert_fails();
    container.call(&["stop", "-t", "20"]).assert_ok();
    let output = docker.run_on_terminal("--user 1000:1000 --memory 64m", "id -u; tty", "");
    output.assert_ok().assert_stdout_contains("1000\n/dev/pts/0\n");
}

fn a_checkpointed_container_counts_on() {
    let docker = Docker::get();
    let container = docker.start("", COUNTER);
    counts(&container, 1);
    let name = container.to_string();
    docker.call(&["checkpoint", "create", &name, "first"]).assert_ok();
    assert!(until(|| container.inspect("{{.State.Running}}") == "false"));
    docker.call(&["start", "--checkpoint", "first", &name]).assert_ok();
    counts(&container, 2);
}

fn the_default_seccomp_profile_blocks() {
    // Docker's AppArmor profile forbids it, too, where there is AppArmor, in other words.
    let (docker, unconfined) = (Docker::get(), "--security-opt apparmor=unconfined");
    let output = docker.run(unconfined, "unshare -U true");
    output.assert_exit(1).assert_stderr_contains("Operation not permitted");
    docker.run(&format!("{unconfined} --security-opt seccomp=unconfined"), "unshare -U true").assert_ok();
}

fn init_reaps_and_passes_signals_on() {
    let container = Docker::get().start("--init", "trap 'exit 9' TERM; echo up; sleep 1000 & wait");
    container.await_log("up\n");
    container.exec("", "cat /proc/1/comm").assert_ok().assert_stdout("docker-init\n");
    container.call(&["stop", "-t", "20"]).assert_ok();
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "9");
}

fn health_checks_run_in_the_container() {
    follows_health_checks(Docker::get());
}

/// A health check is an exec in the container, whose end says how the container is.
pub fn follows_health_checks(docker: &Docker) {
    let options = "--health-cmd test${IFS}-e${IFS}/well --health-interval 200ms --health-retries 1";
    let container = docker.start(options, IDLE);
    let health = |wanted| until(|| container.inspect("{{.State.Health.Status}}") == wanted);
    assert!(health("unhealthy"), "{}", container.inspect("{{json .State.Health}}"));
    container.exec("", "touch /well").assert_ok();
    assert!(health("healthy"), "{}", container.inspect("{{json .State.Health}}"));
}

fn containers_of_a_network_know_each_others_names() {
    resolves_names_of_a_network(Docker::get());
}

/// What `docker compose` makes of two services: a network of their own, where each has the name of its service.
pub fn resolves_names_of_a_network(docker: &Docker) {
    docker.call(&["network", "create", "project"]).assert_ok();
    let service = |name: &str| format!("--network project --network-alias {name}");
    let web = docker.start(&service("web"), "while :; do echo hello | nc -l -p 7000; done");
    let ask = "until nc web 7000 </dev/null; do sleep 0.05; done";
    docker.run(&service("client"), ask).assert_ok().assert_stdout("hello\n");
    drop(web);
    docker.call(&["network", "rm", "project"]).assert_ok();
}

fn oom_kills_with_137_and_is_an_event() {
    let docker = Docker::get();
    // The shim learns of it beside the exit: the program outlives its child so that it surely does.
    let hog = "tail /dev/zero; code=$?; sleep 0.5; exit $code";
    let container = docker.start("--memory 32m --memory-swap 32m", hog);
    container.call(&["wait"]).assert_stdout("137\n");
    assert_eq!(container.inspect("{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137");
    // It is one as soon as it happens, not just at the end.
    let lasting = docker.start("--memory 32m --memory-swap 32m", "tail /dev/zero; exec sleep 1000");
    let filter = format!("container={lasting}");
    let events = ["events", "--since", "1m", "--until", "0s", "--filter", &filter, "--format", "{{.Action}}"];
    let told = until(|| docker.call(&events).assert_ok().lines().contains(&"oom"));
    assert!(told, "{}", docker.call(&events));
}
