//! What a command of the runtime did, and assertions that show all of it when they fail.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// A finished command.
pub struct Output {
    /// The command line, as one could type it.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it and the container wrote to stdout until then.
    pub stdout: String,
    /// What it and the container wrote to stderr until then.
    pub stderr: String,
    /// The logs in the container's state directory, if there are any.
    pub log: String,
}

impl Output {
    /// What some program did, as `std` caught it.
    pub fn new(command: &str, output: &std::process::Output) -> Output {
        Output {
            command: command.to_owned(),
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            log: String::new(),
        }
    }

    /// The exit code, or 128+n for a signal.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// The command exited with `code`.
    #[track_caller]
    pub fn assert_exit(&self, code: i32) -> &Self {
        assert!(self.code() == code, "expected exit code {code}{self}");
        self
    }

    /// The command exited with 0.
    #[track_caller]
    pub fn assert_ok(&self) -> &Self {
        self.assert_exit(0)
    }

    /// The command failed by itself: not by a signal, a panic, or the deadline.
    #[track_caller]
    pub fn assert_fails(&self) -> &Self {
        assert!(self.status.code().is_some_and(|code| code != 0), "expected a failure{self}");
        assert!(
            !self.stderr.contains("panicked at") && !self.stderr.contains("goroutine"),
            "it panicked{self}"
        );
        self
    }

    /// Stdout is exactly `text`.
    #[track_caller]
    pub fn assert_stdout(&self, text: &str) -> &Self {
        assert!(self.stdout == text, "expected stdout {text:?}{self}");
        self
    }

    /// Stdout contains `text`.
    #[track_caller]
    pub fn assert_stdout_contains(&self, text: &str) -> &Self {
        assert!(self.stdout.contains(text), "expected {text:?} in stdout{self}");
        self
    }

    /// Stderr contains `text`, in whatever case.
    #[track_caller]
    pub fn assert_stderr_contains(&self, text: &str) -> &Self {
        let found = self.stderr.to_lowercase().contains(&text.to_lowercase());
        assert!(found, "expected {text:?} in stderr{self}");
        self
    }

    /// The lines of stdout.
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }
}

/// All there is to know about the command, after the sentence that says what was expected.
impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Output { command, status, stdout, stderr, log } = self;
        write!(f, "\n--- {command}\n--- {status}")?;
        for (name, text) in [("stdout", stdout), ("stderr", stderr), ("log", log)] {
            if !text.is_empty() {
                write!(f, "\n--- {name}\n{}", clipped(text))?;
            }
        }
        writeln!(f)
    }
}

/// The end of a long text: the reason is mostly there.
fn clipped(text: &str) -> &str {
    const MOST: usize = 8000;
    let start = text.len().saturating_sub(MOST);
    let start = (start..text.len()).find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    text[start..].trim_end()
}
