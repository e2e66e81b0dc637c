//! lxcrun-init
fn main() {}
