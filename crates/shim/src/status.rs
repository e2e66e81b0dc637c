//! How errors reach containerd: with the codes that runc's shim has for them.

use containerd_shim_protos::ttrpc::{self, Code, get_status};

pub type Result<T> = std::result::Result<T, ttrpc::Error>;

pub fn error(code: Code, reason: impl Into<String>) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(get_status(code, reason.into()))
}

/// An error of the library, whole.
pub fn of_library(e: &lxcrun::Error) -> ttrpc::Error {
    use lxcrun::Error;
    let code = match e {
        Error::NotFound { .. } | Error::NotRunning { .. } => Code::NOT_FOUND,
        Error::Exists { .. } => Code::ALREADY_EXISTS,
        Error::Status { .. } | Error::Exec { .. } => Code::FAILED_PRECONDITION,
        Error::Id { .. } => Code::INVALID_ARGUMENT,
        _ => Code::UNKNOWN,
    };
    error(code, chain(e))
}

/// Anything else that went wrong.
pub fn of_anyhow(e: &anyhow::Error) -> ttrpc::Error {
    match e.downcast_ref::<lxcrun::Error>() {
        Some(of_ours) => of_library(of_ours),
        None => error(Code::UNKNOWN, format!("{e:#}")),
    }
}

fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut below = e.source();
    while let Some(source) = below {
        text.push_str(": ");
        text.push_str(&source.to_string());
        below = source.source();
    }
    text
}
