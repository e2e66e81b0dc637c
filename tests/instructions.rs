//! How much there is to do, in instructions as callgrind counts them: unlike times they repeat.
//!
//! A count that has grown is a question, not a crime: find out what for, and raise the figure in the commit that says why.

use std::fs;
use std::process::{Command, Stdio};

use lxcrun_test::{Bundle, Call, Container, Need, Output, tests};

tests![
    to_check_and_translate_a_bundle.needs(Need::Program("valgrind")).needs(Need::Release).lxcrun_only(WHY),
    to_tell_the_state.needs(Need::Program("valgrind")).needs(Need::Release).lxcrun_only(WHY),
];

const WHY: &str = "the figures are lxcrun's";

/// In thousands.
const TRANSLATION: u64 = 1115;
const STATE: u64 = 417;

fn to_check_and_translate_a_bundle() {
    let container = Bundle::busybox().sh("true").build();
    let call = container.call("lxc-config").arg("--bundle").arg(container.dir());
    assert_no_more_than(TRANSLATION, count(&container, &call));
}

fn to_tell_the_state() {
    let container = Bundle::busybox().sh("true").create();
    assert_no_more_than(STATE, count(&container, &container.call("state").arg(container.id())));
    container.delete_force().assert_ok();
}

/// A twentieth more is noise, as of the length of names.
#[track_caller]
fn assert_no_more_than(known: u64, now: u64) {
    assert!(now <= known + known / 20, "{now} thousand instructions, and it was {known}");
}

/// Takes away what else the host has mounted: another thing to read for `lxcrun`, and on every host other things.
const ALONE: &str = r#"
    cut -d ' ' -f 5 /proc/self/mountinfo | tac | while read -r place; do
        case "$KEEP" in *" $place/"*) continue ;; esac
        case "$place" in /sys/fs/cgroup*) ;; /*/*) umount --lazy "$place" ;; esac
    done
    exec "$@""#;

/// In thousands. The C library's functions for strings are those of any processor.
#[track_caller]
fn count(container: &Container, call: &Call) -> u64 {
    let file = container.path("callgrind");
    let argv = call.argv();
    let mut valgrind = Command::new("unshare");
    valgrind.args(["--mount", "sh", "-ec", ALONE, "sh", "valgrind", "--quiet", "--tool=callgrind"]);
    valgrind.arg(format!("--callgrind-out-file={}", file.display())).args(&argv).stdin(Stdio::null());
    let kept = argv.iter().map(|arg| arg.display().to_string()).chain([file.display().to_string()]);
    valgrind.env("KEEP", kept.map(|path| format!(" {path}")).collect::<String>());
    valgrind.env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-AVX,-ERMS,-FSRM,-AVX512VL");
    Output::new("valgrind", &valgrind.output().expect("valgrind")).assert_ok();
    let profile = fs::read_to_string(file).expect("a profile");
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a total");
    total.trim().parse::<u64>().expect("a number") / 1000
}
