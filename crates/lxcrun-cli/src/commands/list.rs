//! `list`

use std::path::Path;

use anyhow::Context;
use lxcrun::Container;

use super::{print_json, print_line};
use crate::cli::{self, Format};

pub fn list(root: &Path, args: &cli::List) -> anyhow::Result<()> {
    let containers = Container::list(root).with_context(|| format!("--root {}", root.display()))?;
    if args.quiet {
        return containers.iter().try_for_each(|c| print_line(c.id().as_str()));
    }
    let states: Vec<_> = containers.iter().map(Container::oci_state).collect();
    if args.format == Format::Json {
        return print_json(&states);
    }
    let width = |header: &str, cell: &dyn Fn(&lxcrun::OciState) -> String| {
        states.iter().map(|s| cell(s).len()).chain([header.len()]).max().unwrap_or(0)
    };
    let (ids, bundles) =
        (width("ID", &|s| s.id.to_string()), width("BUNDLE", &|s| s.bundle.display().to_string()));
    print_line(&format!(
        "{:ids$}   {:7}   {:8}   {:bundles$}   {:30}   OWNER",
        "ID", "PID", "STATUS", "BUNDLE", "CREATED"
    ))?;
    for s in &states {
        let (id, status, bundle) = (s.id.as_str(), s.status.to_string(), s.bundle.display().to_string());
        print_line(&format!(
            "{id:ids$}   {:<7}   {status:8}   {bundle:bundles$}   {:30}   {}",
            s.pid, s.created, s.owner
        ))?;
    }
    Ok(())
}
