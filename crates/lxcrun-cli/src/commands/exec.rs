//! `exec`

use std::os::fd::OwnedFd;
use std::process::ExitCode;

use anyhow::{Context, bail};
use lxcrun::oci_spec::runtime::{Capability, Process, User};
use lxcrun::{Container, ExecOptions};

use super::absolute;
use crate::cli;
use crate::relay::{self, Signals};

pub fn exec(container: &Container, args: &cli::Exec, inherited: Vec<OwnedFd>) -> anyhow::Result<ExitCode> {
    let process = process(container, args)?;
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        bail!("container {}: exec: process args cannot be empty", container.id());
    }
    let terminal = process.terminal().unwrap_or(false);
    if terminal && args.detach && cli::given(&args.console_socket).is_none() {
        bail!("container {}: exec: a detached terminal needs --console-socket", container.id());
    }
    if cli::given(&args.console_socket).is_some() && !terminal {
        bail!("container {}: exec: --console-socket is for a terminal, and there is none", container.id());
    }
    let mut options = ExecOptions {
        console_socket: absolute(&args.console_socket)?,
        pidfd_socket: absolute(&args.pidfd_socket)?,
        pid_file: absolute(&args.pid_file)?,
        preserve_fds: inherited,
        cgroups: args.cgroup.clone(),
        ignore_paused: args.ignore_paused,
        plain_newlines: true,
        ..ExecOptions::default()
    };
    if args.detach {
        container.exec(&process, options)?;
        return Ok(ExitCode::SUCCESS);
    }
    let signals = Signals::block()?;
    options.cancelled = Some(Signals::of_end()?);
    let mut started = container.exec(&process, options)?;
    let terminal = started.take_terminal();
    relay::until_end(started.pidfd(), &signals, terminal, |signal| drop(started.kill(signal)))?;
    Ok(ExitCode::from(started.wait()?.code()))
}

/// The process of `--process`, or that of the container with what the options change.
fn process(container: &Container, args: &cli::Exec) -> anyhow::Result<Process> {
    let mut process = match cli::given(&args.process) {
        Some(path) => {
            let text = std::fs::read(path).with_context(|| format!("--process {}", path.display()))?;
            lxcrun::parse_process(&text)
                .map_err(|reason| anyhow::anyhow!("--process {}: {reason}", path.display()))?
        }
        None => {
            let mut process = container.default_process()?;
            process.set_args(Some(args.command().to_owned())).set_terminal(Some(args.tty));
            process
        }
    };
    if cli::given(&args.process).is_some() {
        // conmon says --tty beside a process that says it, too.
        if args.tty {
            process.set_terminal(Some(true));
        }
        return Ok(process);
    }
    if let Some(cwd) = cli::given(&args.cwd) {
        process.set_cwd(cwd.to_owned());
    }
    if !args.env.is_empty() {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(args.env.iter().cloned());
        process.set_env(Some(env));
    }
    if let Some(user) = &args.user {
        process.set_user(parse_user(user, process.user())?);
    }
    if !args.additional_gids.is_empty() {
        let mut user = process.user().clone();
        let mut gids = user.additional_gids().clone().unwrap_or_default();
        gids.extend(&args.additional_gids);
        user.set_additional_gids(Some(gids));
        process.set_user(user);
    }
    if let Some(profile) = &args.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &args.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if args.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    add_capabilities(&mut process, &args.cap)?;
    Ok(process)
}

/// `uid` or `uid:gid`; everything else stays as it was before.
pub fn parse_user(text: &str, before: &User) -> anyhow::Result<User> {
    let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
    let number =
        |what: &str, text: &str| text.parse::<u32>().with_context(|| format!("--user: {what} {text:?}"));
    let mut user = before.clone();
    user.set_uid(number("uid", uid)?).set_gid(gid.map_or(Ok(before.gid()), |gid| number("gid", gid))?);
    Ok(user)
}

fn add_capabilities(process: &mut Process, names: &[String]) -> anyhow::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut sets = process.capabilities().clone().unwrap_or_default();
    for name in names {
        let upper = name.to_uppercase();
        let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        let capability: Capability = serde_json::from_value(serde_json::Value::String(full))
            .map_err(|_| anyhow::anyhow!("--cap: unknown capability {name}"))?;
        let with = |set: &Option<std::collections::HashSet<Capability>>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        let (bounding, effective, permitted) =
            (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
        sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
        // As in runc: a container that hands capabilities on hands this one on, too, if it may.
        if sets.inheritable().as_ref().is_some_and(|set| !set.is_empty()) {
            let ambient = with(sets.ambient());
            sets.set_ambient(ambient);
        }
    }
    process.set_capabilities(Some(sets));
    Ok(())
}
