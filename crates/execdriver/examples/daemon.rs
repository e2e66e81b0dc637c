//! A daemon of one container: `daemon ROOTFS COMMAND [ARG]...`
//!
//! Streams its output, prints what it uses once a second, terminates it at Ctrl-C, and says how it ended.

use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use execdriver::{Command, Driver, LxcDriver, Pipes, Resources, Started};
use signal_hook::consts::{SIGINT, SIGTERM};

fn main() -> anyhow::Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let rootfs = args.next().context("usage: daemon ROOTFS COMMAND [ARG]...")?;
    let driver = LxcDriver::new()?;
    eprintln!("{}: {} MiB of memory", driver.name(), driver.machine_memory() >> 20);

    let command = Command::builder(format!("daemon-{}", std::process::id()), std::fs::canonicalize(rootfs)?)
        .args(args)
        .resources(Resources { memory: Some(256 << 20), pids_limit: Some(100), ..Resources::default() })
        .build()?;
    let (id, driver) = (&command.id, &driver);

    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let handle = signals.handle();
    let (end, ended) = mpsc::channel::<()>();
    let (start, started) = mpsc::channel::<Started>();
    let status = thread::scope(|scope| {
        // Ctrl-C: everything in the container ends, and with it the call below.
        scope.spawn(|| {
            for _ in &mut signals {
                if let Err(e) = driver.terminate(id) {
                    eprintln!("{}", e.report());
                }
            }
        });
        // Once a second, for as long as it runs.
        scope.spawn(move || {
            let Ok(Started { pid, .. }) = started.recv() else { return };
            eprintln!("{id}: process {pid}");
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(Duration::from_secs(1)) {
                let Ok(stats) = driver.stats(id) else { return };
                let (memory, cpu) = (stats.container.memory.usage.usage, stats.container.cpu.usage.total);
                eprintln!(
                    "{id}: {} KiB of {} KiB, {} ms",
                    memory >> 10,
                    stats.memory_limit >> 10,
                    cpu / 1_000_000
                );
            }
        });
        let status = driver.run(&command, Pipes::inherit(), &mut |s| drop(start.send(s)));
        drop((start, end));
        handle.close();
        status
    });
    match status {
        Ok(status) => {
            eprintln!("{id}: exit code {}, out of memory: {}", status.exit_code, status.oom_killed);
            Ok(ExitCode::from(status.exit_code))
        }
        Err(error) => {
            eprintln!("{}", error.report());
            Ok(ExitCode::from(error.exit_code().unwrap_or(125)))
        }
    }
}
