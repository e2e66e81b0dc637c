//! lxcrun
