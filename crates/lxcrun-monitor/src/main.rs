//! lxcrun-monitor
fn main() {}
