//! `list`

use std::path::Path;

use anyhow::Context;
use lxcrun::{Container, OciState};

use super::{print_line, print_text};
use crate::cli::{self, Format};

/// `given` is whether the root was named: only the usual one need not be there yet.
pub fn list(root: &Path, given: bool, args: &cli::List) -> anyhow::Result<()> {
    if given {
        std::fs::metadata(root).with_context(|| format!("--root {}", root.display()))?;
    }
    let mut states = Vec::new();
    let mut failures = Vec::new();
    // One at a time: each holds a descriptor, and there may be more than we may have.
    for container in Container::list(root).with_context(|| format!("--root {}", root.display()))? {
        match container {
            Ok(container) if args.quiet => print_line(container.id().as_str())?,
            Ok(container) => states.push(container.oci_state()),
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    if !args.quiet {
        print(states, args.format)?;
    }
    // The others are worth knowing all the same.
    anyhow::ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

fn print(states: Vec<OciState>, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return print_line(&serde_json::to_string(&states)?);
    }
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows = states.into_iter().map(|s| {
        let bundle = s.bundle.display().to_string();
        [s.id.to_string(), s.pid.to_string(), s.status.to_string(), bundle, s.created, s.owner]
    });
    print_text(&table(&[vec![header], rows.collect()].concat()))
}

/// Columns as runc sets them: three spaces between, and at least twelve characters wide.
fn table(rows: &[[String; 6]]) -> String {
    let mut widths = [12; 5];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count() + 3);
        }
    }
    let mut text = String::new();
    for row in rows {
        for (width, cell) in widths.iter().zip(row) {
            text += &format!("{cell:<width$}");
        }
        text += &row[widths.len()];
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_is_runcs() {
        let row = |cells: [&str; 6]| cells.map(str::to_owned);
        let rows = [
            row(["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]),
            row(["web", "7", "running", "/srv/bundles/web", "2026", "root"]),
        ];
        assert_eq!(
            super::table(&rows),
            "ID          PID         STATUS      BUNDLE             CREATED     OWNER\n\
             web         7           running     /srv/bundles/web   2026        root\n"
        );
    }
}
