//! The host as a whole: it is after many containers what it was before.

use std::thread;

use lxcrun_test::{Bundle, HostSnapshot, tests};
use serde_json::json;

tests![
    after_two_hundred_containers_eight_at_a_time_the_host_is_as_before.alone(),
    the_hosts_mounts_are_byte_equal_before_and_after.alone(),
    the_hosts_mounts_are_byte_equal_while_a_container_runs.alone(),
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
