//! `events`

use std::os::fd::AsFd;
use std::time::Instant;

use anyhow::Context;
use lxcrun::{Container, ResourceStats};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::Serialize;

use super::print_line;
use crate::cli;

/// A line of `events`: its fields are in runc's order.
#[derive(Serialize)]
struct Event<'a> {
    r#type: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<ResourceStats>,
}

pub fn events(container: &Container, args: &cli::Events) -> anyhow::Result<()> {
    let id = container.id().to_string();
    let print = |kind: &str, data: Option<ResourceStats>| {
        print_line(&serde_json::to_string(&Event { r#type: kind, id: &id, data })?)
    };
    let interval =
        humantime::parse_duration(&args.interval).with_context(|| format!("--interval {}", args.interval))?;
    anyhow::ensure!(!interval.is_zero(), "--interval: the duration interval must be greater than 0");
    let Some(end) = container.init_pidfd()? else {
        anyhow::bail!("container {}: container is not running", container.id());
    };
    let stats = || -> anyhow::Result<()> { print("stats", Some(container.stats()?)) };
    if args.stats {
        return stats();
    }
    let oom = container.watch_oom()?;
    // None is beyond all time: then there are no statistics.
    let mut told = false;
    let mut next = Instant::now().checked_add(interval);
    loop {
        let left = next.map(|next| Timespec::try_from(next.saturating_duration_since(Instant::now())));
        let left = left.transpose()?;
        let mut fds =
            [PollFd::new(&end, PollFlags::IN), PollFd::from_borrowed_fd(oom.as_fd(), PollFlags::IN)];
        let ready = match poll(&mut fds, left.as_ref()) {
            Err(Errno::INTR) => continue,
            ready => ready?,
        };
        let ended = !fds[0].revents().is_empty();
        let news = !fds[1].revents().is_empty() && oom.next()?;
        // Some kills are only known for sure when the container has ended.
        if news || (ended && !told && oom.happened()) {
            told = true;
            print("oom", None)?;
        }
        if ended {
            return Ok(());
        }
        if ready == 0 {
            stats()?;
            next = next.and_then(|next| next.checked_add(interval));
        }
    }
}
