//! A cgroup of the container's own to change: delegated by annotation, or because the specification shows it writable.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lxcrun_test::{Bundle, Cgroups, Container, Fifo, Need, tests};
use serde_json::json;

tests![
    a_delegated_cgroup_is_writable_and_its_limits_are_outside
        .needs(Need::CgroupV2)
        .lxcrun_only("it is an annotation of lxcrun's"),
    a_delegated_cgroup_is_the_mapped_roots
        .needs(Need::CgroupV2)
        .lxcrun_only("it is an annotation of lxcrun's"),
    every_command_works_with_a_delegated_cgroup
        .needs(Need::CgroupV2)
        .lxcrun_only("it is an annotation of lxcrun's"),
    an_exec_goes_to_where_the_container_has_moved_itself
        .needs(Need::CgroupV2)
        .lxcrun_only("it is an annotation of lxcrun's"),
    a_delegated_cgroup_needs_version_two
        .needs(Need::CgroupV1("memory"))
        .lxcrun_only("it is an annotation of lxcrun's"),
    a_delegated_cgroup_needs_a_namespace.needs(Need::CgroupV2).lxcrun_only("it is an annotation of lxcrun's"),
    a_delegation_is_true_or_false.lxcrun_only("it is an annotation of lxcrun's"),
    a_writable_cgroup_is_its_users.needs(Need::CgroupV2),
    a_cgroup_that_is_not_writable_stays_the_hosts.needs(Need::CgroupV2),
];

const ANNOTATION: &str = "org.linuxcontainers.lxc.cgroup-delegate";

fn delegated() -> Bundle {
    Bundle::busybox()
        .namespace("cgroup", None)
        .set("/annotations", json!({ ANNOTATION: "true" }))
        .resource("pids", json!({ "limit": 50 }))
        .resource("memory", json!({ "limit": 64 << 20 }))
}

const MAPPED_ROOT: u32 = 100_000;

fn with_user_namespace(bundle: Bundle) -> Bundle {
    let mapping = json!([{ "containerID": 0, "hostID": MAPPED_ROOT, "size": 65536 }]);
    bundle
        .namespace("user", None)
        .set("/linux/uidMappings", mapping.clone())
        .set("/linux/gidMappings", mapping)
}

/// The init's cgroup on the host.
fn cgroup(container: &Container) -> PathBuf {
    Cgroups::of(container.pid()).dir("pids")
}

/// Makes a cgroup, moves the shell there, and passes a controller down: what systemd does at its start.
const USE: &str = "cd /sys/fs/cgroup && mkdir below && echo $$ > below/cgroup.procs && \
                   echo +pids > cgroup.subtree_control && echo 7 > below/pids.max && cat below/pids.max; ";

fn a_delegated_cgroup_is_writable_and_its_limits_are_outside() {
    let container = delegated().sh(&format!("{USE} ls; cat /proc/self/cgroup")).build();
    let run = container.run();
    let lines = run.assert_ok().lines();
    assert_eq!(lines.first(), Some(&"7"), "{run}");
    assert_eq!(lines.last(), Some(&"0::/below"), "{run}");

    let container = delegated().args(["sleep", "1000"]).start();
    let inner = cgroup(&container);
    let outer = inner.parent().expect("the container's cgroup");
    let read = |dir: &Path, file: &str| fs::read_to_string(dir.join(file)).expect("a limit");
    assert_eq!([read(outer, "pids.max"), read(outer, "memory.max")], ["50\n", "67108864\n"]);
    assert_eq!([read(&inner, "pids.max"), read(&inner, "memory.max")], ["max\n", "max\n"]);
    container.exec(["sh", "-c", "echo max > /sys/fs/cgroup/../pids.max"]).assert_fails();
    assert_eq!(read(outer, "pids.max"), "50\n");
}

fn owner(path: impl AsRef<Path>) -> u32 {
    let path = path.as_ref();
    fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).uid()
}

fn a_delegated_cgroup_is_the_mapped_roots() {
    let bundle = with_user_namespace(delegated());
    let container = bundle.sh(&format!("{USE} sleep 1000")).build();
    container.create().assert_ok();
    let inner = cgroup(&container);
    let outer = inner.parent().expect("the container's cgroup").to_owned();
    assert_eq!(owner(&inner), MAPPED_ROOT);
    let files = fs::read_to_string("/sys/kernel/cgroup/delegate").expect("a list of files");
    for file in files.split_whitespace().filter(|file| inner.join(file).exists()) {
        assert_eq!(owner(inner.join(file)), MAPPED_ROOT, "{file}");
    }
    assert_eq!(owner(inner.join("pids.max")), 0);
    assert_eq!([owner(&outer), owner(outer.join("cgroup.procs"))], [0, 0]);
}

fn every_command_works_with_a_delegated_cgroup() {
    let container = delegated().sh("sleep 1000 & wait").start();
    container.exec(["cat", "/proc/self/cgroup"]).assert_ok().assert_stdout("0::/\n");
    container.call("update").args(["--pids-limit", "40"]).arg(container.id()).output().assert_ok();
    let outer = cgroup(&container).parent().expect("the container's cgroup").to_owned();
    assert_eq!(fs::read_to_string(outer.join("pids.max")).expect("a limit"), "40\n");
    container.verb("pause").assert_ok();
    assert_eq!(container.status(), "paused");
    container.verb("resume").assert_ok();
    container.exec(["mkdir", "/sys/fs/cgroup/another"]).assert_ok();
    container.finish();
}

/// What systemd does as pid 1: with controllers for those below no process may be in the cgroup itself.
fn an_exec_goes_to_where_the_container_has_moved_itself() {
    let bundle = delegated();
    let mut moved = Fifo::new(bundle.path("moved"));
    let script = format!("{USE} echo moved >/moved; exec sleep 1000");
    let container = bundle.bind(moved.path(), "/moved", &["bind"]).sh(&script).start();
    assert_eq!(moved.line(), "moved");
    container.exec(["cat", "/proc/self/cgroup"]).assert_ok().assert_stdout("0::/below\n");
    container.finish();
}

fn a_delegated_cgroup_needs_version_two() {
    delegated().refused(&[ANNOTATION, "cgroup v2"]);
}

fn a_delegated_cgroup_needs_a_namespace() {
    delegated().without_namespace("cgroup").refused(&[ANNOTATION, "namespace"]);
}

fn a_delegation_is_true_or_false() {
    let bundle = |value: &str| Bundle::busybox().set("/annotations", json!({ ANNOTATION: value }));
    bundle("perhaps").refused(&[ANNOTATION, "perhaps"]);
    bundle("false").run().assert_ok();
}

fn with_cgroup_mount(option: &str) -> Bundle {
    with_user_namespace(Bundle::busybox().namespace("cgroup", None)).without_mount("/sys/fs/cgroup").mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["nosuid", "noexec", "nodev", option],
    )
}

fn a_writable_cgroup_is_its_users() {
    let container = with_cgroup_mount("rw").user(7, 7).args(["sleep", "1000"]).create();
    let dir = cgroup(&container);
    let names = [".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];
    assert_eq!(names.map(|name| owner(dir.join(name))), [MAPPED_ROOT + 7; 4]);
    assert_eq!(owner(dir.join("pids.max")), 0);
}

fn a_cgroup_that_is_not_writable_stays_the_hosts() {
    let container = with_cgroup_mount("ro").user(7, 7).args(["sleep", "1000"]).create();
    assert_ne!(owner(cgroup(&container)), MAPPED_ROOT + 7);
    container.start().assert_ok();
    container.exec(["mkdir", "/sys/fs/cgroup/below"]).assert_fails();
}
