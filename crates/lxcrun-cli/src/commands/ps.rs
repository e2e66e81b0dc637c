//! `ps`

use std::process::Command;

use anyhow::{Context, bail};
use lxcrun::Container;

use super::print_line;
use crate::cli::{self, Format};

pub fn ps(container: &Container, args: &cli::Ps) -> anyhow::Result<()> {
    let pids = container.pids()?;
    if args.format == Format::Json {
        return print_line(&serde_json::to_string(&pids)?);
    }
    let options = args.options();
    let options: &[String] = if options.is_empty() { &["-ef".to_owned()] } else { options };
    let output = Command::new("ps")
        .args(options)
        .output()
        .context("cannot run ps (on Debian: apt-get install procps)")?;
    if !output.status.success() {
        bail!("ps {}: {}", options.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let Some(column) = header.split_whitespace().position(|name| name == "PID") else {
        bail!("ps {}: prints no column PID", options.join(" "));
    };
    print_line(header)?;
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|p| p.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            print_line(line)?;
        }
    }
    Ok(())
}
