//! `doctor`: what this host can do, for people and for scripts.

use std::path::Path;
use std::process::ExitCode;

use lxcrun::doctor::{Check, examine};
use serde_json::json;

use super::{print_json, print_text};
use crate::cli;

/// The exit code is 0 when containers can run, 1 when something that they need is missing.
pub fn doctor(root: Option<&Path>, args: &cli::Doctor) -> anyhow::Result<ExitCode> {
    let checks = examine(root);
    let fatal = checks.iter().any(Check::is_fatal);
    if args.json {
        print_json(&json!({ "ok": !fatal, "checks": checks }))?;
    } else {
        print_text(&report(&checks))?;
    }
    Ok(if fatal { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn report(checks: &[Check]) -> String {
    let width = checks.iter().map(|c| c.name.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for check in checks {
        let need = if check.needed { "needed" } else { "optional" };
        text += &format!("{:8} {:width$}  {}\n", check.health, check.name, check.found);
        if let Some(mend) = &check.mend {
            let indent = " ".repeat(11 + width);
            text += &format!("{indent}{need}, for: {}\n{indent}mend: {mend}\n", check.meaning);
        }
    }
    text
}
