//! `run`: create, start, wait, delete.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;

use lxcrun::{Bundle, Container, ContainerId, CreateOptions, Exit, Signal};

use super::activation::Notice;
use super::{create_options, friendly, open_bundle};
use crate::cli::{self, Cli};
use crate::relay::{self, Signals};

pub fn run(root: &Path, cli: &Cli, args: &cli::Run, inherited: Vec<OwnedFd>) -> anyhow::Result<ExitCode> {
    let mut options = create_options(cli, &args.bundle, inherited)?;
    options.keep_monitor = !args.detach;
    let (id, bundle): (ContainerId, Bundle) = match &args.id {
        Some(id) if args.command.is_empty() => (id.parse()?, open_bundle(&args.bundle)?),
        Some(id) => anyhow::bail!("{id:?} before --: a container without a bundle is named by --name"),
        None => {
            let (id, bundle) = friendly::bundle(args)?;
            options.lxc_config = friendly::lxc_config(args)?;
            options.copy_rootfs = args.friendly.rootfs.is_none();
            (id, bundle)
        }
    };
    if args.detach {
        return detached(root, &id, &bundle, options);
    }
    // From now on no signal is lost: it waits here until there is somebody to pass it on to.
    let signals = Signals::block()?;
    options.cancelled = Some(Signals::of_end()?);
    let mut container = lxcrun::create(root, &id, &bundle, options)?;
    let ended = foreground(&mut container, &signals);
    let deleted = if !args.keep || ended.is_err() { container.delete() } else { Ok(()) };
    Ok(ExitCode::from(first_failure(ended, deleted)?.code()))
}

/// What `done` is, unless deleting the container afterwards has failed. Of two failures the first is the cause.
pub fn first_failure<T>(done: anyhow::Result<T>, deleted: lxcrun::Result<()>) -> anyhow::Result<T> {
    match (done, deleted) {
        (Err(error), Err(deletion)) => {
            tracing::warn!("{:#}", anyhow::Error::from(deletion));
            Err(error)
        }
        (done, deleted) => {
            let done = done?;
            deleted?;
            Ok(done)
        }
    }
}

fn detached(
    root: &Path,
    id: &ContainerId,
    bundle: &Bundle,
    options: CreateOptions,
) -> anyhow::Result<ExitCode> {
    let container = lxcrun::create(root, id, bundle, options)?;
    let started = super::start(&container);
    let deleted = if started.is_err() { container.delete() } else { Ok(()) };
    first_failure(started, deleted)?;
    Ok(ExitCode::SUCCESS)
}

fn foreground(container: &mut Container, signals: &Signals) -> anyhow::Result<Exit> {
    let notice = Notice::prepare(container, false)?;
    let started = container.start();
    if let Err(error) = started {
        // Its init has ended; the monitor is about to.
        let _ = container.kill(Signal::KILL);
        let _ = container.wait();
        return Err(error.into());
    }
    if let Some(notice) = notice {
        // It ends with the program's word, or with the program.
        std::thread::spawn(move || {
            if let Err(error) = notice.pass_on() {
                tracing::warn!("{error:#}");
            }
        });
    }
    until_end(container, signals)
}

/// Passes on what the program and its user have for each other, until its end.
pub fn until_end(container: &mut Container, signals: &Signals) -> anyhow::Result<Exit> {
    let terminal = container.take_terminal();
    let pass_on = |signal: Signal| drop(container.kill(signal));
    if let Some(end) = container.end() {
        relay::until_end(end, signals, terminal, pass_on)?;
    }
    Ok(container.wait()?)
}
