//! `lxcrun`, the command: parse, call the library, print.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod log;
mod relay;
mod rootfs;

use std::io::Write;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use lxcrun::ContainerId;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    kernel::keep_children();
    let cli = match Cli::of_caller() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    // Before the log or anything else of ours is open under one of their numbers.
    let inherited = commands::take_inherited(&cli);
    let log = match log::Log::open(&cli.global) {
        Ok(log) => log,
        Err(error) => {
            log::complain(format_args!("{}: {error:#}", cli::program()));
            return ExitCode::FAILURE;
        }
    };
    log.install();
    // Nothing that our caller forgot to close may reach a container (CVE-2024-21626).
    let result = inherited.and_then(|inherited| {
        kernel::close_on_exec_from(3)?;
        commands::run(&cli, inherited)
    });
    match result {
        Ok(code) => code,
        Err(error) => {
            log.error(&failed(cli.command.as_ref(), &error));
            ExitCode::from(exit_code(cli.command.as_ref(), &error))
        }
    }
}

/// Prints help, or what is wrong with the command line. The exit codes are runc's: 3 for an unknown command.
fn usage(error: &clap::Error) -> ExitCode {
    let (text, code) = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => (error.render(), ExitCode::SUCCESS),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if std::env::args_os().len() == 1 => {
            (error.render(), ExitCode::SUCCESS)
        }
        kind => {
            // A reader that is gone has read enough.
            let _ = error.print();
            if let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) {
                log::complain(format_args!("No help topic for '{name}'"));
            }
            return ExitCode::from(if kind == ErrorKind::InvalidSubcommand { 3 } else { 1 });
        }
    };
    let _ = write!(std::io::stdout(), "{text}");
    code
}

/// What failed, in the words that runc's callers look for.
fn failed(command: Option<&Command>, error: &anyhow::Error) -> String {
    let program = cli::program();
    let container = command.and_then(|command| unnamed(command, error)).unwrap_or_default();
    match command {
        Some(Command::Create(_)) => format!("{program} create failed: {container}{error:#}"),
        Some(Command::Run(_)) => match error.downcast_ref().and_then(lxcrun::Error::of_execution) {
            Some(reason) => reason.into(),
            None => format!("{program} run failed: {container}{error:#}"),
        },
        Some(Command::Exec(_)) => format!("{program} exec failed: {container}{error:#}"),
        _ => format!("{program}: {container}{error:#}"),
    }
}

/// The container that a command is about, before an error that does not name it: one of an option, a file or a bundle.
fn unnamed(command: &Command, error: &anyhow::Error) -> Option<String> {
    let named = error.downcast_ref().and_then(lxcrun::Error::container).is_some();
    let id: ContainerId = command.id()?.parse().ok()?;
    (!named && !error.to_string().starts_with("container ")).then(|| format!("container {id}: "))
}

/// 127 and 126 for a program of `run` that isn't there or can't be executed; else 1, and 255 for exec, as in runc.
fn exit_code(command: Option<&Command>, error: &anyhow::Error) -> u8 {
    let program = error.downcast_ref::<lxcrun::Error>().and_then(lxcrun::Error::exit_code);
    match (program, command) {
        (Some(code), Some(Command::Run(_))) => code,
        (_, Some(Command::Exec(_))) => 255,
        _ => 1,
    }
}
