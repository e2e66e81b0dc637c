//! Where this library's warnings go, for a program that has no subscriber of tracing's of its own.

use std::fmt::{Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Has `write` called with each warning: its level, in logrus' words, and its text. With `debug` also with what is told to
/// somebody who looks for a fault. Only the first call in a program has an effect, and none where it has a subscriber already.
pub fn log_to(debug: bool, write: impl Fn(&str, &str) + Send + Sync + 'static) {
    let most = if debug { Level::DEBUG } else { Level::WARN };
    let _ = tracing::subscriber::set_global_default(Log { most, write });
}

struct Log<W> {
    most: Level,
    write: W,
}

impl<W: Fn(&str, &str) + Send + Sync + 'static> Subscriber for Log<W> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.most
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        (self.write)(level, &message.0);
    }

    // There are no spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event as text: its message, and what fields it has besides.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
