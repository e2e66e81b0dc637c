//! Network devices of the host that move into a container.

use std::process::Command;

use lxcrun_test::{Bundle, interfaces, tests};
use serde_json::json;

tests![
    a_device_moves_with_its_addresses_and_comes_up.not_on("runc", "1.1 does not know it"),
    a_device_gets_another_name.not_on("runc", "1.1 does not know it"),
    a_device_that_is_not_there_is_an_error.not_on("runc", "1.1 does not know it"),
    a_name_that_is_none_is_refused.not_on("runc", "1.1 does not know it"),
    a_device_needs_a_network_of_the_containers_own.not_on("runc", "1.1 does not know it"),
    a_device_goes_back_when_the_container_fails.not_on("runc", "1.1 does not know it"),
];

/// One end of a pair of devices of the host, gone when the test is over.
struct Device(String);

impl Device {
    fn new(bundle: &Bundle, letter: char) -> Device {
        // Names are short, so only the end of the key fits in.
        let key = bundle.key();
        let device = Device(format!("d{letter}{}", &key[key.len().saturating_sub(9)..]));
        ip(&["link", "add", &device.0, "type", "veth", "peer", "name", &format!("p{}", &device.0)]);
        device
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // The container may have taken it away with itself.
        let _ = Command::new("ip").args(["link", "del", &self.0]).output();
    }
}

#[track_caller]
fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().expect("ip");
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn a_device_moves_with_its_addresses_and_comes_up() {
    let bundle = Bundle::busybox().sh("ip addr show");
    let device = Device::new(&bundle, 'a');
    ip(&["addr", "add", "169.254.169.13/32", "dev", &device.0]);
    ip(&["addr", "add", "fd00:1::7/64", "dev", &device.0]);
    let run = bundle.edit(|spec| spec["linux"]["netDevices"] = json!({ &*device.0: {} })).run();
    run.assert_ok().assert_stdout_contains(&device.0);
    for shown in ["inet 169.254.169.13/32", "inet6 fd00:1::7/64", "MULTICAST,UP"] {
        run.assert_stdout_contains(shown);
    }
    assert!(!interfaces().contains(&device.0), "it goes with its namespace");
}

fn a_device_gets_another_name() {
    let bundle = Bundle::busybox().sh("ip link show; ip link show eth7");
    let device = Device::new(&bundle, 'b');
    let run =
        bundle.edit(|spec| spec["linux"]["netDevices"] = json!({ &*device.0: { "name": "eth7" } })).run();
    run.assert_ok().assert_stdout_contains("eth7");
    assert!(!run.stdout.contains(&device.0), "{}", run.stdout);
}

fn a_device_that_is_not_there_is_an_error() {
    Bundle::busybox()
        .set("/linux/netDevices", json!({ "nothing7": {} }))
        .refused(&["linux.netDevices.nothing7"]);
}

fn a_name_that_is_none_is_refused() {
    for name in ["a/b", "", "sixteen-letters-x", "a b"] {
        Bundle::busybox().set("/linux/netDevices", json!({ name: {} })).refused(&["linux.netDevices"]);
    }
}

fn a_device_needs_a_network_of_the_containers_own() {
    let bundle = Bundle::busybox();
    let device = Device::new(&bundle, 'c');
    let bundle = bundle.without_namespace("network");
    bundle
        .edit(|spec| spec["linux"]["netDevices"] = json!({ &*device.0: {} }))
        .refused(&["linux.netDevices", "without a NET namespace"]);
    assert!(interfaces().contains(&device.0));
}

fn a_device_goes_back_when_the_container_fails() {
    let bundle = Bundle::busybox();
    let device = Device::new(&bundle, 'd');
    ip(&["addr", "add", "169.254.169.14/32", "dev", &device.0]);
    ip(&["link", "set", &device.0, "up"]);
    let hook = json!({ "path": "/bin/false", "args": ["false"] });
    let bundle = bundle.set("/hooks", json!({ "createRuntime": [hook] })).edit(|spec| {
        spec["linux"]["netDevices"] = json!({ &*device.0: { "name": "eth7" } });
    });
    bundle.refused(&["createRuntime"]);
    let shown = ip(&["addr", "show", "dev", &device.0]);
    assert!(shown.contains("169.254.169.14/32") && shown.contains("MULTICAST,UP"), "{shown}");
}
