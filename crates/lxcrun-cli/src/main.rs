//! lxcrun-cli
fn main() {}
