//! Warnings go to containerd's log: through the pipe `log` in the bundle, in logrus' words.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

/// Opens the pipe in the working directory. Without one nobody wants to know.
pub fn install(debug: bool) {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let Ok(pipe) = OpenOptions::new().write(true).custom_flags(flags).open("log") else { return };
    lxcrun::log_to(debug, move |level, message| {
        // One that can't be written to is no reason to fail.
        let _ = (&pipe).write_all(format!("level={level} msg={message:?}\n").as_bytes());
    });
}
