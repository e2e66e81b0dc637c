//! Where errors and warnings go: standard error, and the file that engines read them from.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;

use crate::cli::{self, Global, LogFormat};

/// The log of this process.
#[derive(Clone)]
pub struct Log {
    file: Option<Arc<File>>,
    format: LogFormat,
    debug: bool,
}

/// Prints a line on the standard error. That nobody can read it changes no exit code.
pub fn complain(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl Log {
    /// Opens `--log`.
    pub fn open(global: &Global) -> anyhow::Result<Self> {
        let open = |path: &std::path::Path| {
            let mut file = OpenOptions::new();
            // A fifo that nobody reads is an error, and not a wait without end.
            let file = file
                .append(true)
                .create(true)
                .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
                .open(path);
            file.with_context(|| format!("cannot open the log {}", path.display())).map(Arc::new)
        };
        let file = cli::given(&global.log).map(open).transpose()?;
        Ok(Self { file, format: global.log_format, debug: global.debug })
    }

    /// Makes the library's warnings go here.
    pub fn install(&self) {
        let log = self.clone();
        lxcrun::log_to(self.debug, move |level, message| log.write(level, message));
    }

    /// The reason why the command failed: for the person and for the engine.
    pub fn error(&self, message: &str) {
        // Whoever asks for JSON reads nothing else, wherever it goes.
        let for_program = self.file.is_none() && self.format == LogFormat::Json;
        if self.file.is_some() || for_program {
            self.write("error", message);
        }
        if !for_program {
            complain(message);
        }
    }

    fn write(&self, level: &str, message: &str) {
        let time = humantime::format_rfc3339_seconds(SystemTime::now());
        let line = match self.format {
            LogFormat::Json => {
                serde_json::json!({ "level": level, "msg": message, "time": time.to_string() }).to_string()
            }
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={message:?}"),
        };
        // A log that can't be written to is no reason to fail.
        let _ = match &self.file {
            Some(file) => writeln!(file.as_ref(), "{line}"),
            None => writeln!(std::io::stderr(), "{line}"),
        };
    }
}
