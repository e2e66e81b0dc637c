//! The static program: the process of an exec, and the init of a container in a user namespace.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    lxcrun_init::main()
}
