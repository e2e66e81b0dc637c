//! The example programs do what they say.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::Bed;

/// Cargo builds examples before tests, beside them.
fn example(name: &str) -> Command {
    let this = std::env::current_exe().unwrap();
    let path: PathBuf = this.parent().unwrap().with_file_name("examples").join(name);
    assert!(path.exists(), "{} is not built: run the whole of the crate's tests", path.display());
    Command::new(path)
}

#[test]
fn the_daemon_streams_counts_and_terminates() {
    let bed = Bed::new();
    let mut daemon = example("daemon");
    daemon.arg(bed.rootfs()).args(["sh", "-c", "echo streamed; exec sleep 1000"]);
    let mut daemon =
        daemon.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(daemon.stderr.take().unwrap());
    common::until_line(&mut daemon.stdout.take().unwrap(), "streamed");
    let mut line = String::new();
    while !line.contains(" KiB of 262144 KiB, ") {
        line = common::line_of(&mut said);
        assert!(!line.is_empty(), "it has ended");
    }
    let pid = nix::unistd::Pid::from_raw(daemon.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    while !line.contains("exit code 137, out of memory: false") {
        line = common::line_of(&mut said);
        assert!(!line.is_empty(), "it has ended");
    }
    assert_eq!(daemon.wait().unwrap().code(), Some(137));
}

#[test]
fn the_driver_works_under_tokio() {
    let bed = Bed::new();
    let output = example("under_tokio").arg(bed.rootfs()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for number in 0..4 {
        assert!(said.contains(&format!("said \"I am {number}\", exit code {number}")), "{said}");
    }
}

#[test]
fn the_readme_says_how_to_depend_on_it_and_names_every_example() {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(here.join("../../README.md")).unwrap();
    let line = format!("execdriver = {{ git = \"{}\" }}", env!("CARGO_PKG_REPOSITORY"));
    assert!(readme.contains(&line), "{line}");
    for example in std::fs::read_dir(here.join("examples")).unwrap() {
        let name = example.unwrap().file_name().into_string().unwrap();
        assert!(readme.contains(&format!("(crates/execdriver/examples/{name})")), "{name}");
    }
}
