//! `lxcrun`, the command: parse, call the library, print.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod log;
mod relay;
mod rootfs;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = match log::Log::open(&cli.global) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("lxcrun: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    log.install();
    // Nothing that our caller forgot to close may reach a container (CVE-2024-21626).
    let result =
        kernel::close_on_exec_from(3).map_err(anyhow::Error::from).and_then(|()| commands::run(&cli));
    match result {
        Ok(code) => code,
        Err(error) => {
            log.error(&format!("{error:#}"));
            ExitCode::from(exit_code(cli.command.as_ref(), &error))
        }
    }
}

/// 127 and 126 for a program that isn't there or can't be executed; else 1, and 255 for exec, as in runc.
fn exit_code(command: Option<&Command>, error: &anyhow::Error) -> u8 {
    let program = error.downcast_ref::<lxcrun::Error>().and_then(lxcrun::Error::exit_code);
    match (program, command) {
        (Some(code), Some(Command::Run(_) | Command::Exec(_))) => code,
        (_, Some(Command::Exec(_))) => 255,
        _ => 1,
    }
}
