//! lxcrun-test
