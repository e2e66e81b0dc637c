//! Propagation of mounts and of the root.

use std::fs;
use std::path::Path;

use lxcrun_test::{Bundle, Fifo, Output, tests};
use serde_json::json;

use crate::mounts::{TABLE, busybox_with_source};

tests![
    a_mount_is_private_or_slave_unless_told_otherwise,
    every_propagation_of_a_mount_is_set,
    a_slave_mount_sees_what_the_host_mounts_later,
    a_shared_mount_shows_the_host_what_the_container_mounts,
    a_shared_mount_below_a_root_that_is_not_stays_in_the_container,
    every_propagation_of_the_root_is_set.not_on("runc", "1.1 sets that of the old root only"),
    what_the_host_mounts_in_the_root_later_stays_out.not_on("runc", "1.1 lets it in, 1.3 does not"),
    what_was_mounted_in_the_root_before_follows_the_host,
];

/// The propagation that the mount table has for `place`: `shared`, `master`, `unbindable`, or nothing.
fn propagation(run: &Output, place: &str) -> String {
    let line = run.assert_ok().lines().into_iter().rfind(|line| line.split(' ').nth(4) == Some(place));
    let line = line.unwrap_or_else(|| panic!("nothing is mounted at {place}{run}"));
    let (left, _) = line.split_once(" - ").expect("a mount table");
    let words: Vec<&str> = left.split(' ').skip(6).map(|w| w.split(':').next().unwrap_or(w)).collect();
    words.join(" ")
}

/// A source that is a mount of its own and shared, in the runtime's own mount namespace.
fn with_shared_source(options: &[&str]) -> Bundle {
    let (bundle, source) = busybox_with_source();
    let script = format!("mount --bind {0} {0}; mount --make-shared {0}", source.display());
    bundle.host(script).bind(source, "/data", options)
}

/// A program that does something `first`, tells it is ready, waits for a line, and then runs `then`.
fn meet(bundle: Bundle, first: &str, then: &str) -> (Bundle, Fifo, Fifo) {
    let meeting = bundle.make_dir("meeting");
    let ready = Fifo::new(meeting.join("ready"));
    let go = Fifo::new(meeting.join("go"));
    let script = format!("{first} || exit; echo ready > /meeting/ready; read x < /meeting/go; {then}");
    (bundle.bind(meeting, "/meeting", &[]).sh(&script), ready, go)
}

/// Runs `then` in a container after the host has mounted something with a file in it at `place`.
fn with_late_mount(bundle: Bundle, place: &Path, then: &str) -> Output {
    let (bundle, mut ready, mut go) = meet(bundle, "true", then);
    let container = bundle.build();
    let running = container.spawn(|call| call);
    assert_eq!(ready.line(), "ready");
    let mount = format!("mount -t tmpfs later {0}; echo late > {0}/file", place.display());
    running.in_mount_namespace(&mount).assert_ok();
    go.send("go");
    running.wait()
}

fn a_mount_is_private_or_slave_unless_told_otherwise() {
    let run = with_shared_source(&[]).args(TABLE).run();
    assert!(["", "master"].contains(&propagation(&run, "/data").as_str()), "{run}");
}

fn every_propagation_of_a_mount_is_set() {
    let kinds = [("private", ""), ("slave", "master"), ("shared", "shared"), ("unbindable", "unbindable")];
    for (kind, shown) in kinds {
        for option in [kind.to_owned(), format!("r{kind}")] {
            let run = with_shared_source(&[&option]).args(TABLE).run();
            let found = propagation(&run, "/data");
            // A shared mount may be a slave of another as well.
            assert!(found.split(' ').any(|word| word == shown), "{option}: {found:?}{run}");
        }
    }
}

fn a_slave_mount_sees_what_the_host_mounts_later() {
    let bundle = with_shared_source(&["rslave"]);
    let later = bundle.make_dir("source/later");
    with_late_mount(bundle, &later, "cat /data/later/file").assert_ok().assert_stdout("late\n");
}

fn a_shared_mount_shows_the_host_what_the_container_mounts() {
    assert!(shows_the_host(|bundle| bundle.set("/linux/rootfsPropagation", "shared")));
}

fn a_shared_mount_below_a_root_that_is_not_stays_in_the_container() {
    assert!(!shows_the_host(|bundle| bundle));
}

/// Whether the host sees what a container mounts in a source that is shared.
fn shows_the_host(more: impl FnOnce(Bundle) -> Bundle) -> bool {
    let bundle = more(with_shared_source(&["rshared"]).capabilities(&["CAP_SYS_ADMIN"]));
    let bundle = bundle.set("/process/noNewPrivileges", false);
    let inner = bundle.make_dir("source/inner");
    let (bundle, mut ready, mut go) = meet(bundle, "mount -t tmpfs inner /data/inner", "true");
    let container = bundle.build();
    let running = container.spawn(|call| call);
    assert_eq!(ready.line(), "ready");
    let seen = running.in_mount_namespace("cat /proc/self/mountinfo");
    let shown = seen.assert_ok().stdout.contains(inner.to_str().expect("UTF-8"));
    go.send("go");
    running.wait().assert_ok();
    shown
}

fn every_propagation_of_the_root_is_set() {
    let kinds = [
        (None, ""),
        (Some("private"), ""),
        (Some("rprivate"), ""),
        // A private mount has nobody to be a slave of.
        (Some("slave"), ""),
        (Some("rslave"), ""),
        (Some("shared"), "shared"),
        (Some("rshared"), "shared"),
        (Some("unbindable"), "unbindable"),
        (Some("runbindable"), "unbindable"),
    ];
    for (option, shown) in kinds {
        let bundle = with_shared_root(Bundle::busybox());
        let bundle = match option {
            Some(option) => bundle.set("/linux/rootfsPropagation", option),
            None => bundle,
        };
        let run = bundle.args(TABLE).run();
        assert_eq!(propagation(&run, "/"), shown, "{option:?}{run}");
    }
}

/// Its root is a mount of its own and shared, in the runtime's own mount namespace.
fn with_shared_root(bundle: Bundle) -> Bundle {
    let script = format!("mount --bind {0} {0}; mount --make-shared {0}", bundle.rootfs("").display());
    bundle.host(script)
}

fn what_the_host_mounts_in_the_root_later_stays_out() {
    let of_user = |bundle: Bundle| {
        let ids = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        bundle.namespace("user", None).set("/linux/uidMappings", ids.clone()).set("/linux/gidMappings", ids)
    };
    for bundle in [
        Bundle::busybox(),
        Bundle::busybox().set("/linux/rootfsPropagation", "rslave"),
        of_user(Bundle::busybox()),
    ] {
        let later = bundle.rootfs("later");
        fs::create_dir(&later).expect("a directory");
        with_late_mount(with_shared_root(bundle), &later, "ls /later").assert_ok().assert_stdout("");
    }
}

fn what_was_mounted_in_the_root_before_follows_the_host() {
    let bundle = Bundle::busybox();
    let below = bundle.rootfs("below");
    fs::create_dir(&below).expect("a directory");
    let root = bundle.rootfs("");
    let script = format!(
        "mount --bind {0} {0}; mount --make-shared {0}; mount -t tmpfs below {1}; mkdir {1}/later",
        root.display(),
        below.display()
    );
    let run = with_late_mount(bundle.host(script), &below.join("later"), "cat /below/later/file");
    run.assert_ok().assert_stdout("late\n");
}
