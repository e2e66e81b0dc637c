//! Kernel parameters of the container's own namespaces.

use std::fs;

use lxcrun_test::{Bundle, tests};
use serde_json::json;

tests![
    a_parameter_of_the_network_is_set,
    a_parameter_of_ipc_is_set,
    the_hosts_parameter_stays_as_it_is,
    a_parameter_of_the_hosts_namespace_is_refused,
    a_parameter_of_no_namespace_is_refused,
    the_host_name_as_a_parameter_is_refused,
    an_unknown_parameter_is_refused,
    a_value_that_the_kernel_refuses_is_refused,
];

fn with(name: &str, value: &str) -> Bundle {
    Bundle::busybox().set("/linux/sysctl", json!({ name: value }))
}

fn a_parameter_of_the_network_is_set() {
    let run = with("net.ipv4.ip_forward", "1").args(["cat", "/proc/sys/net/ipv4/ip_forward"]).run();
    run.assert_ok().assert_stdout("1\n");
    let run =
        with("net.ipv4.conf.lo.forwarding", "1").args(["cat", "/proc/sys/net/ipv4/conf/lo/forwarding"]).run();
    run.assert_ok().assert_stdout("1\n");
}

fn a_parameter_of_ipc_is_set() {
    let run = with("kernel.msgmax", "4321").args(["cat", "/proc/sys/kernel/msgmax"]).run();
    run.assert_ok().assert_stdout("4321\n");
    let run = with("fs.mqueue.msg_max", "7").args(["cat", "/proc/sys/fs/mqueue/msg_max"]).run();
    run.assert_ok().assert_stdout("7\n");
}

fn the_hosts_parameter_stays_as_it_is() {
    let host = || fs::read_to_string("/proc/sys/kernel/msgmax").expect("a parameter");
    let before = host();
    with("kernel.msgmax", "4321").run().assert_ok();
    assert_eq!(host(), before);
}

fn a_parameter_of_the_hosts_namespace_is_refused() {
    let forward = || fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("a parameter");
    let before = forward();
    with("net.ipv4.ip_forward", "1").without_namespace("network").refused(&["net.ipv4.ip_forward"]);
    with("kernel.msgmax", "4321").without_namespace("ipc").refused(&["kernel.msgmax"]);
    assert_eq!(forward(), before);
}

fn a_parameter_of_no_namespace_is_refused() {
    with("vm.swappiness", "10").refused(&["vm.swappiness"]);
}

fn the_host_name_as_a_parameter_is_refused() {
    with("kernel.hostname", "web").refused(&["kernel.hostname"]);
}

fn an_unknown_parameter_is_refused() {
    with("net.ipv4.no_such_thing", "1").refused(&["no_such_thing"]);
}

fn a_value_that_the_kernel_refuses_is_refused() {
    with("net.ipv4.ip_forward", "perhaps").refused(&["ip_forward"]);
}
