//! Single commands, one container at a time: with warm caches, and with cold ones.

use anyhow::{Context, Result};

use crate::Bench;
use crate::peer::{Kind, Peer, Worker};
use crate::report::{Group, Report};
use crate::stopwatch::Sample;

/// Rows that are measured in one go, on one container.
#[derive(Clone, Copy)]
enum Set {
    Run,
    Lifecycle,
    Running,
}

impl Set {
    /// The rows, as the table names them.
    fn rows(self) -> &'static [&'static str] {
        match self {
            Self::Run => &["run /bin/true"],
            Self::Lifecycle => &["create+start+delete", "create", "start", "delete (stopped)"],
            Self::Running => &["exec /bin/true", "state", "kill", "delete"],
        }
    }

    fn measure(self, worker: &Worker<'_>, cold: bool) -> Result<Vec<Sample>> {
        if cold {
            drop_caches()?;
        }
        match self {
            Self::Run => run(worker),
            Self::Lifecycle => lifecycle(worker),
            Self::Running => running(worker),
        }
    }
}

const ID: &str = "bench";

pub fn measure(bench: &Bench, group: Group, report: &mut Report) -> Result<()> {
    let sets: &[Set] = match group {
        Group::Cold => &[Set::Run, Set::Lifecycle],
        _ => &[Set::Run, Set::Lifecycle, Set::Running],
    };
    for set in sets {
        let fit = |peer: &&Peer| peer.kind == Kind::Oci || matches!(set, Set::Run);
        let fit: Vec<&Peer> = bench.peers.iter().filter(fit).collect();
        bench.rounds(group, &fit, report, |peer, report| {
            let worker = bench.worker(peer);
            let samples = set.measure(&worker, group == Group::Cold);
            if samples.is_err() {
                worker.clean_up(ID);
                bench.watch.settle()?; // what it left would be counted as the next one's
            }
            for (row, sample) in set.rows().iter().zip(samples?) {
                report.add_sample(group, row, &peer.name, sample);
            }
            Ok(())
        });
    }
    Ok(())
}

/// Before each run, as youki's published figures have it.
fn drop_caches() -> Result<()> {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the caches")
}

fn run(worker: &Worker<'_>) -> Result<Vec<Sample>> {
    let mut command = worker.run_command(&worker.bundles.ends, ID)?;
    Ok(vec![worker.watch.time_all(|| worker.watch.run(&mut command))?])
}

fn lifecycle(worker: &Worker<'_>) -> Result<Vec<Sample>> {
    let watch = worker.watch;
    let (mut create, mut start, mut delete) = (None, None, None);
    let all = watch.time_all(|| {
        create = Some(watch.time(|| worker.create(&worker.bundles.ends, ID))?);
        start = Some(watch.time(|| worker.oci(["start", ID]))?);
        watch.wait_for(&worker.pid_file(ID))?;
        delete = Some(watch.time(|| worker.oci(["delete", ID]))?);
        Ok(())
    })?;
    Ok([Some(all), create, start, delete].into_iter().flatten().collect())
}

fn running(worker: &Worker<'_>) -> Result<Vec<Sample>> {
    let watch = worker.watch;
    worker.create_and_start(&worker.bundles.stays, ID)?;
    let exec = watch.time(|| worker.oci(["exec", ID, "/bin/true"]))?;
    let state = watch.time(|| worker.oci(["state", ID]))?;
    let kill = watch.time(|| worker.oci(["kill", ID, "KILL"]))?;
    watch.wait_for(&worker.pid_file(ID))?;
    let delete = watch.time(|| worker.oci(["delete", ID]))?;
    watch.settle()?;
    Ok(vec![exec, state, kill, delete])
}
