//! `--systemd-cgroup`: the container's cgroup is that of a scope, which systemd makes, knows the limits of, and takes away.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kernel::{BpfInstruction, attach_device_program, device_programs, load_device_program};
use lxcrun_test::engines::until;
use lxcrun_test::{Bundle, Call, Cgroups, Container, Fifo, Need, Output, Running, tests};
use rustix::process::Signal;
use serde_json::json;

tests![
    limits_are_properties_of_the_scope.needs(Need::CgroupV2).needs(Need::Systemd),
    the_scope_itself_is_the_containers_cgroup
        .needs(Need::CgroupV2)
        .needs(Need::Systemd)
        .not_on("crun", "the container's cgroup is below"),
    a_monitor_that_stays_is_outside_of_the_scope
        .needs(Need::CgroupV2)
        .needs(Need::Systemd)
        .needs(Need::Program("lxc-cgroup"))
        .lxcrun_only("LXC's monitor"),
    a_delegated_cgroup_is_below_the_scopes_own
        .needs(Need::CgroupV2)
        .needs(Need::Systemd)
        .lxcrun_only("it is an annotation of lxcrun's"),
    devices_are_properties_of_the_scope
        .needs(Need::CgroupV2)
        .needs(Need::Systemd)
        .not_on("runc", "1.1 tells systemd the names of the host's drivers"),
    a_reload_leaves_devices_that_a_hook_has_added
        .needs(Need::CgroupV2)
        .needs(Need::Systemd)
        .not_on("runc", "the reload takes them away")
        .not_on("crun", "systemd knows of no devices"),
    an_update_changes_the_properties_too.needs(Need::CgroupV2).needs(Need::Systemd),
    annotations_are_properties.needs(Need::CgroupV2).needs(Need::Systemd),
    every_command_works_in_a_scope.needs(Need::CgroupV2).needs(Need::Systemd),
    a_scope_is_gone_after_a_failed_create.needs(Need::CgroupV2).needs(Need::Systemd),
    a_scope_is_gone_after_a_create_that_was_killed
        .needs(Need::CgroupV2)
        .needs(Need::Systemd)
        .lxcrun_only("others have no state yet that delete would find"),
    a_restored_container_is_in_a_scope.needs(Need::CgroupV2).needs(Need::Systemd).needs(Need::Criu),
    a_path_of_another_form_is_refused.needs(Need::CgroupV2).needs(Need::Systemd),
    a_scope_of_somebody_elses_is_left_alone.needs(Need::CgroupV2).needs(Need::Systemd),
    of_many_creates_in_one_scope_one_wins
        .needs(Need::CgroupV2)
        .needs(Need::Systemd)
        .lxcrun_only("others share it"),
    a_frozen_scope_is_refused.needs(Need::CgroupV2).needs(Need::Systemd),
    what_systemd_does_not_know_is_limited_too
        .needs(Need::CgroupV2)
        .needs(Need::Systemd)
        .needs(Need::Controller("hugetlb")),
    a_container_is_idle_until_it_gets_a_weight
        .needs(Need::CgroupV2)
        .needs(Need::Systemd)
        .not_on("runc", "1.1 has no --cpu-idle"),
    the_period_stays_when_the_quota_goes.needs(Need::CgroupV2).needs(Need::Systemd),
];

/// In a scope of a known name.
fn in_scope(bundle: Bundle) -> Bundle {
    let path = format!("system.slice:test:{}", bundle.key());
    bundle.set("/linux/cgroupsPath", path)
}

fn scope(container: &Container) -> String {
    format!("test-{}.scope", container.id())
}

fn create_call(container: &Container) -> Call {
    let options = ["--systemd-cgroup", "create", "--bundle"].map(OsStr::new);
    container.global(options).arg(container.dir()).arg(container.id())
}

#[track_caller]
fn start(bundle: Bundle) -> Container {
    let container = in_scope(bundle).build();
    create_call(&container).output().assert_ok();
    container.start().assert_ok();
    container
}

/// A sleeping container with these limits.
#[track_caller]
fn limited() -> Container {
    start(with_limits().args(["sleep", "1000"]))
}

fn with_limits() -> Bundle {
    Bundle::busybox()
        .resource("memory", json!({ "limit": 64 << 20 }))
        .resource("pids", json!({ "limit": 17 }))
        .resource("cpu", json!({ "quota": 10000, "period": 20000, "cpus": "0" }))
}

#[track_caller]
fn systemctl(args: &[&str]) -> Output {
    let output = Command::new("systemctl").args(args).output().expect("systemctl");
    Output::new(&format!("systemctl {args:?}"), &output)
}

#[track_caller]
fn property(container: &Container, name: &str) -> String {
    let show = systemctl(&["show", "--value", "--property", name, &scope(container)]);
    show.assert_ok().stdout.trim().to_owned()
}

#[track_caller]
fn assert_no_scope(container: &Container) {
    assert_eq!(property(container, "LoadState"), "not-found");
}

fn limits_are_properties_of_the_scope() {
    let container = limited();
    let properties = ["MemoryMax", "TasksMax", "CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec", "AllowedCPUs"];
    let values = properties.map(|name| property(&container, name));
    assert_eq!(values, ["67108864", "17", "500ms", "20ms", "0"]);
    assert_eq!(property(&container, "Slice"), "system.slice");
    assert_eq!(property(&container, "Delegate"), "yes");
}

/// The container's limits, in its own cgroup.
fn limits(container: &Container) -> [String; 4] {
    let cgroups = Cgroups::of(container.pid());
    ["memory.max", "pids.max", "cpu.max", "cpuset.cpus"].map(|file| cgroups.read("memory", "", file))
}

fn the_scope_itself_is_the_containers_cgroup() {
    let container = limited();
    assert_eq!(limits(&container), ["67108864", "17", "10000 20000", "0"]);
    let own = format!("0::/system.slice/{}", scope(&container));
    assert_eq!(container.proc("cgroup").trim(), own);
    // Nobody else is in it.
    assert_eq!(Cgroups::of(container.pid()).read("pids", "", "cgroup.procs"), container.pid().to_string());
}

/// Whose monitor stays, and what LXC knows of it.
fn a_monitor_that_stays_is_outside_of_the_scope() {
    let bundle = with_limits();
    let mut up = Fifo::new(bundle.path("up"));
    let script = "echo up >/up; exec sleep 1000";
    let container = in_scope(bundle.bind(up.path(), "/up", &[]).sh(script)).build();
    let options = ["--systemd-cgroup", "run", "--bundle"].map(OsStr::new);
    let running = container.global(options).arg(container.dir()).arg(container.id()).spawn();
    assert_eq!(up.line(), "up");
    assert_eq!(container.proc("cgroup").trim(), format!("0::/system.slice/{}", scope(&container)));
    assert_eq!(Cgroups::of(container.pid()).read("pids", "", "cgroup.procs"), container.pid().to_string());
    assert_eq!(limits(&container), ["67108864", "17", "10000 20000", "0"]);
    let root = container.path("root").display().to_string();
    let tool = |file| {
        let call = Command::new("lxc-cgroup").args(["-P", &root, "-n", container.id(), file]).output();
        Output::new("lxc-cgroup", &call.expect("lxc-cgroup")).assert_ok().stdout.trim().to_owned()
    };
    assert_eq!([tool("memory.max"), tool("pids.max")], ["67108864", "17"]);
    container.kill("KILL").assert_ok();
    let run = running.wait();
    container.assert_gone(run.assert_exit(137));
    assert_no_scope(&container);
}

fn a_delegated_cgroup_is_below_the_scopes_own() {
    let annotations = json!({ "org.linuxcontainers.lxc.cgroup-delegate": "true" });
    let bundle = with_limits().namespace("cgroup", None).set("/annotations", annotations);
    let container = start(bundle.args(["sleep", "1000"]));
    let inner = Cgroups::of(container.pid()).dir("pids");
    let scope = Path::new("/sys/fs/cgroup/system.slice").join(scope(&container));
    assert!(inner.starts_with(&scope) && inner != scope, "{inner:?}");
    let read = |directory: &Path| fs::read_to_string(directory.join("pids.max")).expect("a limit");
    assert_eq!([read(&scope), read(&inner)], ["17\n", "max\n"]);
    container.finish();
    assert_no_scope(&container);
}

/// The kernel's log, which anybody may write to whom no rule keeps from it.
const OPEN: [&str; 3] = ["sh", "-c", ": >/dev/denied"];

/// In the words of systemd, which denies what is denied again when it is reloaded, and nothing else.
fn devices_are_properties_of_the_scope() {
    let rules = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "b", "major": 8, "minor": 0, "access": "rw" },
        { "allow": true, "type": "c", "major": 89, "access": "rwm" },
    ]);
    let denied = json!([{ "path": "/dev/denied", "type": "c", "major": 1, "minor": 11 }]);
    let bundle = Bundle::busybox().resource("devices", rules).set("/linux/devices", denied);
    let container = start(bundle.args(["sleep", "1000"]));
    assert_eq!(property(&container, "DevicePolicy"), "strict");
    let allowed = property(&container, "DeviceAllow");
    for entry in ["/dev/block/8:0 rw", "char-89 rwm"] {
        assert!(allowed.lines().any(|line| line == entry), "{entry}: {allowed}");
    }
    systemctl(&["daemon-reload"]).assert_ok();
    container.exec(["head", "-c", "3", "/dev/zero"]).assert_ok().assert_stdout("\0\0\0");
    container.exec(OPEN).assert_fails().assert_stderr_contains("not permitted");

    let all = Bundle::busybox()
        .resource("devices", json!([{ "allow": true, "access": "rwm" }]))
        .args(["sleep", "1000"]);
    assert_eq!(property(&start(all), "DevicePolicy"), "auto");
}

/// Two instructions: the result is 1, and the end.
const ALLOW_ALL: [BpfInstruction; 2] = [
    BpfInstruction { code: 0xb4, registers: 0, offset: 0, immediate: 1 },
    BpfInstruction { code: 0x95, registers: 0, offset: 0, immediate: 0 },
];

/// As hooks for graphics cards do: each program for devices makes way for another.
fn allow_all_devices(cgroup: &Path) {
    let cgroup = fs::File::open(cgroup).expect("the scope");
    for (program, _) in device_programs(cgroup.as_fd()).expect("programs") {
        let other = load_device_program(c"of_a_hook", &ALLOW_ALL).expect("a program");
        attach_device_program(cgroup.as_fd(), other.as_fd(), Some(program.as_fd())).expect("in its place");
    }
}

fn a_reload_leaves_devices_that_a_hook_has_added() {
    let bundle = Bundle::busybox().args(["sleep", "1000"]);
    let mut begun = Fifo::new(bundle.path("begun"));
    let mut go_on = Fifo::new(bundle.path("go-on"));
    let script = format!("echo begun > {}; read x < {}", begun.path().display(), go_on.path().display());
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    let denied = json!([{ "path": "/dev/denied", "type": "c", "major": 1, "minor": 11 }]);
    let bundle = bundle.set("/linux/devices", denied).set("/hooks", json!({ "createRuntime": hook }));
    let container = in_scope(bundle).build();
    let create = create_call(&container).spawn();
    assert_eq!(begun.line(), "begun");
    assert_eq!(property(&container, "DevicePolicy"), "strict");
    allow_all_devices(&Path::new("/sys/fs/cgroup/system.slice").join(scope(&container)));
    go_on.send("");
    create.wait().assert_ok();
    container.start().assert_ok();
    systemctl(&["daemon-reload"]).assert_ok();
    container.exec(OPEN).assert_ok();
    assert_eq!(property(&container, "DevicePolicy"), "auto");
}

fn an_update_changes_the_properties_too() {
    let container = limited();
    let options = ["--memory", "33554432", "--pids-limit", "9", "--cpu-quota", "5000"];
    container.call("update").args(options).arg(container.id()).output().assert_ok();
    // systemd writes again what it knows: the new limits.
    systemctl(&["daemon-reload"]).assert_ok();
    let values = ["MemoryMax", "TasksMax", "CPUQuotaPerSecUSec"].map(|name| property(&container, name));
    assert_eq!(values, ["33554432", "9", "250ms"]);
    assert_eq!(limits(&container), ["33554432", "9", "5000 20000", "0"]);
}

fn annotations_are_properties() {
    let annotations = json!({
        "org.systemd.property.TimeoutStopUSec": "uint64 7000000",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
    });
    let container = start(Bundle::busybox().set("/annotations", annotations).args(["sleep", "1000"]));
    assert_eq!(property(&container, "TimeoutStopUSec"), "7s");
    assert_eq!(property(&container, "CollectMode"), "inactive-or-failed");

    let annotations = json!({ "org.systemd.property.TimeoutStopUSec": "seven" });
    let container = in_scope(Bundle::busybox().set("/annotations", annotations)).build();
    container.refuses(create_call(&container).output(), &["org.systemd.property.TimeoutStopUSec"]);
    assert_no_scope(&container);
}

fn every_command_works_in_a_scope() {
    let container = limited();
    let own = format!("/system.slice/{}", scope(&container));
    assert!(container.proc("cgroup").contains(&own), "{}", container.proc("cgroup"));
    let exec = container.exec(["cat", "/proc/self/cgroup"]);
    exec.assert_ok().assert_stdout_contains(&own);
    container.call("ps").args(["--format", "json"]).arg(container.id()).output().assert_ok();
    container.verb("pause").assert_ok();
    assert_eq!(container.status(), "paused");
    container.verb("resume").assert_ok();
    assert_eq!(container.status(), "running");
    assert_eq!(property(&container, "ActiveState"), "active");
    container.finish();
    assert_no_scope(&container);
}

fn a_restored_container_is_in_a_scope() {
    // A sleep ends early when CRIU has restored it.
    let container = in_scope(with_limits().sh("while :; do sleep 1000; done")).build();
    // CRIU saves no files of the host's.
    create_call(&container).stdio(Stdio::null(), Stdio::null(), Stdio::null()).output().assert_ok();
    container.start().assert_ok();
    let images = container.path("images");
    container.call("checkpoint").arg("--image-path").arg(&images).arg(container.id()).output().assert_ok();
    assert_no_scope(&container);
    let restore = |images: &Path| {
        let options = ["--systemd-cgroup", "restore", "--detach", "--bundle"].map(OsStr::new);
        let call = container.global(options).arg(container.dir()).arg("--image-path").arg(images);
        call.arg(container.id()).output()
    };
    restore(&container.path("nothing")).assert_fails();
    assert_no_scope(&container);
    restore(&images).assert_ok();
    let own = format!("/system.slice/{}", scope(&container));
    assert!(container.proc("cgroup").contains(&own), "{}", container.proc("cgroup"));
    assert_eq!(property(&container, "TasksMax"), "17");
    container.exec(["cat", "/proc/self/cgroup"]).assert_ok().assert_stdout_contains(&own);
    container.finish();
    assert_no_scope(&container);
}

fn a_scope_is_gone_after_a_failed_create() {
    let failing = in_scope(Bundle::busybox().args(["/no/such/program"])).build();
    let created = create_call(&failing).output();
    if created.code() == 0 {
        // A runtime may see it at `start` only.
        failing.start().assert_fails();
        failing.delete_force().assert_ok();
    }
    failing.assert_gone(&created);
    assert_no_scope(&failing);
}

fn a_scope_is_gone_after_a_create_that_was_killed() {
    let bundle = Bundle::busybox();
    let mut begun = Fifo::new(bundle.path("begun"));
    let go_on = Fifo::new(bundle.path("go-on"));
    let script = format!("echo begun > {}; read x < {}", begun.path().display(), go_on.path().display());
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    let container = in_scope(bundle.set("/hooks", json!({ "createRuntime": hook }))).build();
    let create = create_call(&container).spawn();
    assert_eq!(begun.line(), "begun");
    assert_eq!(property(&container, "ActiveState"), "active");
    create.signal(Signal::KILL);
    drop(create);
    let deleted = container.delete_force();
    drop(go_on); // the hook, which nobody waits for any more, ends
    container.assert_gone(deleted.assert_ok());
    assert_no_scope(&container);
}

/// A scope of this name with a process in it.
fn foreign_scope(container: &Container) -> Child {
    let scope = format!("--unit={}", scope(container));
    let run =
        Command::new("systemd-run").args(["--scope", "-p", "Delegate=yes", &scope, "sleep", "1000"]).spawn();
    let run = run.expect("systemd-run");
    assert!(until(|| property(container, "ActiveState") == "active"));
    run
}

fn a_scope_of_somebody_elses_is_left_alone() {
    let container = in_scope(Bundle::busybox()).build();
    let mut foreign = foreign_scope(&container);
    let created = create_call(&container).output();
    created.assert_fails().assert_stderr_contains("container's cgroup is not empty");
    assert_eq!(property(&container, "ActiveState"), "active");
    assert!(foreign.try_wait().expect("our child").is_none(), "it was ended");
    foreign.kill().and_then(|()| foreign.wait()).expect("our child");
    assert!(until(|| property(&container, "ActiveState") != "active"));
}

/// Those that come too late spare it.
fn of_many_creates_in_one_scope_one_wins() {
    for _ in 0..5 {
        let first = Bundle::busybox();
        let path = format!("system.slice:test:{}", first.key());
        let containers: Vec<Container> = std::iter::once(first)
            .chain((1..4).map(|_| Bundle::busybox()))
            .map(|bundle| bundle.set("/linux/cgroupsPath", path.as_str()).args(["sleep", "1000"]).build())
            .collect();
        let creating: Vec<_> = containers.iter().map(|container| create_call(container).spawn()).collect();
        let outputs: Vec<Output> = creating.into_iter().map(Running::wait).collect();
        let (winners, losers): (Vec<_>, Vec<_>) =
            containers.iter().zip(&outputs).partition(|(_, output)| output.code() == 0);
        assert_eq!(winners.len(), 1, "{}", outputs.iter().map(ToString::to_string).collect::<String>());
        for (loser, output) in losers {
            output.assert_fails().assert_stderr_contains("test-");
            loser.delete_force().assert_ok();
        }
        let winner = winners[0].0;
        assert_eq!(winner.status(), "created");
        winner.start().assert_ok();
        winner.finish();
        assert_no_scope(&containers[0]);
    }
}

fn a_frozen_scope_is_refused() {
    let container = in_scope(Bundle::busybox()).build();
    let directory = Path::new("/sys/fs/cgroup/system.slice").join(scope(&container));
    fs::create_dir(&directory)
        .and_then(|()| fs::write(directory.join("cgroup.freeze"), "1"))
        .expect("a cgroup");
    let created = create_call(&container).output();
    fs::remove_dir(&directory).expect("it is there still");
    container.refuses(created, &["cgroup unexpectedly frozen"]);
}

fn what_systemd_does_not_know_is_limited_too() {
    let limits = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
    let container = start(Bundle::busybox().resource("hugepageLimits", limits).args(["sleep", "1000"]));
    assert_eq!(Cgroups::of(container.pid()).read("hugetlb", "", "hugetlb.2MB.max"), "4194304");
}

fn a_container_is_idle_until_it_gets_a_weight() {
    let container = start(Bundle::busybox().args(["sleep", "1000"]));
    let update = |options: &[&str]| container.call("update").args(options).arg(container.id()).output();
    let read = |file| Cgroups::of(container.pid()).read("cpu", "", file);
    update(&["--cpu-idle", "1"]).assert_ok();
    assert_eq!((read("cpu.idle"), property(&container, "CPUWeight")), ("1".into(), "idle".into()));
    // systemd writes all that it knows of the processor again.
    update(&["--cpu-quota", "50000"]).assert_ok();
    let directory = Path::new("/sys/fs/cgroup/system.slice").join(scope(&container));
    assert_eq!(fs::read_to_string(directory.join("cpu.idle")).expect("a setting"), "1\n");
    update(&["--cpu-idle", "1", "--cpu-share", "200"])
        .assert_ok()
        .assert_stderr_contains("unable to apply both");
    assert_eq!(read("cpu.idle"), "1");
    update(&["--cpu-share", "1024"]).assert_ok();
    assert_eq!((read("cpu.idle"), read("cpu.weight")), ("0".into(), "100".into()));
}

fn the_period_stays_when_the_quota_goes() {
    let container = start(Bundle::busybox().args(["sleep", "1000"]));
    let update = |options: &[&str]| container.call("update").args(options).arg(container.id()).output();
    update(&["--cpu-period", "900000", "--cpu-quota", "450000"]).assert_ok();
    update(&["--cpu-quota", "-1"]).assert_ok();
    let directory = Path::new("/sys/fs/cgroup/system.slice").join(scope(&container));
    assert_eq!(fs::read_to_string(directory.join("cpu.max")).expect("a setting"), "max 900000\n");
    assert_eq!(Cgroups::of(container.pid()).read("cpu", "", "cpu.max"), "max 900000");
}

fn a_path_of_another_form_is_refused() {
    for wrong in ["/a/path", "a:b", "no-slice:test:name", "system.slice:test:a b"] {
        let bundle = Bundle::busybox();
        let container = bundle.set("/linux/cgroupsPath", wrong).build();
        container.refuses(create_call(&container).output(), &[]);
    }
}
