//! Where errors and warnings go: standard error, and the file that engines read them from.

use std::fmt::{Display, Write as _};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

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
        // Fails only when there is one already, and there is none: this is the start of main.
        let _ = tracing::subscriber::set_global_default(self.clone());
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

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= if self.debug { Level::DEBUG } else { Level::WARN }
    }

    fn event(&self, event: &Event<'_>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                let _ = match field.name() {
                    "message" => write!(self.0, "{value:?}"),
                    name => write!(self.0, " {name}={value:?}"),
                };
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        self.write(level, &message.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
