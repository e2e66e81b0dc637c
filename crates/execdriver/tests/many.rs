//! Many containers at once, from many threads, through one driver; and nothing is left.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Bed, cgroups_named, unique};
use execdriver::{Command, Driver, Pipes};
use rustix::process::{getpid, set_child_subreaper};

/// Who counts what this process has must be the only one that has anything.
static ALONE: Mutex<()> = Mutex::new(());

const CONTAINERS: usize = 500;
const THREADS: usize = 16;
/// Which of them prints much, and how much.
const LOUD: usize = 250;
const MUCH: usize = 10 << 20;

/// Descriptors, threads and children of this process, and mounts: what a container could leave here.
fn belongings() -> Vec<BTreeSet<String>> {
    let names = |dir: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(dir).unwrap().flatten();
        entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
    };
    let fds = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let fds = fds.filter_map(|e| Some(format!("{:?} {:?}", e.file_name(), fs::read_link(e.path()).ok()?)));
    // The one with which the directory itself is read.
    let fds = fds.filter(|fd| !fd.contains("/fd\"")).collect();
    let tasks = names("/proc/self/task");
    let children = tasks.iter().flat_map(|task| {
        let text = fs::read_to_string(format!("/proc/self/task/{task}/children")).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    });
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own = mounts.lines().filter(|l| l.contains("drv")).map(str::to_owned).collect();
    vec![fds, children.collect(), tasks, own]
}

/// What is there now and was not before.
fn new_since(before: &[BTreeSet<String>]) -> Vec<String> {
    let now = belongings();
    now.iter().zip(before).flat_map(|(now, before)| now.difference(before)).cloned().collect()
}

#[test]
fn many_containers_from_many_threads_leave_nothing() {
    let _alone = ALONE.lock();
    let bed = Bed::new();
    // What is opened once is opened now.
    bed.prints("true");
    let before = belongings();
    let next = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= CONTAINERS {
                        return;
                    }
                    one(&bed, number);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    println!("{CONTAINERS} containers in {:?}", began.elapsed());
    assert_eq!(done.load(Ordering::Relaxed), CONTAINERS);
    assert!(bed.driver.list().unwrap().is_empty());
    assert_eq!(fs::read_dir(bed.driver.root()).unwrap().count(), 0);
    assert_eq!(cgroups_named(&format!("drv{}-", std::process::id())), Vec::<std::path::PathBuf>::new());
    // A thread that has fed a program ends with its next read: give it the time for that.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !new_since(&before).is_empty() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(new_since(&before), Vec::<String>::new());
}

/// Each has its own output on both streams, its own input and its own exit code.
fn one(bed: &Bed, number: usize) {
    let code = u8::try_from(number % 250).unwrap();
    if number == LOUD {
        return loud(bed);
    }
    let script = format!("echo out {number}; echo err {number} >&2; cat; exit {code}");
    let command = Command::builder(unique(), bed.rootfs()).args(["sh", "-c", &script]).build().unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let input = execdriver::Input::reader(std::io::Cursor::new(format!("in {number}").into_bytes()));
    let pipes = Pipes::null().stdin(input).stdout(&mut out).stderr(&mut err);
    let mut starts = 0;
    let status =
        bed.driver.run(&command, pipes, &mut |_| starts += 1).unwrap_or_else(|e| panic!("{number}: {e}"));
    assert_eq!((status.exit_code, status.oom_killed, starts), (code, false, 1), "{number}");
    assert_eq!(String::from_utf8(out).unwrap(), format!("out {number}\nin {number}"));
    assert_eq!(String::from_utf8(err).unwrap(), format!("err {number}\n"));
}

/// Bytes of which no two neighbours of a page are alike, through the container's memory and two pipes.
fn loud(bed: &Bed) {
    let bytes: Vec<u8> = (0..MUCH).map(|i| (i ^ (i >> 8) ^ (i >> 16)).to_le_bytes()[0]).collect();
    let command = Command::builder(unique(), bed.rootfs()).args(["cat"]).build().unwrap();
    let mut out = Vec::new();
    let input = execdriver::Input::reader(std::io::Cursor::new(bytes.clone()));
    let status = bed.driver.run(&command, Pipes::null().stdin(input).stdout(&mut out), &mut |_| ()).unwrap();
    assert_eq!(status.exit_code, 0);
    assert!(out == bytes, "{} of {} bytes", out.len(), bytes.len());
}

#[test]
fn a_container_that_could_not_start_leaves_no_zombie() {
    let _alone = ALONE.lock();
    let bed = Bed::new();
    bed.prints("true");
    let before = belongings();
    // A child whose parent ends becomes this process's then, as in a daemon that is the first process of a container.
    set_child_subreaper(Some(getpid())).unwrap();
    for _ in 0..3 {
        bed.refusal(Command::builder(unique(), bed.rootfs()).args(["nosuch"]));
    }
    let left = new_since(&before);
    set_child_subreaper(None).unwrap();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn files_and_pipes_are_handed_over_themselves() {
    let _alone = ALONE.lock();
    let bed = Bed::new();
    let path = bed.path().join("output");
    let file = fs::File::create(&path).unwrap();
    let command = bed.sh("readlink /proc/self/fd/0; head -c 3000000 /dev/zero").build().unwrap();
    let input = fs::File::open("/etc/hostname").unwrap();
    let before = threads();
    let mut during = 0;
    let pipes = Pipes::null().stdin(input).stdout(file);
    let status = bed.driver.run(&command, pipes, &mut |_| during = threads()).unwrap();
    assert_eq!(status.exit_code, 0);
    assert!(during <= before, "no thread of its own for what can be handed over: {before}, {during}");
    let output = fs::read(Path::new(&path)).unwrap();
    assert_eq!(output.iter().filter(|b| **b == 0).count(), 3_000_000);
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}
