//! Has liblxc call the `waitpid` of the `lxc` crate (see its `wait.rs`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,--undefined=lxcrun_waitpid,--defsym=waitpid=lxcrun_waitpid");
    println!("cargo::rustc-link-arg-bins=-Wl,--export-dynamic-symbol=waitpid");
}
