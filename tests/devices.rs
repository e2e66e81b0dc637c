//! Devices: the default ones, those listed, and what the cgroup lets the program do.

use lxcrun_test::{Bundle, tests};
use serde_json::{Value, json};

tests![
    a_rule_may_deny_all_by_a_letter,
    the_default_devices_are_there,
    the_default_links_are_there,
    the_default_devices_work_for_everybody,
    a_listed_device_has_its_number_mode_and_owner,
    a_listed_device_may_lie_outside_of_dev,
    a_listed_device_replaces_the_default_one,
    a_file_that_is_not_the_device_is_refused.not_on("runc", "1.1 leaves the file there and says nothing"),
    another_file_at_a_default_device_stays,
    a_mounted_device_keeps_its_mode_and_owner,
    a_fifo_can_be_listed,
    a_listed_ptmx_is_the_link_all_the_same,
    a_device_that_is_not_allowed_cannot_be_opened,
    the_hosts_console_is_not_allowed.not_on("crun", "it allows it"),
    a_device_that_is_allowed_can_be_opened,
    a_device_may_be_allowed_for_reading_alone,
    a_later_rule_wins,
    a_rule_for_all_devices_has_its_access.not_on("runc", "1.1 allows every access to all"),
    a_negative_number_of_a_rule_is_refused,
    rules_outlive_an_update,
    a_program_may_make_a_device_but_not_use_it,
];

fn the_default_devices_are_there() {
    let script = "cd /dev; stat -c '%n %F %t:%T %a %u:%g' null zero full random urandom tty";
    Bundle::busybox().sh(script).run().assert_ok().assert_stdout(
        "null character special file 1:3 666 0:0\n\
         zero character special file 1:5 666 0:0\n\
         full character special file 1:7 666 0:0\n\
         random character special file 1:8 666 0:0\n\
         urandom character special file 1:9 666 0:0\n\
         tty character special file 5:0 666 0:0\n",
    );
}

fn the_default_links_are_there() {
    let script = "cd /dev; for l in fd stdin stdout stderr ptmx; do readlink $l; done";
    let links = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n";
    Bundle::busybox().sh(script).run().assert_ok().assert_stdout(links);
}

fn the_default_devices_work_for_everybody() {
    let script = "echo x > /dev/null && head -c 3 /dev/zero | wc -c && head -c 3 /dev/urandom | wc -c; \
                  echo x > /dev/full";
    let run = Bundle::busybox().user(1000, 1000).sh(script).run();
    run.assert_exit(1).assert_stdout("3\n3\n").assert_stderr_contains("no space left");
}

/// 1:11 is the kernel's log: no default device, and it can be opened without any harm.
fn with_device(path: &str) -> Bundle {
    let device =
        json!({ "path": path, "type": "c", "major": 1, "minor": 11, "fileMode": 0o640, "uid": 5, "gid": 6 });
    Bundle::busybox()
        .capabilities(&["CAP_SYSLOG", "CAP_DAC_OVERRIDE", "CAP_MKNOD"])
        .push("/linux/devices", device)
}

const STAT: [&str; 4] = ["stat", "-c", "%F %t:%T %a %u:%g", "/dev/log11"];

fn a_listed_device_has_its_number_mode_and_owner() {
    let run = with_device("/dev/log11").args(STAT).run();
    run.assert_ok().assert_stdout("character special file 1:b 640 5:6\n");
}

fn a_listed_device_may_lie_outside_of_dev() {
    let run = with_device("/new/place/log11").args(["stat", "-c", "%t:%T", "/new/place/log11"]).run();
    run.assert_ok().assert_stdout("1:b\n");
}

fn a_listed_device_replaces_the_default_one() {
    let device = json!({ "path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600 });
    let run = Bundle::busybox().push("/linux/devices", device).args(["stat", "-c", "%a", "/dev/zero"]).run();
    run.assert_ok().assert_stdout("600\n");
}

fn a_file_that_is_not_the_device_is_refused() {
    let bundle = with_device("/etc/passwd");
    bundle.build().create().assert_fails();
}

fn bind(source: &str, destination: &str) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": ["bind"] })
}

/// The old way to a container that never waits for randomness.
fn another_file_at_a_default_device_stays() {
    let bundle = Bundle::busybox().push("/mounts", bind("/dev/urandom", "/dev/random"));
    bundle.args(["stat", "-c", "%t:%T", "/dev/random"]).run().assert_ok().assert_stdout("1:9\n");
}

/// It is the host's.
fn a_mounted_device_keeps_its_mode_and_owner() {
    let node = tempfile::tempdir().expect("a directory");
    let path = node.path().join("log11");
    let made =
        std::process::Command::new("mknod").args(["-m", "604"]).arg(&path).args(["c", "1", "11"]).status();
    assert!(made.expect("mknod").success());
    let bundle =
        with_device("/dev/log11").push("/mounts", bind(path.to_str().expect("a path"), "/dev/log11"));
    bundle.args(STAT).run().assert_ok().assert_stdout("character special file 1:b 604 0:0\n");
}

fn a_fifo_can_be_listed() {
    let device = json!({ "path": "/dev/pipe", "type": "p", "fileMode": 0o600 });
    let run = Bundle::busybox().push("/linux/devices", device).args(["stat", "-c", "%F", "/dev/pipe"]).run();
    run.assert_ok().assert_stdout("fifo\n");
}

fn rule(allow: bool, access: &str) -> Value {
    json!({ "allow": allow, "type": "c", "major": 1, "minor": 11, "access": access })
}

fn deny_all() -> Value {
    json!({ "allow": false, "access": "rwm" })
}

/// Tries to open the device for reading, then for writing.
const OPEN: &str = "(: < /dev/log11) && echo read; (: >> /dev/log11) && echo write; true";

fn opened(rules: &[Value]) -> String {
    let run = with_device("/dev/log11").resource("devices", rules).sh(OPEN).run();
    run.assert_ok().stdout.replace('\n', " ")
}

fn the_hosts_console_is_not_allowed() {
    let bundle = Bundle::busybox().capabilities(&["CAP_MKNOD"]);
    let run = bundle.sh("mknod /dev/other c 5 1 && : </dev/other").run();
    run.assert_fails().assert_stderr_contains("operation not permitted");
}

fn a_device_that_is_not_allowed_cannot_be_opened() {
    assert_eq!(opened(&[deny_all()]), "");
}

fn a_device_that_is_allowed_can_be_opened() {
    assert_eq!(opened(&[deny_all(), rule(true, "rwm")]), "read write ");
}

fn a_device_may_be_allowed_for_reading_alone() {
    assert_eq!(opened(&[deny_all(), rule(true, "r")]), "read ");
}

fn a_rule_may_deny_all_by_a_letter() {
    assert_eq!(opened(&[json!({ "allow": true, "access": "rwm" }), rule(false, "rwa")]), "");
}

fn a_rule_for_all_devices_has_its_access() {
    assert_eq!(opened(&[deny_all(), json!({ "allow": true, "type": "a", "access": "r" })]), "read ");
    let numbered = json!({ "allow": true, "type": "a", "major": 4, "minor": 1, "access": "rwm" });
    assert_eq!(opened(&[deny_all(), numbered]), "");
}

fn a_negative_number_of_a_rule_is_refused() {
    let odd = json!({ "allow": true, "type": "c", "major": -5, "minor": 11, "access": "rwm" });
    let run = Bundle::busybox().resource("devices", json!([deny_all(), odd])).args(["true"]).run();
    run.assert_fails().assert_stderr_contains("-5");
}

fn a_later_rule_wins() {
    assert_eq!(opened(&[deny_all(), rule(true, "rw"), rule(false, "w")]), "read ");
    assert_eq!(opened(&[json!({ "allow": true, "access": "rwm" }), rule(false, "rw")]), "");
}

fn rules_outlive_an_update() {
    let container = with_device("/dev/log11")
        .resource("devices", json!([deny_all(), rule(true, "r")]))
        .args(["sleep", "1000"])
        .start();
    let opened = || container.exec(["sh", "-c", OPEN]).assert_ok().stdout.clone();
    assert_eq!(opened(), "read\n");
    container.call("update").args(["--pids-limit", "50"]).arg(container.id()).output().assert_ok();
    assert_eq!(opened(), "read\n");
}

fn a_program_may_make_a_device_but_not_use_it() {
    let script = "mknod /tmp/log c 1 11 && echo made; (: < /tmp/log) || echo refused";
    let rules = [deny_all(), json!({ "allow": true, "type": "c", "access": "m" })];
    let run = with_device("/dev/log11").resource("devices", &rules[..]).sh(script).run();
    run.assert_ok().assert_stdout("made\nrefused\n");
}

fn a_listed_ptmx_is_the_link_all_the_same() {
    let ptmx = json!({ "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 });
    let run = Bundle::busybox().push("/linux/devices", ptmx).args(["readlink", "/dev/ptmx"]).run();
    run.assert_ok().assert_stdout("pts/ptmx\n");
}
