//! Namespaces: new, the host's, or those at a path.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use lxcrun_test::{Bundle, Container, HostSnapshot, interfaces, read_line, tests};
use serde_json::{Value, json};

tests![
    a_proc_of_another_pid_namespace_is_refused.not_on("crun", "it does not look"),
    the_hosts_cgroup_namespace_stays_where_others_are_joined,
    without_the_linux_section_namespaces_are_the_hosts
        .not_on("crun", "it wants the section")
        .not_on("runc", "1.1 mounts on the host, and leaves that"),
    a_time_namespace_has_its_offsets.not_on("runc", "1.1 does not know it"),
    a_time_namespace_needs_no_offsets.not_on("runc", "1.1 does not know it"),
    a_time_namespace_with_a_path_is_entered.not_on("runc", "1.1 does not know it"),
    offsets_that_are_none_are_refused.not_on("runc", "1.1 does not know them"),
    a_listed_namespace_is_new,
    an_omitted_namespace_is_the_hosts,
    a_namespace_with_a_path_is_entered,
    a_pid_namespace_with_a_path_is_entered,
    a_new_cgroup_namespace_hides_the_path,
    a_new_network_has_nothing_but_loopback,
    the_host_name_is_set,
    the_host_name_of_the_host_stays_as_it_is,
    the_domain_name_is_set.not_on("runc", "1.1.5 doesn't know it"),
    a_host_name_without_its_namespace_is_refused.lxcrun_only("runc's words for it differ by version"),
    a_path_of_another_kind_is_refused,
    the_hosts_pid_namespace_shows_the_host,
    the_hosts_network_shows_its_interfaces,
    a_container_without_a_mount_namespace_has_the_hosts.lxcrun_only("runc 1.1 leaves mounts on the host"),
    an_exec_is_in_the_root_of_a_container_with_a_mount_namespace_of_others
        .lxcrun_only("runc 1.1 leaves mounts there"),
    the_hosts_mount_namespace_stays_as_it_is.lxcrun_only("runc 1.1 leaves a mount on the host").alone(),
    a_mount_namespace_with_a_path_stays_as_it_is.lxcrun_only("runc 1.1 changes its root"),
];

/// What such a /proc says of a pid is another process's.
fn a_proc_of_another_pid_namespace_is_refused() {
    Bundle::busybox().host(r#"exec unshare -pf "$0" "$@""#).refused(&["proc"]);
}

fn without_the_linux_section_namespaces_are_the_hosts() {
    let own = std::fs::read_link("/proc/self/ns/uts").expect("a namespace");
    let bundle = Bundle::busybox().set("/hostname", Value::Null).set("/linux", Value::Null);
    let run = bundle.args(["readlink", "/proc/self/ns/uts"]).run();
    run.assert_ok().assert_stdout(&format!("{}\n", own.display()));
}

/// The kinds that a container can leave out or enter like any other, as the spec and as /proc call them.
const KINDS: [(&str, &str); 4] = [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup")];

fn link(pid: &str, kind: &str) -> String {
    let path = fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace");
    path.to_string_lossy().into_owned()
}

fn sleeper(bundle: Bundle) -> Container {
    bundle.args(["sleep", "1000"]).create()
}

fn init_link(container: &Container, kind: &str) -> String {
    link(&container.pid().to_string(), kind)
}

fn a_listed_namespace_is_new() {
    let container = sleeper(Bundle::busybox().namespace("cgroup", None));
    for kind in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        assert_ne!(init_link(&container, kind), link("self", kind), "{kind}");
    }
    assert_eq!(init_link(&container, "user"), link("self", "user"));
}

fn an_omitted_namespace_is_the_hosts() {
    let container = sleeper(
        KINDS
            .iter()
            .fold(Bundle::busybox(), |bundle, (name, _)| bundle.without_namespace(name))
            .without_namespace("pid")
            .edit(without_hostname),
    );
    for kind in ["pid", "net", "ipc", "uts", "cgroup"] {
        assert_eq!(init_link(&container, kind), link("self", kind), "{kind}");
    }
}

/// As containers of a pod have it.
fn the_hosts_cgroup_namespace_stays_where_others_are_joined() {
    let first = sleeper(Bundle::busybox());
    for (name, kind) in KINDS.into_iter().filter(|(name, _)| *name != "cgroup") {
        let path = format!("/proc/{}/ns/{kind}", first.pid());
        let bundle = Bundle::busybox().edit(without_hostname).without_namespace("cgroup");
        let second = sleeper(bundle.namespace(name, Some(&path)));
        assert_eq!(init_link(&second, "cgroup"), link("self", "cgroup"), "{kind}");
        let own = second.exec(["cat", "/proc/1/cgroup"]);
        assert!(own.assert_ok().stdout.contains(second.id()), "{kind}{own}");
    }
}

fn without_hostname(spec: &mut serde_json::Value) {
    spec.as_object_mut().expect("a spec").remove("hostname");
}

fn a_namespace_with_a_path_is_entered() {
    let first = sleeper(Bundle::busybox().namespace("cgroup", None));
    for (name, kind) in KINDS {
        let path = format!("/proc/{}/ns/{kind}", first.pid());
        let second = sleeper(Bundle::busybox().edit(without_hostname).namespace(name, Some(&path)));
        assert_eq!(init_link(&second, kind), init_link(&first, kind), "{kind}");
    }
}

fn a_pid_namespace_with_a_path_is_entered() {
    let first = sleeper(Bundle::busybox());
    first.start().assert_ok();
    let path = format!("/proc/{}/ns/pid", first.pid());
    let run = Bundle::busybox().namespace("pid", Some(&path)).sh("echo $$; cat /proc/1/cmdline").run();
    let (own, rest) = run.assert_ok().stdout.split_once('\n').expect("two lines");
    assert_ne!(own, "1");
    assert_eq!(rest, "sleep\u{0}1000\u{0}");
    assert_eq!(first.status(), "running", "the end of the second isn't that of the first");
}

fn a_new_cgroup_namespace_hides_the_path() {
    let run = Bundle::busybox().namespace("cgroup", None).args(["cat", "/proc/self/cgroup"]).run();
    assert!(run.assert_ok().lines().iter().all(|line| line.ends_with(":/")), "{run}");
    let container = Bundle::busybox().args(["cat", "/proc/self/cgroup"]).build();
    container.run().assert_ok().assert_stdout_contains(container.id());
}

fn a_new_network_has_nothing_but_loopback() {
    let run = Bundle::busybox().sh("ls /sys/class/net; ip -o addr show lo").run();
    run.assert_ok().assert_stdout_contains("127.0.0.1/8");
    assert_eq!(run.lines()[0], "lo");
    assert!(run.lines()[1].contains("lo"), "only the loopback{run}");
}

fn the_host_name_is_set() {
    Bundle::busybox()
        .set("/hostname", "my.host")
        .args(["hostname"])
        .run()
        .assert_ok()
        .assert_stdout("my.host\n");
}

fn the_host_name_of_the_host_stays_as_it_is() {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").expect("our host name");
    let bundle = Bundle::busybox().edit(without_hostname).without_namespace("uts");
    bundle.args(["hostname"]).run().assert_ok().assert_stdout(&name);
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").expect("our host name"), name);
}

fn the_domain_name_is_set() {
    let bundle = Bundle::busybox().set("/domainname", "my.domain").set("/ociVersion", "1.1.0");
    bundle.args(["cat", "/proc/sys/kernel/domainname"]).run().assert_ok().assert_stdout("my.domain\n");
}

fn a_host_name_without_its_namespace_is_refused() {
    Bundle::busybox().without_namespace("uts").refused(&["hostname", "uts"]);
}

fn a_path_of_another_kind_is_refused() {
    let bundle = Bundle::busybox().namespace("network", Some("/proc/self/ns/uts"));
    bundle.refused(&["namespace"]);
}

fn the_hosts_pid_namespace_shows_the_host() {
    let run = Bundle::busybox().without_namespace("pid").sh("cat /proc/1/comm; echo $$").run();
    let host = fs::read_to_string("/proc/1/comm").expect("the host's init");
    assert_eq!(run.assert_ok().lines()[0], host.trim_end());
    assert_ne!(run.lines()[1], "1");
}

fn the_hosts_network_shows_its_interfaces() {
    let container = Bundle::busybox().without_namespace("network").args(["cat", "/proc/net/dev"]).build();
    let run = container.run();
    for interface in interfaces() {
        run.assert_ok().assert_stdout_contains(&interface);
    }
}

/// It works, or is refused by name.
fn a_container_without_a_mount_namespace_has_the_hosts() {
    let container = sleeper(Bundle::busybox().without_namespace("mount"));
    assert_eq!(init_link(&container, "mnt"), link("self", "mnt"));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains(container.id()), "{mounts}");
    container.start().assert_ok();
    container.delete_force().assert_ok();
}

/// A bundle with a file in its root that is nowhere else.
fn marked() -> Bundle {
    let bundle = Bundle::busybox();
    fs::write(bundle.rootfs("marked"), "in the root\n").expect("set up the root");
    bundle
}

fn an_exec_is_in_the_root_of_a_container_with_a_mount_namespace_of_others() {
    let mut other = Command::new("unshare");
    other.args(["--mount", "sh", "-c", "echo; exec cat"]);
    let mut other = other.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare");
    read_line(other.stdout.as_mut().expect("piped"));
    let path = format!("/proc/{}/ns/mnt", other.id());
    for bundle in [marked().without_namespace("mount"), marked().namespace("mount", Some(&path))] {
        let container = bundle.args(["sleep", "1000"]).start();
        container.exec(["cat", "/marked"]).assert_ok().assert_stdout("in the root\n");
        container.exec(["sh", "-c", "ls /proc/self/fd >/dev/null && test -c /dev/null"]).assert_ok();
    }
    drop(other.stdin.take());
    other.wait().expect("our child");
}

fn the_hosts_mount_namespace_stays_as_it_is() {
    let before = HostSnapshot::take();
    Bundle::busybox().without_namespace("mount").run().assert_ok();
    before.assert_unchanged();
}

fn a_mount_namespace_with_a_path_stays_as_it_is() {
    let mut command = Command::new("unshare");
    command.args(["--mount", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = command.spawn().expect("unshare");
    // What it echoes comes from within its namespace.
    writeln!(holder.stdin.as_ref().expect("stdin"), "ready").expect("write");
    assert_eq!(read_line(holder.stdout.as_mut().expect("stdout")), "ready");
    let mounts = || fs::read_to_string(format!("/proc/{}/mountinfo", holder.id())).expect("mountinfo");
    let before = mounts();
    let path = format!("/proc/{}/ns/mnt", holder.id());
    Bundle::busybox().namespace("mount", Some(&path)).run().assert_ok();
    assert_eq!(mounts(), before);
    drop(holder.stdin.take());
    holder.wait().expect("our child");
}

/// /proc/uptime is the boot-time clock, as the process's time namespace has it.
fn uptime(text: &str) -> f64 {
    text.split(' ').next().and_then(|n| n.trim().parse().ok()).expect("a number of seconds")
}

fn a_time_namespace_has_its_offsets() {
    let before = uptime(&fs::read_to_string("/proc/uptime").expect("the uptime"));
    let offsets = json!({ "boottime": { "secs": 1_000_000, "nanosecs": 5 }, "monotonic": { "secs": -1 } });
    let bundle = Bundle::busybox().namespace("time", None).set("/linux/timeOffsets", offsets);
    let container = bundle.args(["sleep", "1000"]).start();
    let inside = uptime(&container.exec(["cat", "/proc/uptime"]).assert_ok().stdout);
    assert!(inside - before > 999_999.0 && inside - before < 1_000_600.0, "{before} {inside}");
    let offsets = container.exec(["cat", "/proc/self/timens_offsets"]);
    let words: Vec<&str> = offsets.assert_ok().stdout.split_whitespace().collect();
    assert_eq!(words, ["monotonic", "-1", "0", "boottime", "1000000", "5"]);
}

fn a_time_namespace_with_a_path_is_entered() {
    let first = sleeper(Bundle::busybox().namespace("time", None));
    let path = format!("/proc/{}/ns/time", first.pid());
    let second = sleeper(Bundle::busybox().namespace("time", Some(&path)));
    assert_eq!(init_link(&second, "time"), init_link(&first, "time"));
    assert_ne!(init_link(&second, "time"), link("self", "time"));
}

fn a_time_namespace_needs_no_offsets() {
    let container = sleeper(Bundle::busybox().namespace("time", None));
    assert_ne!(init_link(&container, "time"), link("self", "time"));
}

fn offsets_that_are_none_are_refused() {
    let field = "linux.timeOffsets";
    let offset = json!({ "boottime": { "secs": 1 } });
    Bundle::busybox().set("/linux/timeOffsets", offset).refused(&[field, "time namespace"]);
    for wrong in [json!({ "realtime": { "secs": 1 } }), json!({ "monotonic": { "nanosecs": 1_000_000_000 } })]
    {
        Bundle::busybox().namespace("time", None).set("/linux/timeOffsets", wrong).refused(&[field]);
    }
}
