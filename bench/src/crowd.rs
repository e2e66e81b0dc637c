//! What each operation costs with none, a hundred and five hundred containers alive.

use std::path::Path;

use anyhow::Result;

use crate::Bench;
use crate::peer::{Kind, OURS, Peer, Worker};
use crate::report::{Group, Report};
use crate::stopwatch::Sample;

const ALIVE: [u32; 3] = [0, 100, 500];
const ID: &str = "bench";

/// runc would take two minutes to start and remove so many.
const PEERS: [&str; 2] = [OURS, "crun"];

pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    for peer in bench.peers.iter().filter(|peer| PEERS.contains(&peer.name.as_str())) {
        debug_assert!(peer.kind == Kind::Oci);
        let worker = bench.worker(peer);
        let measured = grow(bench, &worker, report);
        worker.clean_up(ID);
        (0..ALIVE[2]).for_each(|n| worker.clean_up(&name(n)));
        bench.watch.settle()?;
        if let Err(err) = measured {
            report.failed(Group::Crowd, &peer.name, &err);
        }
    }
    Ok(())
}

fn grow(bench: &Bench, worker: &Worker<'_>, report: &mut Report) -> Result<()> {
    let mut alive = 0;
    for wanted in ALIVE {
        while alive < wanted {
            let id = name(alive);
            worker.create_and_start(&worker.bundles.staying_in(&id)?, &id)?;
            alive += 1;
        }
        let peer: &Peer = worker.peer;
        bench.rounds(Group::Crowd, &[peer], report, |peer, report| {
            for (row, sample) in once(worker)? {
                report.add_sample(Group::Crowd, &format!("{row}, {alive} alive"), &peer.name, sample);
            }
            Ok(())
        });
    }
    Ok(())
}

fn name(number: u32) -> String {
    format!("crowd-{number}")
}

fn once(worker: &Worker<'_>) -> Result<Vec<(&'static str, Sample)>> {
    let watch = worker.watch;
    let stays: &Path = &worker.bundles.stays;
    let run = watch.time(|| watch.run(&mut worker.run_command(&worker.bundles.ends, ID)?))?;
    let create = watch.time(|| worker.create_and_start(stays, ID))?;
    let exec = watch.time(|| worker.oci(["exec", ID, "/bin/true"]))?;
    let state = watch.time(|| worker.oci(["state", ID]))?;
    let list = watch.time(|| worker.oci(["list"]))?;
    worker.oci(["kill", ID, "KILL"])?;
    watch.wait_for(&worker.pid_file(ID))?;
    let delete = watch.time(|| worker.oci(["delete", ID]))?;
    let rows = ["run /bin/true", "create+start", "exec /bin/true", "state", "list", "delete"];
    Ok(rows.into_iter().zip([run, create, exec, state, list, delete]).collect())
}
