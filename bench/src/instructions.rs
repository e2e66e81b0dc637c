//! How many instructions lxcrun executes, as callgrind counts them: what repeats where times don't.
//!
//! They are not the same on every machine, because the C library chooses its string functions by the processor. So they
//! are compared between runs on one, and fail nothing.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::Bench;
use crate::peer::{OURS, Peer, Worker};
use crate::report::{Group, Metric, Report};

const ID: &str = "bench";

pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    for peer in bench.peers.iter().filter(|peer| peer.name == OURS) {
        let worker = bench.worker(peer);
        if let Err(err) = count_all(peer, &worker, report) {
            report.failed(Group::Instructions, &peer.name, &err);
        }
        worker.clean_up(ID);
        bench.watch.settle()?;
    }
    Ok(())
}

fn count_all(peer: &Peer, worker: &Worker<'_>, report: &mut Report) -> Result<()> {
    let mut add =
        |row, figure| report.add(Group::Instructions, row, Metric::Instructions, &peer.name, figure);
    let mut translation = worker.command(["lxc-config", "--bundle"]);
    translation.arg(&worker.bundles.ends);
    add("checking and translating a bundle (lxc-config)", count(worker, &translation)?);
    worker.create_and_start(&worker.bundles.stays, ID)?;
    add("state", count(worker, &worker.command(["state", ID]))?);
    Ok(())
}

/// In thousands.
fn count(worker: &Worker<'_>, command: &Command) -> Result<f64> {
    let file = worker.bundles.dir.join("callgrind");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--tool=callgrind"]).arg(format!("--callgrind-out-file={}", file.display()));
    valgrind.arg(command.get_program()).args(command.get_args());
    let output = valgrind.stdin(Stdio::null()).output().context("cannot run valgrind")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{valgrind:?} ended with {}: {}", output.status, words.trim());
    let profile = std::fs::read_to_string(&file)?;
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.context("callgrind tells no total")?.trim().parse::<f64>()? / 1e3)
}
