//! The black-box suite of an OCI runtime: a module per capability, each test a sentence about the runtime.
//!
//! `cargo test --test oci` runs it on the lxcrun built beside it, `RUNTIME=runc cargo test --test oci` on a peer.

use std::process::ExitCode;

mod activation;
mod apparmor;
mod bad_input;
mod cgroups;
mod checkpoint;
mod cli;
mod commands;
mod configure;
mod crash;
mod crun;
mod delegation;
mod devices;
mod doctor;
mod engines;
mod exec;
mod exit_codes;
mod force;
mod hooks;
mod host;
mod instructions;
mod labels;
mod lifecycle;
mod lxc_config;
mod lxc_tools;
mod lxcfs;
mod moments;
mod mounts;
mod namespaces;
mod netdevices;
mod process;
mod propagation;
mod races;
mod raw;
mod rootless;
mod scheduling;
mod schema;
mod seccomp;
mod signals;
mod symlinks;
mod sysctl;
mod system_containers;
mod systemd;
mod terminal;
mod userns;

/// Every test of the suite.
fn all() -> Vec<lxcrun_test::Test> {
    let modules = [
        lifecycle::tests,
        process::tests,
        exit_codes::tests,
        scheduling::tests,
        terminal::tests,
        mounts::tests,
        propagation::tests,
        system_containers::tests,
        symlinks::tests,
        namespaces::tests,
        userns::tests,
        netdevices::tests,
        activation::tests,
        devices::tests,
        cgroups::tests,
        labels::tests,
        apparmor::tests,
        rootless::tests,
        delegation::tests,
        systemd::tests,
        seccomp::tests,
        sysctl::tests,
        hooks::tests,
        signals::tests,
        force::tests,
        exec::tests,
        checkpoint::tests,
        cli::tests,
        commands::tests,
        configure::tests,
        instructions::tests,
        lxc_config::tests,
        raw::tests,
        lxc_tools::tests,
        lxcfs::tests,
        doctor::tests,
        bad_input::tests,
        schema::tests,
        crash::tests,
        moments::tests,
        races::tests,
        host::tests,
        engines::tests,
    ];
    modules.into_iter().flat_map(|tests| tests()).collect()
}

fn main() -> ExitCode {
    lxcrun_test::main(lxcrun_test::differing(all(), "crun", crun::DIFFERENCES))
}
