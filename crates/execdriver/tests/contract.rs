//! The contract's proof: a test with a real liblxc for each row of the exec driver contract, named after it. What a
//! row is about is in docs/migrating-from-docker-lxc.md.

#![allow(clippy::unwrap_used)]

mod common;
/// Rows 21, 24 and the end of 25: what is left of it when the monitor or the daemon is killed.
#[path = "contract/killed.rs"]
mod killed;
/// The other rows from 15 on: its life, and its end.
#[path = "contract/running.rs"]
mod running;
/// Rows 1 to 14: what a program finds when it starts.
#[path = "contract/starting.rs"]
mod starting;

use std::fs;

use common::Bed;
use execdriver::{Command, Driver, LxcDriver, Pipes, ProcessConfig, Resources};
use rustix::process::WaitOptions;

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

/// The parent of a container's init.
fn monitor_of(init: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    status.lines().find_map(|l| l.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
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
            let memory = std::env::var("ROLE_MEMORY").ok().map(|bytes| bytes.parse().unwrap());
            let command = Command::builder(&id, bed.join("rootfs"))
                .args(["sleep", "1000"])
                .resources(Resources { memory, ..Resources::default() })
                .build()
                .unwrap();
            let started = &mut |s: execdriver::Started| println!("\nROLE started {}", s.pid);
            driver.unwrap().run(&command, Pipes::null(), started).unwrap();
        }
        "default-sigpipe" => {
            use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
            // SAFETY: no handler of ours runs.
            unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.unwrap();
            SigSet::all().thread_unblock().unwrap();
            let driver = driver.unwrap();
            // Ends without reading; what is written to it then is for nobody.
            let (alive, end) = std::sync::mpsc::channel();
            let input = execdriver::Input::reader(Endless(alive));
            let command =
                Command::builder(common::unique(), bed.join("rootfs")).args(["true"]).build().unwrap();
            driver.run(&command, Pipes::null().stdin(input), &mut |_| ()).unwrap();
            // The thread that writes ends with its reader.
            end.recv().unwrap_err();
            // A terminal's output.
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let command = Command::builder(common::unique(), bed.join("rootfs")).args(["echo"]).tty(true);
            driver.run(&command.build().unwrap(), Pipes::null().stdout(writer), &mut |_| ()).unwrap();
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
        "exec" => {
            exec_again_and_again(&driver.unwrap(), &id.parse().unwrap());
            // Neither one that was executed nor one that helped is left to wait for.
            assert_eq!(rustix::process::wait(WaitOptions::NOHANG).err(), Some(rustix::io::Errno::CHILD));
        }
        "exec-beside-a-reaper" => {
            // While that one lives, the reaper has somebody to wait for; it waits for that one, too.
            #[allow(clippy::zombie_processes)]
            let mut other = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
            let reaper = std::thread::spawn(|| while rustix::process::wait(WaitOptions::empty()).is_ok() {});
            exec_again_and_again(&driver.unwrap(), &id.parse().unwrap());
            other.kill().unwrap();
            reaper.join().unwrap();
        }
        other => panic!("{other}"),
    }
}

/// A seccomp filter that has this thread and its children find a kernel before Linux 6.13.
fn without_pidfd_info() -> Vec<u8> {
    const PIDFD_GET_INFO: u32 = 0xC040_FF0B;
    let enotty = 0x0005_0000 | nix::libc::ENOTTY.unsigned_abs();
    let ioctl = u32::try_from(nix::libc::SYS_ioctl).unwrap();
    // Code, where to go when equal and when not, operand: linux/filter.h. The second argument's low half is at 24.
    let program: [(u16, u8, u8, u32); 6] = [
        (0x20, 0, 0, 0),
        (0x15, 0, 3, ioctl),
        (0x20, 0, 0, 24),
        (0x15, 0, 1, PIDFD_GET_INFO),
        (0x06, 0, 0, enotty),
        (0x06, 0, 0, 0x7fff_0000),
    ];
    let entry = |(code, yes, no, k): (u16, u8, u8, u32)| {
        let [c0, c1] = code.to_ne_bytes();
        let [k0, k1, k2, k3] = k.to_ne_bytes();
        [c0, c1, yes, no, k0, k1, k2, k3]
    };
    program.into_iter().flat_map(entry).collect()
}

/// Yields for ever. What it holds goes with it.
struct Endless(#[allow(dead_code)] std::sync::mpsc::Sender<()>);

impl std::io::Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        buffer.fill(b'x');
        Ok(buffer.len())
    }
}

/// Says how each of several execs has ended, in a process whose children somebody else may wait for.
fn exec_again_and_again(driver: &LxcDriver, id: &execdriver::ContainerId) {
    if std::env::var_os("ROLE_OLD_KERNEL").is_some() {
        kernel::load_filter(&without_pidfd_info(), 0).unwrap();
    }
    let codes =
        ["exit 0", "exit 7", "kill -TERM $$", "exit 255", "exit 3", "sleep 1; exit 4", "exit 5", "exit 6"]
            .map(|script| {
                let process = ProcessConfig::new(["sh", "-c", script]);
                match driver.exec(id, &process, Pipes::null(), &mut |_| ()) {
                    Ok(status) => status.exit_code.to_string(),
                    Err(error) => error.to_string(),
                }
            });
    let missing = driver.exec(id, &ProcessConfig::new(["nowhere"]), Pipes::null(), &mut |_| ()).unwrap_err();
    println!(
        "\nROLE codes {} {}",
        codes.join(" "),
        missing.exit_code().unwrap_or_else(|| panic!("{missing:?}"))
    );
}
