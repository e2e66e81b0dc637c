//! The command line, as containerd writes it: Go's flags, one dash or two.

use std::ffi::OsString;

/// What the process is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// Leave a process behind that serves the API.
    Start,
    /// Remove what is left of a container.
    Delete,
    /// Serve the API: what `start` asks for, and nobody else.
    #[default]
    Serve,
    /// Tell what the runtime can do.
    Info,
    /// Print the version.
    Version,
}

/// The command line, parsed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub action: Action,
    /// containerd's namespace of the container.
    pub namespace: String,
    pub id: String,
    /// containerd's own socket.
    pub address: String,
    pub bundle: String,
    pub debug: bool,
}

impl Flags {
    pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut flags = Self::default();
        let mut arguments =
            arguments.map(|a| a.into_string().map_err(|a| format!("{} is no UTF-8", a.display())));
        while let Some(argument) = arguments.next().transpose()? {
            let Some(flag) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
                flags.action = match &*argument {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    _ => return Err(format!("unknown action {argument:?}")),
                };
                continue;
            };
            let (name, value) = flag.split_once('=').map_or((flag, None), |(n, v)| (n, Some(v.to_owned())));
            match name {
                "v" | "version" => flags.action = Action::Version,
                "info" => flags.action = Action::Info,
                "debug" => flags.debug = value.is_none_or(|value| value == "true"),
                _ => {
                    let value = match value {
                        Some(value) => value,
                        None => arguments.next().transpose()?.ok_or(format!("-{name} needs a value"))?,
                    };
                    match name {
                        "namespace" => flags.namespace = value,
                        "id" => flags.id = value,
                        "address" => flags.address = value,
                        "bundle" => flags.bundle = value,
                        // The socket is inherited, and events go out by ttrpc.
                        "socket" | "publish-binary" => {}
                        _ => return Err(format!("unknown flag -{name}")),
                    }
                }
            }
        }
        if !matches!(flags.action, Action::Info | Action::Version)
            && (flags.namespace.is_empty() || flags.id.is_empty())
        {
            return Err("containerd starts this program: -namespace and -id are missing".into());
        }
        Ok(flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, String> {
        Flags::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn flags_are_those_of_containerd() {
        let flags =
            parse("-namespace k8s.io -address /c.sock -publish-binary /c -id a -bundle=/b --debug start")
                .unwrap();
        let wanted = Flags {
            action: Action::Start,
            namespace: "k8s.io".into(),
            id: "a".into(),
            address: "/c.sock".into(),
            bundle: "/b".into(),
            debug: true,
        };
        assert_eq!(flags, wanted);
        assert_eq!(parse("-v").unwrap().action, Action::Version);
        assert_eq!(parse("-info").unwrap().action, Action::Info);
    }

    #[test]
    fn what_is_missing_or_unknown_is_an_error() {
        for line in ["", "start", "-id a start", "-namespace", "-namespace n -id a stop", "-nonsense x"] {
            assert!(parse(line).is_err(), "{line:?}");
        }
    }
}
