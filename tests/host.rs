//! The host as a whole: it is after many containers what it was before.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use lxcrun_test::{Bundle, Fifo, HostSnapshot, tests};
use serde_json::json;

tests![
    after_two_hundred_containers_eight_at_a_time_the_host_is_as_before.alone(),
    the_hosts_mounts_are_byte_equal_before_and_after.alone(),
    the_hosts_mounts_are_byte_equal_while_a_container_runs.alone(),
    names_that_are_no_text_disturb_nobody,
];

fn after_two_hundred_containers_eight_at_a_time_the_host_is_as_before() {
    const THREADS: usize = 8;
    const EACH: usize = 25;
    let before = HostSnapshot::take();
    thread::scope(|scope| {
        for number in 0..THREADS {
            scope.spawn(move || {
                for round in 0..EACH {
                    let code = i32::try_from((number * EACH + round) % 256).expect("a small number");
                    let script = format!("echo {code}; exit {code}");
                    Bundle::busybox().sh(&script).run().assert_exit(code).assert_stdout(&format!("{code}\n"));
                }
            });
        }
    });
    before.assert_unchanged();
}

/// Containers with all sorts of mounts: some that work, and some that fail.
fn all_sorts() -> (Vec<Bundle>, Vec<Bundle>) {
    let with_source = |options: &[&str]| {
        let bundle = Bundle::busybox();
        let source = bundle.make_dir("source");
        bundle.bind(source, "/data", options)
    };
    let work = vec![
        Bundle::busybox(),
        with_source(&["rbind", "rshared"]),
        with_source(&["ro", "rslave"]).set("/root/readonly", true),
        with_source(&["rprivate"]).set("/linux/rootfsPropagation", "shared"),
        Bundle::busybox().bind("/", "/host", &["rbind", "ro"]),
    ];
    let fail = vec![
        Bundle::busybox().bind("/no/such/source", "/data", &[]),
        Bundle::busybox().args(["no-such-program"]),
        Bundle::busybox().push("/hooks/createRuntime", json!({ "path": "/bin/false" })),
    ];
    (work, fail)
}

fn the_hosts_mounts_are_byte_equal_before_and_after() {
    let before = HostSnapshot::take();
    let (work, fail) = all_sorts();
    for bundle in work {
        bundle.run().assert_ok();
        before.assert_unchanged();
    }
    for bundle in fail {
        bundle.run().assert_fails();
        before.assert_unchanged();
    }
}

fn the_hosts_mounts_are_byte_equal_while_a_container_runs() {
    let mounts = || std::fs::read("/proc/self/mountinfo").expect("mountinfo");
    let before = mounts();
    let container = Bundle::busybox().args(["sleep", "1000"]).start();
    assert!(mounts() == before, "a container's mounts are on the host");
    container.finish();
    assert!(mounts() == before);
}

/// A mount point of the host has such a name, and a process whose name the kernel cuts in the middle of a letter.
fn names_that_are_no_text_disturb_nobody() {
    let bundle = Bundle::busybox();
    let host = format!(
        r#"place={}/$(printf 'a\377b'); mkdir -p "$place"; mount -t tmpfs none "$place""#,
        bundle.path("").display()
    );
    let meeting = bundle.make_dir("meeting");
    let mut ready = Fifo::new(meeting.join("ready"));
    let _never = Fifo::new(meeting.join("go"));
    let name = "é".repeat(8);
    let script = bundle.make_file(&name, "#!/bin/sh\necho ready >/meeting/ready\nread x </meeting/go\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a program");
    let bundle = bundle.bind(script, &format!("/{name}"), &[]).bind(meeting, "/meeting", &[]);
    let container = bundle.args([format!("/{name}")]).build();
    container.create_with(|call| call.host(host.clone())).assert_ok();
    container.start().assert_ok();
    assert_eq!(ready.line(), "ready");
    let comm = fs::read(format!("/proc/{}/comm", container.pid())).expect("its name");
    assert!(std::str::from_utf8(&comm).is_err(), "{comm:?}");
    assert_eq!(container.status(), "running");
    for verb in ["state", "ps", "pause", "resume"] {
        container.call(verb).arg(container.id()).host(host.clone()).output().assert_ok();
    }
    container.delete_force().assert_ok();
}
