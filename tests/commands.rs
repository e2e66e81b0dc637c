//! What commands say about a container, and change in it: update, events, ps, pause and resume, exec's options.

use std::fs;
use std::process::Stdio;

use lxcrun_test::{
    Bundle, Cgroups, Container, Need, Runtime, cgroup_parent, hierarchies, is_v2, read_line, tests,
};
use serde_json::{Value, json};

tests![
    update_sets_each_limit.needs(Need::CgroupV1("memory")),
    update_takes_sizes_with_units.needs(Need::Controller("memory")),
    update_to_unlimited_memory_takes_swap_along.needs(Need::CgroupV1("memory")),
    update_takes_a_file_and_standard_input.needs(Need::Controller("pids")),
    update_from_a_file_ignores_the_options.needs(Need::Controller("pids")),
    update_gives_the_oom_killer_back.needs(Need::CgroupV1("memory")).lxcrun_only("others leave it off"),
    update_refuses_a_value_of_several_lines.needs(Need::Controller("cpuset")).lxcrun_only("others write it"),
    update_of_nothing_changes_nothing.needs(Need::Controller("memory")),
    update_refuses_what_is_wrong,
    update_passes_over_obsolete_kernel_limits,
    update_without_rdt_says_so.not_on("crun", "says nothing"),
    stats_have_runcs_fields.needs(Need::CgroupV1("memory")),
    events_are_stats_in_an_interval.needs(Need::Controller("memory")),
    events_tell_of_no_kill_beside_the_container
        .needs(Need::Controller("memory"))
        .lxcrun_only("runc's are those of a cgroup above, too"),
    events_take_an_interval_beyond_all_time
        .needs(Need::Controller("memory"))
        .lxcrun_only("runc takes no such interval"),
    events_refuse_what_is_wrong,
    ps_prints_what_ps_does.needs(Need::Program("ps")),
    exec_adds_groups_to_those_of_the_user.not_on("crun", "takes them alone"),
    exec_takes_the_last_word_on_a_variable,
    exec_refuses_a_user_that_is_no_number,
    kill_sends_term_by_itself,
    delete_by_force_of_nothing_is_no_failure,
];

fn sleeper() -> Container {
    Bundle::busybox().args(["sleep", "100"]).start()
}

/// `update` with these options, which must work.
#[track_caller]
fn update(container: &Container, options: &[&str]) {
    container.call("update").args(options).arg(container.id()).output().assert_ok();
}

/// A limit in the container's cgroup on the host.
#[track_caller]
fn limit(container: &Container, controller: &str, v1_file: &str, v2_file: &str) -> String {
    Cgroups::of(container.pid()).read(controller, v1_file, v2_file)
}

fn memory_limit(container: &Container) -> String {
    limit(container, "memory", "memory.limit_in_bytes", "memory.max")
}

fn pids_limit(container: &Container) -> String {
    limit(container, "pids", "pids.max", "pids.max")
}

fn update_sets_each_limit() {
    let container = sleeper();
    let options = [
        "--memory=33554432",
        "--memory-reservation=16777216",
        "--cpu-period=50000",
        "--cpu-quota=25000",
        "--cpu-share=512",
        "--cpuset-cpus=0",
        "--cpuset-mems=0",
        "--pids-limit=20",
    ];
    update(&container, &options);
    for (controller, file, value) in [
        ("memory", "memory.limit_in_bytes", "33554432"),
        ("memory", "memory.soft_limit_in_bytes", "16777216"),
        ("cpu", "cpu.cfs_period_us", "50000"),
        ("cpu", "cpu.cfs_quota_us", "25000"),
        ("cpu", "cpu.shares", "512"),
        ("cpuset", "cpuset.cpus", "0"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "20"),
    ] {
        assert_eq!(limit(&container, controller, file, ""), value, "{file}");
    }
    update(&container, &["--memory=-1", "--cpu-quota=-1", "--pids-limit=-1"]);
    assert_eq!(limit(&container, "cpu", "cpu.cfs_quota_us", ""), "-1");
    assert_eq!(pids_limit(&container), "max");
    assert!(memory_limit(&container).len() > 15);
}

fn update_takes_sizes_with_units() {
    let container = sleeper();
    for (size, bytes) in [("64m", 64 << 20), ("48MiB", 48 << 20), ("65536K", 64 << 20), ("0.0625g", 64 << 20)]
    {
        update(&container, &["--memory", size]);
        assert_eq!(memory_limit(&container), bytes.to_string(), "{size}");
    }
}

fn update_to_unlimited_memory_takes_swap_along() {
    let memory = json!({ "limit": 64 << 20, "swap": 64 << 20 });
    let container = Bundle::busybox().args(["sleep", "100"]).resource("memory", memory).start();
    update(&container, &["--memory=-1"]);
    for file in ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"] {
        assert!(limit(&container, "memory", file, "").len() > 15, "{file}");
    }
}

fn update_takes_a_file_and_standard_input() {
    let container = sleeper();
    fs::write(container.path("resources"), r#"{"pids":{"limit":30}}"#).expect("a file");
    let file = container.path("resources");
    container.call("update").arg("--resources").arg(&file).arg(container.id()).output().assert_ok();
    assert_eq!(pids_limit(&container), "30");
    fs::write(&file, r#"{"pids":{"limit":40}}"#).expect("a file");
    let call = container.call("update").args(["-r", "-", container.id()]);
    call.stdio(fs::File::open(&file).expect("a file"), Stdio::null(), Stdio::null()).output().assert_ok();
    assert_eq!(pids_limit(&container), "40");
    // Go's programs read names so.
    fs::write(&file, r#"{"Pids":{"LIMIT":50},"future":1}"#).expect("a file");
    container.call("update").arg("-r").arg(&file).arg(container.id()).output().assert_ok();
    assert_eq!(pids_limit(&container), "50");
}

fn update_from_a_file_ignores_the_options() {
    let container = sleeper();
    fs::write(container.path("resources"), r#"{"pids":{"limit":30}}"#).expect("a file");
    let call = container.call("update").args(["--pids-limit", "50", "-r"]).arg(container.path("resources"));
    call.arg(container.id()).output().assert_ok();
    assert_eq!(pids_limit(&container), "30");
}

fn update_gives_the_oom_killer_back() {
    let memory = json!({ "disableOOMKiller": true });
    let container = Bundle::busybox().args(["sleep", "100"]).resource("memory", memory).start();
    let control = || limit(&container, "memory", "memory.oom_control", "");
    assert!(control().contains("oom_kill_disable 1"));
    fs::write(container.path("resources"), r#"{"memory":{"disableOOMKiller":false}}"#).expect("a file");
    container
        .call("update")
        .arg("-r")
        .arg(container.path("resources"))
        .arg(container.id())
        .output()
        .assert_ok();
    assert!(control().contains("oom_kill_disable 0"));
}

fn update_refuses_a_value_of_several_lines() {
    let container = sleeper();
    let cpus = limit(&container, "cpuset", "cpuset.cpus", "cpuset.cpus");
    let output = container.call("update").args(["--cpuset-cpus", "0\n1", container.id()]).output();
    output.assert_fails().assert_stderr_contains("cpu.cpus").assert_stderr_contains("more than one line");
    assert_eq!(limit(&container, "cpuset", "cpuset.cpus", "cpuset.cpus"), cpus);
}

fn update_of_nothing_changes_nothing() {
    let memory = json!({ "limit": 64 << 20 });
    let bundle = Bundle::busybox().args(["sleep", "100"]).resource("memory", memory);
    let container = bundle.resource("pids", json!({ "limit": 30 })).start();
    update(&container, &[]);
    update(&container, &["--memory=", "--cpuset-cpus=", "--pids-limit=0", "--blkio-weight=0"]);
    assert_eq!(memory_limit(&container), (64 << 20).to_string());
    assert_eq!(pids_limit(&container), "30");
}

fn update_refuses_what_is_wrong() {
    let container = sleeper();
    for option in
        ["--memory=64x", "--cpu-period=-1", "--cpu-quota=fast", "--pids-limit=many", "--cpu-share=1.5"]
    {
        container.call("update").args([option, container.id()]).output().assert_exit(1);
    }
    container.call("update").args(["-r", "/no/such/file", container.id()]).output().assert_exit(1);
    fs::write(container.path("resources"), "{").expect("a file");
    let call = container.call("update").arg("-r").arg(container.path("resources")).arg(container.id());
    call.output().assert_exit(1);
    assert_eq!(container.status(), "running");
}

fn update_passes_over_obsolete_kernel_limits() {
    let container = sleeper();
    update(&container, &["--kernel-memory=64m", "--kernel-memory-tcp=64m"]);
}

fn update_without_rdt_says_so() {
    let container = sleeper();
    for (option, words) in [("--l3-cache-schema=L3:0=f", "RDT/CAT"), ("--mem-bw-schema=MB:0=50", "RDT/MBA")] {
        let output = container.call("update").args([option, container.id()]).output();
        output.assert_exit(1).assert_stderr_contains(words).assert_stderr_contains("is not enabled");
    }
}

/// The kind of each value, with null for what may be left out when it is 0.
fn assert_shape(found: &Value, expected: &Value, at: &str) {
    match expected {
        Value::Object(fields) => {
            for (name, expected) in fields {
                let optional = expected.is_null() || !found[name].is_null();
                assert!(optional || found.get(name).is_some(), "{at}.{name} is missing in {found}");
                if let Some(found) = found.get(name).filter(|f| !f.is_null()) {
                    assert_shape(found, expected, &format!("{at}.{name}"));
                }
            }
        }
        Value::Array(kinds) => {
            for element in found.as_array().unwrap_or_else(|| panic!("{at} is no list: {found}")) {
                assert_shape(element, &kinds[0], at);
            }
        }
        Value::Number(_) => assert!(found.is_u64() || found.is_i64(), "{at} is no whole number: {found}"),
        Value::String(_) => assert!(found.is_string(), "{at} is no text: {found}"),
        _ => {}
    }
}

fn stats_have_runcs_fields() {
    let bundle = Bundle::busybox().args(["sleep", "100"]).resource("memory", json!({ "limit": 64 << 20 }));
    let container = bundle.resource("pids", json!({ "limit": 30 })).start();
    let output = container.call("events").arg("--stats").arg(container.id()).output();
    assert_eq!(output.assert_ok().lines().len(), 1, "{output}");
    let event: Value = serde_json::from_str(&output.stdout).expect("JSON");
    // Some read it as text.
    assert!(!output.stdout.contains("oom"), "nothing has happened yet{output}");
    let start = format!("{{\"type\":\"stats\",\"id\":\"{}\",\"data\":", container.id());
    assert!(output.stdout.starts_with(&start), "{output}");
    assert_eq!((&event["type"], &event["id"]), (&"stats".into(), &container.id().into()));
    let usage = json!({ "limit": 0, "failcnt": 0 });
    let mut shape = json!({
        "cpu": { "usage": { "total": 0, "kernel": 0, "user": 0, "percpu": [0] }, "throttling": {} },
        "memory": { "usage": usage, "swap": usage, "kernel": usage, "kernelTCP": usage, "raw": { "rss": 0 } },
        "pids": { "current": 0, "limit": 0 },
        "blkio": {},
        "hugetlb": {},
    });
    if !Runtime::get().is("crun") {
        shape["cpuset"] = json!({
            "cpus": [0], "cpu_exclusive": 0, "mems": [0], "mem_hardwall": 0, "mem_exclusive": 0, "memory_migrate": 0,
            "memory_spread_page": 0, "memory_spread_slab": 0, "memory_pressure": 0, "sched_load_balance": 0,
            "sched_relax_domain_level": 0,
        });
        shape["intel_rdt"] = json!({});
    }
    let data = &event["data"];
    assert_shape(data, &shape, "data");
    assert_eq!(data["memory"]["usage"]["limit"], 64 << 20);
    assert_eq!((&data["pids"]["current"], &data["pids"]["limit"]), (&1.into(), &30.into()));
    assert!(data["cpu"]["usage"]["total"].as_u64() > Some(0), "{data}");
}

fn events_are_stats_in_an_interval() {
    let container = sleeper();
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let call = container.call("events").args(["--interval", "20ms", container.id()]);
    let events = call.stdio(Stdio::null(), writer, Stdio::null()).spawn();
    for _ in 0..3 {
        let event: Value = serde_json::from_str(&read_line(&mut reader)).expect("JSON");
        assert_eq!(event["type"], "stats");
    }
    container.kill("KILL").assert_ok();
    container.until_stopped();
    drop(reader);
    if Runtime::get().is("lxcrun") {
        events.wait().assert_ok();
    } else {
        // It waits until the cgroup is gone.
        container.delete().assert_ok();
        events.signal(rustix::process::Signal::KILL);
        events.wait();
    }
}

fn events_tell_of_no_kill_beside_the_container() {
    let pod = format!("{}-pod", cgroup_parent());
    let beside = |bundle: Bundle| {
        let path = format!("{pod}/{}", bundle.key());
        bundle.set("/linux/cgroupsPath", path)
    };
    let container = beside(Bundle::busybox()).args(["sleep", "1000"]).start();
    let own = Cgroups::of(container.pid()).dir("memory");
    let above = own.parent().expect("a cgroup above");
    let limit = if is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
    fs::write(above.join(limit), "67108864").expect("a limit");
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let call = container.call("events").args(["--interval", "20ms", container.id()]);
    let events = call.stdio(Stdio::null(), writer, Stdio::null()).spawn();
    read_line(&mut reader);
    let hog =
        beside(Bundle::busybox()).sh("x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo survived").run();
    container.kill("KILL").assert_ok();
    container.until_stopped();
    let mut told = String::new();
    std::io::Read::read_to_string(&mut reader, &mut told).expect("events");
    events.wait().assert_ok();
    container.delete().assert_ok();
    for hierarchy in hierarchies() {
        let _ = fs::remove_dir(hierarchy.mount.join(&pod[1..]));
    }
    hog.assert_exit(137).assert_stdout("");
    assert!(!told.contains("oom"), "{told}");
}

fn events_take_an_interval_beyond_all_time() {
    let container = sleeper();
    let interval = format!("{}s", i64::MAX);
    let events = container.call("events").args(["--interval", &interval, container.id()]).spawn();
    // One that begins later and has said something: then the other one waits, too, or has failed.
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let call = container.call("events").args(["--interval", "20ms", container.id()]);
    let others = call.stdio(Stdio::null(), writer, Stdio::null()).spawn();
    assert!(read_line(&mut reader).contains("stats"));
    container.kill("KILL").assert_ok();
    container.until_stopped();
    drop(reader);
    others.wait();
    let ended = events.wait();
    // On a machine that is slow enough it comes too late.
    if ended.code() != 0 {
        ended.assert_exit(1).assert_stderr_contains("not running");
    }
    ended.assert_stdout("");
}

fn events_refuse_what_is_wrong() {
    let container = sleeper();
    for interval in ["0s", "soon"] {
        container.call("events").args(["--interval", interval, container.id()]).output().assert_exit(1);
    }
    container.kill("KILL").assert_ok();
    container.until_stopped();
    let stopped = container.call("events").args(["--stats", container.id()]).output();
    stopped.assert_exit(1).assert_stderr_contains("not running");
}

fn ps_prints_what_ps_does() {
    let container = sleeper();
    let table = container.verb("ps");
    let lines = table.assert_ok().lines();
    assert!(lines[0].contains("PID") && lines[1].contains("sleep 100") && lines.len() == 2, "{table}");
    let narrow = container.call("ps").args([container.id(), "-o", "pid,comm"]).output();
    let words: Vec<&str> = narrow.assert_ok().stdout.split_whitespace().collect();
    assert_eq!(words, ["PID", "COMMAND", &container.pid().to_string(), "sleep"]);
}

fn exec_adds_groups_to_those_of_the_user() {
    let bundle = Bundle::busybox().set("/process/user/additionalGids", json!([7])).args(["sleep", "100"]);
    let container = bundle.start();
    let call = container.call("exec").args(["--user", "1000", "-g", "5", "-g", "6", container.id()]);
    let groups = call.args(["sh", "-c", "id -u; id -g; id -G"]).output();
    groups.assert_ok().assert_stdout("1000\n0\n0 5 6 7\n");
}

fn exec_takes_the_last_word_on_a_variable() {
    let container = sleeper();
    let call = container.call("exec").args(["-e", "A=1", "-e", "A=2", container.id(), "sh", "-c", "echo $A"]);
    call.output().assert_ok().assert_stdout("2\n");
}

fn exec_refuses_a_user_that_is_no_number() {
    let container = sleeper();
    let call = container.call("exec").args(["--user", "somebody", container.id(), "true"]);
    call.output().assert_fails().assert_stderr_contains("somebody");
}

fn kill_sends_term_by_itself() {
    let script = "trap 'exit 3' TERM; while :; do sleep 0.01; done";
    let container = Bundle::busybox().sh(script).start();
    container.verb("kill").assert_ok();
    container.until_stopped();
}

fn delete_by_force_of_nothing_is_no_failure() {
    let container = Bundle::busybox().build();
    container.delete_force().assert_ok();
    container.delete().assert_exit(1);
}
