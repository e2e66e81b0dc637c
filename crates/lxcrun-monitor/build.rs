//! Has liblxc call the `waitpid` and `seccomp_load` of the `lxc` crate (see its `wait.rs` and `seccomp.rs`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["waitpid", "seccomp_load"] {
        println!("cargo::rustc-link-arg-bins=-Wl,--undefined=lxcrun_{name},--defsym={name}=lxcrun_{name}");
        println!("cargo::rustc-link-arg-bins=-Wl,--export-dynamic-symbol={name}");
    }
}
