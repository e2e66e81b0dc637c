//! The cgroups of a container, and the limits in them: in the files, and in what they do.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use lxcrun_test::engines::until;
use lxcrun_test::{Bundle, Cgroups, Container, Fifo, Need, Output, cgroup_parent, hierarchies, tests};
use serde_json::json;

tests![
    a_class_of_service_needs_resctrl.not_on("runc", "1.1 passes over it"),
    the_container_has_a_cgroup_in_every_hierarchy,
    the_cgroup_is_that_of_the_spec,
    a_relative_path_is_below_some_parent,
    an_empty_cpuset_above_is_filled.needs(Need::CgroupV1("cpuset")),
    the_memory_limit_is_set.needs(Need::Controller("memory")),
    the_memory_limit_kills.needs(Need::Controller("memory")),
    a_third_of_a_mebibyte_is_enough.needs(Need::CgroupV1("memory")).lxcrun_only("others need more, or luck"),
    the_memory_reservation_is_set.needs(Need::Controller("memory")),
    the_swap_limit_is_set.needs(Need::CgroupV1("memory")),
    the_oom_killer_can_be_disabled.needs(Need::CgroupV1("memory")),
    the_cpu_shares_are_set.needs(Need::CgroupV1("cpu")),
    the_cpu_quota_is_set.needs(Need::Controller("cpu")),
    the_cpu_quota_throttles.needs(Need::Controller("cpu")),
    the_cpus_and_memory_nodes_are_set.needs(Need::Controller("cpuset")),
    the_pids_limit_is_set.needs(Need::Controller("pids")),
    the_pids_limit_stops_forks.needs(Need::Controller("pids")),
    a_limit_of_minus_one_is_no_limit.needs(Need::Controller("pids")),
    the_huge_page_limit_is_set
        .needs(Need::Controller("hugetlb"))
        .not_on("runc", "1.1 does not look into a hierarchy of version 2 beside others")
        .not_on("crun", "1.8 does not look into a hierarchy of version 2 beside others"),
    each_limit_of_version_two_is_in_its_file_and_seen_inside
        .needs(Need::CgroupV2)
        .not_on("runc", "1.1 has another formula for shares"),
    an_update_changes_each_limit_of_version_two
        .needs(Need::CgroupV2)
        .not_on("runc", "1.1 has another formula for shares"),
    an_update_below_what_is_in_use_is_refused_where_asked_for.needs(Need::Controller("memory")),
    an_update_that_fails_changes_nothing
        .needs(Need::Controller("memory"))
        .needs(Need::Controller("cpuset"))
        .not_on("runc", "1.1 leaves what it has written"),
    what_version_two_lacks_is_refused.needs(Need::CgroupV2).not_on("runc", "it passes over some"),
    an_engine_in_an_unprivileged_container_gives_its_containers_limits.needs(Need::CgroupV2),
    an_engine_in_a_container_gives_its_containers_limits
        .needs(Need::CgroupV2)
        .needs(Need::Program("unshare")),
    an_empty_unified_value_is_refused.needs(Need::CgroupV2).lxcrun_only("others write nothing"),
    a_unified_value_is_refused_on_version_one.needs(Need::CgroupV1("memory")),
];

fn sleeper(bundle: Bundle) -> Container {
    bundle.args(["sleep", "1000"]).start()
}

fn cgroups(container: &Container) -> Cgroups {
    Cgroups::of(container.pid())
}

fn the_container_has_a_cgroup_in_every_hierarchy() {
    let container = sleeper(Bundle::busybox());
    let own = Cgroups::of(std::process::id());
    for controller in hierarchies().iter().flat_map(|h| h.controllers()) {
        assert_ne!(cgroups(&container).dir(controller), own.dir(controller), "{controller}");
    }
    container.finish(); // and none is left
}

fn with_path() -> (Bundle, String) {
    let bundle = Bundle::busybox();
    let path = format!("{}/{}", cgroup_parent(), bundle.key());
    (bundle.set("/linux/cgroupsPath", path.as_str()), path)
}

fn the_cgroup_is_that_of_the_spec() {
    let (bundle, path) = with_path();
    let container = sleeper(bundle);
    assert!(cgroups(&container).dir("pids").ends_with(&path[1..]), "{:?}", cgroups(&container).dir("pids"));
    container.finish();
}

fn a_relative_path_is_below_some_parent() {
    let bundle = Bundle::busybox();
    let name = bundle.key().to_owned();
    let container = sleeper(bundle.set("/linux/cgroupsPath", name.as_str()));
    assert!(cgroups(&container).dir("pids").ends_with(name));
}

fn with_memory(bytes: u64) -> Bundle {
    Bundle::busybox().resource("memory", json!({ "limit": bytes }))
}

fn the_memory_limit_is_set() {
    let container = sleeper(with_memory(64 << 20));
    assert_eq!(cgroups(&container).read("memory", "memory.limit_in_bytes", "memory.max"), "67108864");
}

/// For the runtime's own part, and a program that needs nothing.
fn a_third_of_a_mebibyte_is_enough() {
    for _ in 0..5 {
        with_memory(320 << 10).args(["true"]).run().assert_ok();
    }
}

fn the_memory_limit_kills() {
    // The shell itself has to hold all of it.
    let eat = "x=$(head -c 60000000 /dev/zero | tr '\\0' x); echo survived";
    let memory = json!({ "limit": 32 << 20, "swap": 32 << 20 });
    Bundle::busybox().resource("memory", memory).sh(eat).run().assert_exit(137).assert_stdout("");
}

fn the_memory_reservation_is_set() {
    let container = sleeper(Bundle::busybox().resource("memory", json!({ "reservation": 16 << 20 })));
    let reservation = cgroups(&container).read("memory", "memory.soft_limit_in_bytes", "memory.low");
    assert_eq!(reservation, "16777216");
}

fn the_swap_limit_is_set() {
    let container =
        sleeper(Bundle::busybox().resource("memory", json!({ "limit": 32 << 20, "swap": 48 << 20 })));
    let dir = cgroups(&container).dir("memory");
    match fs::read_to_string(dir.join("memory.memsw.limit_in_bytes")) {
        Ok(limit) => assert_eq!(limit, "50331648\n"),
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::NotFound),
    }
}

fn the_oom_killer_can_be_disabled() {
    let container = sleeper(Bundle::busybox().resource("memory", json!({ "disableOOMKiller": true })));
    let control = cgroups(&container).read("memory", "memory.oom_control", "");
    assert!(control.contains("oom_kill_disable 1"), "{control}");
}

fn the_cpu_shares_are_set() {
    let container = sleeper(Bundle::busybox().resource("cpu", json!({ "shares": 512 })));
    assert_eq!(cgroups(&container).read("cpu", "cpu.shares", ""), "512");
}

fn with_half_a_cpu() -> Bundle {
    Bundle::busybox().resource("cpu", json!({ "quota": 10000, "period": 20000 }))
}

fn the_cpu_quota_is_set() {
    let container = sleeper(with_half_a_cpu());
    let dir = cgroups(&container).dir("cpu");
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
    match read("cpu.max") {
        Some(both) => assert_eq!(both, "10000 20000\n"),
        None => {
            assert_eq!(read("cpu.cfs_quota_us").as_deref(), Some("10000\n"));
            assert_eq!(read("cpu.cfs_period_us").as_deref(), Some("20000\n"));
        }
    }
}

fn the_cpu_quota_throttles() {
    // So little that a program gets more also on a machine that is busy with others.
    let little = Bundle::busybox().resource("cpu", json!({ "quota": 1000, "period": 20000 }));
    let container = little.sh("while :; do :; done").start();
    let stat = cgroups(&container).dir("cpu").join("cpu.stat");
    let throttled = || {
        let text = fs::read_to_string(&stat).expect("cpu.stat");
        text.lines().find_map(|line| line.strip_prefix("nr_throttled ").map(str::to_owned))
    };
    assert!(until(|| throttled().is_some_and(|n| n != "0")), "{:?}", fs::read_to_string(&stat));
}

fn the_cpus_and_memory_nodes_are_set() {
    let container = sleeper(Bundle::busybox().resource("cpu", json!({ "cpus": "0", "mems": "0" })));
    assert_eq!(cgroups(&container).read("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(cgroups(&container).read("cpuset", "cpuset.mems", "cpuset.mems"), "0");
    let allowed = container.exec(["grep", "Cpus_allowed_list", "/proc/1/status"]);
    allowed.assert_ok().assert_stdout("Cpus_allowed_list:\t0\n");
}

fn the_pids_limit_is_set() {
    let container = sleeper(Bundle::busybox().resource("pids", json!({ "limit": 17 })));
    assert_eq!(cgroups(&container).read("pids", "pids.max", "pids.max"), "17");
}

fn the_pids_limit_stops_forks() {
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; echo all";
    let run = Bundle::busybox().resource("pids", json!({ "limit": 4 })).sh(script).run();
    run.assert_fails().assert_stdout("").assert_stderr_contains("can't fork");
}

fn a_limit_of_minus_one_is_no_limit() {
    let container = sleeper(Bundle::busybox().resource("pids", json!({ "limit": -1 })));
    assert_eq!(cgroups(&container).read("pids", "pids.max", "pids.max"), "max");
}

fn the_huge_page_limit_is_set() {
    let limits = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
    let container = sleeper(Bundle::busybox().resource("hugepageLimits", limits));
    let limit = cgroups(&container).read("hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max");
    assert_eq!(limit, "4194304");
}

/// Limits, and the files of version 2 that have them.
fn limits_of_version_two() -> (Bundle, [(&'static str, &'static str); 9]) {
    let bundle = Bundle::busybox()
        .namespace("cgroup", None)
        .resource("memory", json!({ "limit": 64 << 20, "swap": 96 << 20, "reservation": 16 << 20 }))
        .resource("cpu", json!({ "shares": 512, "quota": 10000, "period": 20000, "cpus": "0", "mems": "0" }))
        .resource("pids", json!({ "limit": 17 }))
        .resource("unified", json!({ "memory.high": "50000000\n" }));
    let files = [
        ("memory.max", "67108864"),
        ("memory.swap.max", "33554432"),
        ("memory.low", "16777216"),
        ("memory.high", "49999872"), // whole pages
        ("cpu.weight", "59"),
        ("cpu.max", "10000 20000"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
        ("pids.max", "17"),
    ];
    (bundle, files)
}

fn each_limit_of_version_two_is_in_its_file_and_seen_inside() {
    let (bundle, files) = limits_of_version_two();
    let container = sleeper(bundle);
    let names = files.map(|(name, _)| name);
    let values = files.map(|(_, value)| value);
    assert_eq!(names.map(|name| cgroups(&container).read("memory", "", name)), values);
    let inside = container.exec(["sh", "-c", &format!("cd /sys/fs/cgroup && cat {}", names.join(" "))]);
    assert_eq!(inside.assert_ok().lines(), values);
}

fn an_update_that_fails_changes_nothing() {
    let container = sleeper(with_memory(128 << 20));
    let limits = || {
        let own = cgroups(&container);
        let memory = own.read("memory", "memory.limit_in_bytes", "memory.max");
        (memory, own.read("cpu", "cpu.shares", "cpu.weight"))
    };
    let before = limits();
    let options = ["--memory", "64m", "--cpu-share", "512", "--cpuset-cpus", "7777"];
    let updated = container.call("update").args(options).arg(container.id()).output();
    updated.assert_fails().assert_stderr_contains("cpus");
    assert_eq!(limits(), before);
    container.call("update").args(&options[..4]).arg(container.id()).output().assert_ok();
    assert_ne!(limits().0, before.0);
    assert_ne!(limits().1, before.1);
}

/// Without the check the kernel makes room by killing, at least on version 2.
fn an_update_below_what_is_in_use_is_refused_where_asked_for() {
    let container = sleeper(with_memory(128 << 20));
    let limit = || cgroups(&container).read("memory", "memory.limit_in_bytes", "memory.max");
    let resources = json!({ "memory": { "limit": 8192, "swap": -1, "checkBeforeUpdate": true } });
    fs::write(container.path("resources"), resources.to_string()).expect("a file");
    let updated =
        container.call("update").arg("-r").arg(container.path("resources")).arg(container.id()).output();
    updated.assert_fails().assert_stderr_contains("memory");
    assert_eq!(limit(), (128 << 20).to_string());
    assert_eq!(container.status(), "running");
}

fn an_update_changes_each_limit_of_version_two() {
    let container = sleeper(limits_of_version_two().0);
    let options = [
        "--memory=33554432",
        "--memory-swap=50331648",
        "--memory-reservation=8388608",
        "--cpu-share=1024",
        "--cpu-quota=5000",
        "--cpu-period=50000",
        "--pids-limit=9",
    ];
    container.call("update").args(options).arg(container.id()).output().assert_ok();
    let expected = [
        ("memory.max", "33554432"),
        ("memory.swap.max", "16777216"),
        ("memory.low", "8388608"),
        ("cpu.weight", "100"),
        ("cpu.max", "5000 50000"),
        ("cpuset.cpus", "0"),
        ("pids.max", "9"),
    ];
    let read = expected.map(|(name, _)| cgroups(&container).read("memory", "", name));
    assert_eq!(read, expected.map(|(_, value)| value));
}

/// As Docker's own image and that of k3s begin: every process moves into a cgroup below that of the container, so that the
/// latter can have controllers for others.
fn an_engine_in_a_container_gives_its_containers_limits() {
    let plain = with_memory(64 << 20).namespace("cgroup", None);
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let remapped = with_memory(64 << 20).namespace("cgroup", None).namespace("user", None);
    let remapped = remapped.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    for bundle in [plain, remapped] {
        assert_limited_in_an_engine(bundle);
    }
}

/// As Docker in an unprivileged LXC container: its root is root of a part of the host's users and of the cgroups.
fn an_engine_in_an_unprivileged_container_gives_its_containers_limits() {
    const GUEST: &str = r#"
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        mkdir /sys/fs/cgroup/init.scope
        echo $$ >/sys/fs/cgroup/init.scope/cgroup.procs
        echo forked >$SAY
        read -r go <$HEAR
        for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
            echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
        done
        exec "$@""#;
    const MAPPED: &str = r#"
        echo $$ >$OUTER/cgroup.procs
        exec unshare --user sh -ec 'echo mine >$SAY
            read -r go <$HEAR
            exec unshare --cgroup --mount --pid --fork --kill-child --mount-proc sh -ec "$0" sh "$@"' "$@""#;
    let script = "cat /sys/fs/cgroup/memory.max; grep -c : /proc/self/cgroup; exit 9";
    let bundle = with_memory(64 << 20).namespace("cgroup", None);
    let mut said = Fifo::new(bundle.path("said"));
    let mut heard = Fifo::new(bundle.path("heard"));
    let container = bundle.sh(script).build();
    let outer = PathBuf::from(format!("/sys/fs/cgroup/{}-guest", container.id()));
    fs::create_dir(&outer).expect("a cgroup");
    let call = container.call_with_bundle("run").arg(container.id());
    let mut command = Command::new("sh");
    command.args(["-ec", MAPPED, "sh", GUEST]).args(call.argv()).env_remove("XDG_RUNTIME_DIR");
    command.env("OUTER", &outer).env("SAY", said.path()).env("HEAR", heard.path());
    let guest = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sh");
    assert_eq!(said.line(), "mine");
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{file}", guest.id()), "0 0 65536").expect("a map");
    }
    heard.send("go");
    assert_eq!(said.line(), "forked");
    // The one outside of the guest, which is no process of the guest's.
    fs::write("/sys/fs/cgroup/cgroup.procs", guest.id().to_string()).expect("out of the cgroup");
    heard.send("go");
    let run = Output::new("an engine in a guest", &guest.wait_with_output().expect("sh"));
    let left = fs::read_dir(&outer).expect("the guest's cgroup").flatten().filter(|e| e.path().is_dir());
    let left: Vec<PathBuf> = left.map(|entry| entry.path()).collect();
    fs::remove_dir(outer.join("init.scope")).and_then(|()| fs::remove_dir(&outer)).expect("none but ours");
    run.assert_exit(9).assert_stdout("67108864\n1\n");
    assert_eq!(left, [outer.join("init.scope")]);
}

fn assert_limited_in_an_engine(bundle: Bundle) {
    const ENGINE: &str = r#"
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        exec "$@""#;
    let script = "cat /sys/fs/cgroup/memory.max; grep -c : /proc/self/cgroup; exit 9";
    let container = bundle.sh(script).build();
    let outer = PathBuf::from(format!("/sys/fs/cgroup/{}-engine", container.id()));
    let begin = format!(
        r#"mkdir {outer} {outer}/init; echo $$ >{outer}/cgroup.procs
        exec unshare --cgroup sh -ec 'echo $$ >{outer}/init/cgroup.procs
            for controller in $(cat {outer}/cgroup.controllers); do
                echo "+$controller" >{outer}/cgroup.subtree_control
            done
            exec unshare --mount --pid --fork --kill-child --mount-proc "$0" "$@"' "$@""#,
        outer = outer.display()
    );
    let call = container.call_with_bundle("run").arg(container.id());
    let mut command = Command::new("sh");
    command.args(["-ec", &begin, "sh", "sh", "-ec", ENGINE, "sh"]).args(call.argv());
    let run = Output::new("an engine in a container", &command.output().expect("sh"));
    let left =
        fs::read_dir(&outer).expect("the outer cgroup").flatten().filter(|e| e.path().is_dir()).count();
    fs::remove_dir(outer.join("init")).and_then(|()| fs::remove_dir(&outer)).expect("none but ours is left");
    run.assert_exit(9).assert_stdout("67108864\n1\n");
    assert_eq!(left, 1, "besides that of the engine");
}

fn what_version_two_lacks_is_refused() {
    for (name, value) in [
        ("memory", json!({ "swappiness": 10 })),
        ("memory", json!({ "kernelTCP": 1 << 20 })),
        ("memory", json!({ "disableOOMKiller": true })),
        ("network", json!({ "classID": 7 })),
        ("cpu", json!({ "realtimeRuntime": 1000 })),
        ("unified", json!({ "cgroup.freeze": "1" })),
        ("unified", json!({ "../memory.max": "1" })),
    ] {
        Bundle::busybox().resource(name, value).refused(&[name]);
    }
}

fn an_empty_unified_value_is_refused() {
    let bundle = Bundle::busybox().resource("unified", json!({ "memory.max": "" }));
    bundle.refused(&["linux.resources.unified", "memory.max has no value"]);
}

fn a_unified_value_is_refused_on_version_one() {
    Bundle::busybox().resource("unified", json!({ "memory.max": "1000000" })).refused(&["unified"]);
}

fn a_class_of_service_needs_resctrl() {
    let bundle =
        Bundle::busybox().set("/linux/intelRdt", json!({ "closID": "gold", "schemata": ["MB:0=50"] }));
    if std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|m| m.contains(" - resctrl ")) {
        bundle.run().assert_ok();
    } else {
        bundle.build().refused(&["ntel"]);
    }
}

fn an_empty_cpuset_above_is_filled() {
    let cpuset = hierarchies().iter().find(|h| h.controllers().iter().any(|c| c == "cpuset"));
    let pod = format!("{}/pod", cgroup_parent());
    fs::create_dir_all(cpuset.expect("checked").mount.join(&pod[1..])).expect("a cgroup");
    let bundle = Bundle::busybox();
    let path = format!("{pod}/{}", bundle.key());
    let run = bundle.set("/linux/cgroupsPath", path).run();
    for hierarchy in hierarchies() {
        fs::remove_dir(hierarchy.mount.join(&pod[1..])).expect("the cgroup is empty again");
    }
    run.assert_ok();
}
