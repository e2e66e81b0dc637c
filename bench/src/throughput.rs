//! Containers per second, eight at a time.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::Bench;
use crate::peer::{Kind, Peer};
use crate::report::{Group, Metric, Report};

const IN_FLIGHT: u32 = 8;
const CONTAINERS: u32 = 64;

pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let fit: Vec<&Peer> = bench.peers.iter().filter(|peer| peer.kind == Kind::Oci).collect();
    let row = format!("run /bin/true, {IN_FLIGHT} at a time");
    bench.rounds(Group::Throughput, &fit, report, |peer, report| {
        let worker = bench.worker(peer);
        let commands = (0..CONTAINERS).map(|n| {
            let id = format!("bench-{n}");
            worker.run_command(&worker.bundles.ending_in(&id)?, &id)
        });
        let commands = commands.collect::<Result<Vec<Command>>>()?;
        let start = Instant::now();
        all(commands)?;
        let rate = f64::from(CONTAINERS) / start.elapsed().as_secs_f64();
        report.add(Group::Throughput, &row, Metric::Rate, &peer.name, rate);
        bench.watch.settle()
    });
    Ok(())
}

/// Runs them all, so many at a time.
fn all(commands: Vec<Command>) -> Result<()> {
    let failed = AtomicU32::new(0);
    let commands = std::sync::Mutex::new(commands);
    let next = || commands.lock().ok()?.pop();
    std::thread::scope(|scope| {
        for _ in 0..IN_FLIGHT {
            scope.spawn(|| {
                while let Some(mut command) = next() {
                    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                    if !command.status().is_ok_and(|status| status.success()) {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    ensure!(failed == 0, "{failed} of {CONTAINERS} containers failed");
    Ok(())
}
