//! Has liblxc call functions of the `lxc` crate instead of others' (see its `wait.rs`, `seccomp.rs`, `cgroups.rs`,
//! `orphan.rs` and `access.rs`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["waitpid", "seccomp_load", "mkdirat", "write", "recvmsg", "access"] {
        println!("cargo::rustc-link-arg-bins=-Wl,--undefined=lxcrun_{name},--defsym={name}=lxcrun_{name}");
        println!("cargo::rustc-link-arg-bins=-Wl,--export-dynamic-symbol={name}");
    }
}
