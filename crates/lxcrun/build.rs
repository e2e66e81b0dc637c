//! Builds the two helper programs that the library carries inside itself: the static init and the monitor.
//!
//! Cargo has no stable way to build one member of a workspace statically and another not, so this is a nested
//! build with a target directory and flags of its own.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, error::Error, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let crates = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("..");
    for name in ["kernel", "lxc", "lxcrun-init", "lxcrun-monitor", "protocol"] {
        println!("cargo::rerun-if-changed={}", crates.join(name).display());
    }
    println!("cargo::rerun-if-changed={}", crates.join("../Cargo.lock").display());
    let out = PathBuf::from(env::var("OUT_DIR")?);
    build(&crates, &out, "lxcrun-init", "-Ctarget-feature=+crt-static\x1f-Crelocation-model=static")?;
    build(&crates, &out, "lxcrun-monitor", "-Crelocation-model=static")?;
    for (name, variable) in [("lxcrun-init", "LXCRUN_INIT_HASH"), ("lxcrun-monitor", "LXCRUN_MONITOR_HASH")] {
        let mut hasher = DefaultHasher::new();
        fs::read(out.join(name))?.hash(&mut hasher);
        println!("cargo::rustc-env={variable}={:016x}", hasher.finish());
    }
    Ok(())
}

/// Builds one program and puts it where `embedded.rs` includes it from.
fn build(crates: &Path, out: &Path, name: &str, flags: &str) -> Result<(), Box<dyn Error>> {
    let target = env::var("TARGET")?;
    let directory = out.join(format!("{name}-target"));
    let mut command = Command::new(env::var("CARGO")?);
    if env::var("PROFILE")? == "debug" {
        // Nobody measures these, and everybody waits for them.
        command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    }
    let status = command
        .args(["build", "--release", "--target", &target, "--package", name, "--target-dir"])
        .arg(&directory)
        .arg("--manifest-path")
        .arg(crates.join(name).join("Cargo.toml"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("RUSTFLAGS")
        .status()?;
    if !status.success() {
        return Err(format!("building {name} failed: {status}").into());
    }
    fs::copy(directory.join(&target).join("release").join(name), out.join(name))?;
    Ok(())
}
