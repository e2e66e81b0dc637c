//! Raw LXC settings, of the command line and of annotations: each has its effect, on execs too, or is refused by its key.

use std::fs;

use lxcrun_test::{Bundle, Call, Container, Need, Output, is_v2, tests};
use serde_json::json;

tests![
    a_host_name_is_the_containers_alone.lxcrun_only(WHY),
    an_annotation_may_have_its_old_name.lxcrun_only(WHY),
    a_key_is_one_word.lxcrun_only(WHY),
    no_path_adds_a_line_to_the_configuration.lxcrun_only(WHY),
    a_limit_of_a_cgroup_has_the_last_word.needs(Need::Controller("memory")).lxcrun_only(WHY),
    a_device_is_allowed_and_denied.needs(Need::Controller("devices")).lxcrun_only(WHY),
    a_limit_that_the_kernel_refuses_is_named.needs(Need::Controller("pids")).lxcrun_only(WHY),
    a_time_offset_makes_a_time_namespace.needs(Need::File("/proc/self/ns/time")).lxcrun_only(WHY),
    what_lxcrun_does_itself_is_refused.lxcrun_only(WHY),
    a_parameter_of_the_host_is_refused.lxcrun_only(WHY),
    the_end_of_a_detached_container_is_not_lxcs.lxcrun_only(WHY),
    a_hook_of_the_end_runs_with_a_monitor.lxcrun_only(WHY),
    a_death_by_sighup_is_an_end_and_no_reboot.lxcrun_only(WHY),
    what_liblxc_would_forget_or_pass_over_is_refused.lxcrun_only(WHY),
    an_exec_has_the_limits_too.lxcrun_only(WHY),
    a_limit_below_the_needs_of_the_init.lxcrun_only(WHY),
    a_setting_without_a_value_has_something_to_take_back.lxcrun_only(WHY),
    a_wrong_limit_is_named.lxcrun_only(WHY),
    network_devices_of_a_failed_start_are_gone.lxcrun_only(WHY),
];

const WHY: &str = "others have no raw LXC settings";

/// `run` with these settings and without a bundle.
fn call(bundle: &Bundle, settings: &[&str], script: &str) -> Call {
    let settings = settings.iter().flat_map(|setting| ["--lxc-conf", setting]);
    Call::new(bundle.path("root")).arg("run").args(settings).args(["--", "sh", "-c", script])
}

#[track_caller]
fn run(settings: &[&str], script: &str) -> Output {
    call(&Bundle::busybox(), settings, script).output()
}

/// A container whose annotations are these settings.
fn annotated(settings: &[(&str, &str)]) -> Bundle {
    let pairs = settings.iter().map(|(key, value)| (format!("org.linuxcontainers.lxc.{key}"), json!(value)));
    Bundle::busybox().set("/annotations", pairs.collect::<serde_json::Map<_, _>>())
}

fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").expect("the host's name")
}

fn a_host_name_is_the_containers_alone() {
    run(&["lxc.uts.name=raw"], "hostname").assert_ok().assert_stdout("raw\n");
    annotated(&[("uts.name", "raw")]).sh("hostname").run().assert_ok().assert_stdout("raw\n");
    let before = host_name();
    // The harness would let it: a host of another name is what must not be.
    let bundle = annotated(&[("uts.name", before.trim())]).set("/hostname", "");
    bundle.without_namespace("uts").refused(&["lxc.uts.name", "uts namespace"]);
    let joined = annotated(&[("uts.name", before.trim())]).set("/hostname", "");
    joined.without_namespace("uts").namespace("uts", Some("/proc/self/ns/uts")).refused(&["lxc.uts.name"]);
    annotated(&[("uts.name", "a\tb")]).refused(&["lxc.uts.name", "control character"]);
    annotated(&[("uts.name", &"x".repeat(65))]).refused(&["uts.name", "64 bytes"]);
    assert_eq!(host_name(), before);
}

fn an_annotation_may_have_its_old_name() {
    annotated(&[("utsname", "old")]).sh("hostname").run().assert_ok().assert_stdout("old\n");
    annotated(&[("limit.nofile", "55")]).sh("ulimit -n").run().assert_ok().assert_stdout("55\n");
    // The old name gives no more than the new one.
    for key in ["aa_profile", "network.type", "limits.nofile"] {
        annotated(&[(key, "x")]).refused(&["is not allowed in an annotation"]);
    }
    for key in ["tty", "id_map", "init_cmd"] {
        annotated(&[(key, "1")]).refused(&[key, "annotation"]);
    }
}

fn a_key_is_one_word() {
    annotated(&[("prlimit.x\nlxc.hook.post-stop = /x\n#", "")]).refused(&["is no name of an LXC setting"]);
    let run = run(&["lxc.prlimit.x\nlxc.log.file="], "true");
    run.assert_fails().assert_stderr_contains("is no name of an LXC setting");
}

fn no_path_adds_a_line_to_the_configuration() {
    let container = Bundle::busybox().set("/linux/cgroupsPath", "/a\nlxc.log.file = b").build();
    container.create().assert_fails();
    let bundle = Bundle::busybox();
    let root = bundle.path("ro\not");
    let list = Call::new(&root).arg("list").output();
    list.assert_fails().assert_stderr_contains("--root").assert_stderr_contains("control character");
    assert!(!root.exists());
}

/// Where a container sees its own cgroup.
fn own_file(controller: &str, v1: &str, v2: &str) -> String {
    if is_v2() { format!("/sys/fs/cgroup/{v2}") } else { format!("/sys/fs/cgroup/{controller}/{v1}") }
}

fn a_limit_of_a_cgroup_has_the_last_word() {
    let (memory, pids) = if is_v2() {
        ("lxc.cgroup2.memory.max=67108864", "lxc.cgroup2.pids.max=77")
    } else {
        ("lxc.cgroup.memory.limit_in_bytes=64m", "lxc.cgroup.pids.max=77")
    };
    let bundle = Bundle::busybox();
    let call = Call::new(bundle.path("root")).args(["run", "--memory", "128m", "--pids", "99"]);
    let files =
        [own_file("memory", "memory.limit_in_bytes", "memory.max"), own_file("pids", "pids.max", "pids.max")];
    let settings = ["--lxc-conf", memory, "--lxc-conf", pids];
    let output = call.args(settings).args(["--", "cat"]).args(files).output();
    output.assert_ok().assert_stdout("67108864\n77\n");
}

fn a_device_is_allowed_and_denied() {
    let version = if is_v2() { "cgroup2" } else { "cgroup" };
    // Writing needs no right of the kernel's log.
    let script = "mknod /dev/log-of-kernel c 1 11; (: >/dev/log-of-kernel) && echo opened; head -c 1 /dev/urandom >/dev/null \
        && echo random; (: >/dev/null) && echo null";
    run(&[], script).assert_stdout("random\nnull\n");
    let allow = format!("lxc.{version}.devices.allow=c 1:11 rwm");
    run(&[&allow], script).assert_stdout("opened\nrandom\nnull\n");
    let deny = format!("lxc.{version}.devices.deny=c 1:9 rwm");
    run(&[&allow, &deny], script).assert_stdout("opened\nnull\n");
    let wrong = format!("lxc.{version}.devices.allow");
    run(&[&format!("{wrong}=c 1")], "true").assert_fails().assert_stderr_contains(&wrong);
}

fn a_limit_that_the_kernel_refuses_is_named() {
    let key = if is_v2() { "lxc.cgroup2.pids.max" } else { "lxc.cgroup.pids.max" };
    run(&[&format!("{key}=many")], "true").assert_fails().assert_stderr_contains(key);
    run(&[&format!("{key}=")], "true").assert_fails().assert_stderr_contains("has no value");
    let nothing = key.replace("pids.max", "pids.nothing");
    run(&[&format!("{nothing}=1")], "true").assert_fails().assert_stderr_contains(&nothing);
    let freezer = key.replace("pids.max", "freezer.state");
    run(&[&format!("{freezer}=FROZEN")], "true").assert_fails().assert_stderr_contains("lxcrun pause");
}

fn a_time_offset_makes_a_time_namespace() {
    let offsets = "cat /proc/self/timens_offsets";
    let output = run(&["lxc.time.offset.boot=2h", "lxc.time.offset.monotonic=-1500ms"], offsets);
    let words: Vec<&str> = output.assert_ok().stdout.split_whitespace().collect();
    assert_eq!(words, ["monotonic", "-2", "500000000", "boottime", "7200", "0"], "{output}");
    run(&["lxc.time.offset.boot=2"], "true").assert_fails().assert_stderr_contains("lxc.time.offset.boot");
    let joined = annotated(&[("time.offset.boot", "2h")]).namespace("time", Some("/proc/self/ns/time"));
    joined.refused(&["lxc.time.offset", "new time namespace"]);
}

fn what_lxcrun_does_itself_is_refused() {
    for setting in [
        "lxc.net.0.type=none",
        "lxc.hook.autodev=/bin/true",
        "lxc.hook.clone=/bin/true",
        "lxc.hook.destroy=/bin/true",
        "lxc.ephemeral=1",
        "lxc.arch=i686",
        "lxc.keyring.session=1",
        "lxc.init.cwd=/tmp",
        "lxc.execute.cmd=true",
        "lxc.console.size=1",
        "lxc.log.syslog=daemon",
    ] {
        let key = setting.split('=').next().expect("a key");
        run(&[setting], "true").assert_fails().assert_stderr_contains(key);
    }
}

fn a_parameter_of_the_host_is_refused() {
    let forward = "cat /proc/sys/net/ipv4/ip_forward";
    run(&["lxc.sysctl.net.ipv4.ip_forward=1"], forward).assert_ok().assert_stdout("1\n");
    let host = run(&["lxc.sysctl.vm.swappiness=60"], "true");
    host.assert_fails().assert_stderr_contains("would change the host");
}

fn the_end_of_a_detached_container_is_not_lxcs() {
    for setting in ["lxc.hook.post-stop=/bin/true", "lxc.hook.stop=/bin/true", "lxc.net.0.type=phys"] {
        let bundle = Bundle::busybox();
        let call = Call::new(bundle.path("root")).args(["run", "-d", "--lxc-conf", setting, "--", "true"]);
        let key = setting.split('=').next().expect("a key");
        call.output().assert_fails().assert_stderr_contains(key).assert_stderr_contains("LXC's monitor");
    }
}

fn a_hook_of_the_end_runs_with_a_monitor() {
    let bundle = Bundle::busybox();
    let told = bundle.path("told");
    let hook = format!("lxc.hook.post-stop=/bin/sh -c 'echo ended >{}'", told.display());
    call(&bundle, &[&hook], "true").output().assert_ok();
    assert_eq!(fs::read_to_string(told).expect("what the hook wrote"), "ended\n");
}

/// liblxc takes it for a reboot, as it is in a PID namespace, and would start the container again.
fn a_death_by_sighup_is_an_end_and_no_reboot() {
    let bundle = Bundle::busybox().without_namespace("pid").sh("kill -HUP $$");
    let told = bundle.path("told");
    let hooks = ["pre-start", "start-host", "stop", "post-stop"].map(|kind| {
        let hook = format!("/bin/sh -c 'echo {kind} $LXC_TARGET >>{}'", told.display());
        (format!("org.linuxcontainers.lxc.hook.{kind}"), json!(hook))
    });
    let allow = "[annotations]\nallow = [\"lxc.hook.*\"]";
    let bundle = bundle.set("/annotations", hooks.into_iter().collect::<serde_json::Map<_, _>>()).host(format!(
        "mount -t tmpfs tmpfs /etc -o mode=755 && mkdir -p /etc/lxcrun && printf '{allow}' >/etc/lxcrun/lxcrun.toml"
    ));
    let container = bundle.build();
    container.run_with(|call| call).assert_exit(129);
    let told = fs::read_to_string(told).expect("what the hooks wrote");
    assert_eq!(told, "pre-start\nstart-host\nstop stop\npost-stop stop\n");
}

fn what_liblxc_would_forget_or_pass_over_is_refused() {
    for (settings, words) in [
        (
            &["lxc.net.0.type=veth", "lxc.net.0.flags=up", "lxc.net.0.type=empty"][..],
            "lxc.net.0.type: comes before",
        ),
        (&["lxc.net.0="], "lxc.net.0: has no setting"),
        (&["lxc.net.0.type=veth", "lxc.net.0.mtu=abc"], "lxc.net.0.mtu"),
        (&["lxc.net.0.type=veth", "lxc.net.0.mtu=0"], "lxc.net.0.mtu"),
    ] {
        run(settings, "true").assert_fails().assert_stderr_contains(words);
    }
}

const LIMIT: &str = "ulimit -Sn; ulimit -Hn";

fn an_exec_has_the_limits_too() {
    let wanted = json!([{ "type": "RLIMIT_NOFILE", "soft": 900, "hard": 1000 }]);
    let bundle = annotated(&[("prlimit.nofile", "70:80")]).set("/process/rlimits", wanted);
    let container: Container = bundle.sh(&format!("{LIMIT}; exec sleep 1000")).start();
    container.exec(["sh", "-c", LIMIT]).assert_ok().assert_stdout("70\n80\n");
    // What an exec asks for itself is another thing.
    let process = json!({ "args": ["sh", "-c", LIMIT], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 75, "hard": 76 }] });
    let file = container.path("process.json");
    fs::write(&file, process.to_string()).expect("a file");
    let exec = container.call("exec").arg("--process").arg(file).arg(container.id()).output();
    exec.assert_ok().assert_stdout("75\n76\n");
    assert_eq!(container.stdout(), "70\n80\n");
    container.finish();
}

fn a_limit_below_the_needs_of_the_init() {
    annotated(&[("prlimit.nofile", "20")]).sh(LIMIT).run().assert_ok().assert_stdout("20\n20\n");
}

fn a_setting_without_a_value_has_something_to_take_back() {
    for key in
        ["lxc.prlimit.nofile", "lxc.uts.name", "lxc.apparmor.profile", "lxc.sysctl.net.ipv4.ip_forward"]
    {
        let run = run(&[&format!("{key}=")], "true");
        run.assert_fails().assert_stderr_contains(key).assert_stderr_contains("has no value");
    }
    annotated(&[("prlimit.nofile", "")]).refused(&["lxc.prlimit.nofile", "has no value"]);
    let two = run(&["lxc.uts.name=one", "lxc.uts.name=", "lxc.uts.name=two"], "hostname");
    two.assert_ok().assert_stdout("two\n");
}

fn a_wrong_limit_is_named() {
    for (key, value) in
        [("prlimit.files", "1"), ("prlimit.files", ""), ("prlimit.nofile", "many"), ("prlimit.nofile", "2:1")]
    {
        annotated(&[(key, value)]).refused(&[&format!("lxc.{key}")]);
    }
    annotated(&[("prlimit.nofile", "99999999999")]).refused(&["lxc.prlimit.nofile", "RLIMIT_NOFILE"]);
}

fn network_devices_of_a_failed_start_are_gone() {
    let host_name = format!("raw{}", std::process::id() % 1_000_000);
    let pair = format!("lxc.net.0.veth.pair={host_name}");
    // liblxc finds out in the container, and leaves the pair to the kernel, which takes its time.
    let settings = ["lxc.net.0.type=veth", &pair, "lxc.net.0.hwaddr=01:00:00:00:00:01"];
    for _ in 0..10 {
        run(&settings, "true").assert_fails().assert_stderr_contains("hw address");
        let device = std::path::Path::new("/sys/class/net").join(&host_name);
        assert!(!device.exists(), "{}", device.display());
    }
}
