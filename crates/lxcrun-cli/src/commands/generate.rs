//! What is made from the definition of the command line: completions and manual pages.

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;

use super::print_text;
use crate::cli::{self, Cli};

/// `completion`
pub fn completion(args: &cli::Completion) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lxcrun", &mut script);
    print_text(&String::from_utf8(script)?)
}

/// `man`: a page for lxcrun and one for each command.
pub fn man(args: &cli::Man) -> anyhow::Result<()> {
    let failed = || args.directory.display().to_string();
    fs::create_dir_all(&args.directory).with_context(failed)?;
    let mut lxcrun = Cli::command().disable_help_subcommand(true);
    lxcrun.build();
    page(&lxcrun, &args.directory).with_context(failed)?;
    let mut commands = lxcrun.get_subcommands().filter(|command| !command.is_hide_set());
    commands.try_for_each(|command| page(command, &args.directory).with_context(failed))
}

fn page(command: &clap::Command, directory: &Path) -> std::io::Result<()> {
    // `lxcrun create` has the page lxcrun-create(8).
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let file = directory.join(format!("{name}.8"));
    // No date: the same source makes the same page.
    let man = clap_mangen::Man::new(command.clone())
        .section("8")
        .source(concat!("lxcrun ", env!("CARGO_PKG_VERSION")))
        .manual("lxcrun");
    man.render(&mut fs::File::create(file)?)
}
