//! Has Rust's runtime call a function of the `kernel` crate instead of another's (see its `stack.rs`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let name = "pthread_getattr_np";
    println!("cargo::rustc-link-arg-bins=-Wl,--undefined=lxcrun_{name},--defsym={name}=lxcrun_{name}");
}
