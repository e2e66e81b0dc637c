//! The contract's proof: a test with a real liblxc for each row of the exec driver contract, named after it. What a
//! row is about is in docs/migrating-from-docker-lxc.md.

#![allow(clippy::unwrap_used)]

mod common;
/// Rows 15 to 26: what becomes of it.
#[path = "contract/running.rs"]
mod running;
/// Rows 1 to 14: what a program finds when it starts.
#[path = "contract/starting.rs"]
mod starting;

use common::Bed;
use execdriver::{Command, Driver, LxcDriver, Pipes, ProcessConfig, Resources};

/// Takes more memory than it may, when it is told to.
fn memory_hog(bed: &Bed) -> execdriver::CommandBuilder {
    hog(bed, "read x; exec tail /dev/zero")
}

/// Lets a child do so, and ends well itself.
fn memory_hog_child(bed: &Bed) -> execdriver::CommandBuilder {
    hog(bed, "tail /dev/zero; exit 0")
}

fn hog(bed: &Bed, script: &str) -> execdriver::CommandBuilder {
    bed.sh(script).resources(Resources { memory: Some(32 << 20), ..Resources::default() })
}

/// This program again, in another part.
fn role_command(role: &str, bed: &std::path::Path, before: &[&str]) -> std::process::Command {
    let this = std::env::current_exe().unwrap();
    let words: Vec<&str> = before.iter().copied().chain([this.to_str().unwrap()]).collect();
    let mut command = std::process::Command::new(words[0]);
    command
        .args(&words[1..])
        .args(["--exact", "plays_a_part", "--nocapture"])
        .env("ROLE", role)
        .env("ROLE_BED", bed);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    command
}

fn role(role: &str, bed: &std::path::Path, before: &[&str]) -> String {
    let output = role_command(role, bed, before).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// No test: what the other processes of the tests above do.
#[test]
fn plays_a_part() {
    let Ok(role) = std::env::var("ROLE") else { return };
    let bed = std::path::PathBuf::from(std::env::var("ROLE_BED").unwrap());
    let driver = LxcDriver::builder().root(bed.join("state")).build();
    let id = std::env::var("ROLE_ID").unwrap_or_default();
    match role.as_str() {
        "build" => match driver {
            Ok(_) => println!("it could"),
            Err(error) => println!("{error}"),
        },
        "daemon" => {
            let command = Command::builder(&id, bed.join("rootfs")).args(["sleep", "1000"]).build().unwrap();
            let started = &mut |s: execdriver::Started| println!("\nROLE started {}", s.pid);
            driver.unwrap().run(&command, Pipes::null(), started).unwrap();
        }
        "later" => {
            let (driver, id) = (driver.unwrap(), id.parse().unwrap());
            assert!(driver.info(&id).unwrap().is_running());
            assert!(driver.stats(&id).unwrap().container.pids.current > 0);
            assert!(!driver.pids(&id).unwrap().is_empty());
            driver.pause(&id).unwrap();
            driver.unpause(&id).unwrap();
            let process = ProcessConfig::new(["sh", "-c", "exit 3"]);
            let status = driver.exec(&id, &process, Pipes::null(), &mut |_| ()).unwrap();
            println!("\nROLE exec {}", status.exit_code);
            driver.terminate(&id).unwrap();
        }
        other => panic!("{other}"),
    }
}
