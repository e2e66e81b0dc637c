//! Has liblxc call functions of the `lxc` crate instead of others' (see its `wait.rs`, `seccomp.rs`, `cgroups.rs`,
//! `orphan.rs`, `access.rs`, `idle.rs` and `exec.rs`), and Rust's runtime one of the `kernel` crate (see its `stack.rs`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let of_liblxc =
        ["waitpid", "seccomp_load", "mkdirat", "write", "recvmsg", "recv", "access", "epoll_wait", "execvp"];
    for name in of_liblxc.iter().chain(&["pthread_getattr_np"]) {
        println!("cargo::rustc-link-arg-bins=-Wl,--undefined=lxcrun_{name},--defsym={name}=lxcrun_{name}");
    }
    for name in of_liblxc {
        println!("cargo::rustc-link-arg-bins=-Wl,--export-dynamic-symbol={name}");
    }
    // A copy of the unwinder, which is never used here: one library less to load.
    println!("cargo::rustc-link-arg-bins=-Wl,--push-state,--whole-archive,-l:libgcc_eh.a,--pop-state");
}
