//! Interfaces that LXC makes. Each test has a network namespace of its own as its host, which ends with it.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bed, apart_network, host, ip};
use execdriver::{CommandBuilder, Driver, Interface, Network};

/// Whether this kernel has a kind of interface; if not, the test says so.
fn has(kind: &str) -> bool {
    let made = host("ip", &["link", "add", "link", "up0", "name", "probe", "type", kind]).status.success();
    if made {
        ip("link del probe");
    } else {
        println!("skipped: this kernel has no {kind}");
    }
    made
}

/// A host with an interface `up0` and its other end `up1`.
fn with_uplink(body: impl FnOnce(&Bed) + Send) {
    let bed = Bed::new();
    apart_network(|| {
        ip("link add up0 type veth peer name up1");
        ip("link set up0 up");
        ip("link set up1 up");
        body(&bed);
    });
}

fn with(command: CommandBuilder, interface: Interface) -> CommandBuilder {
    command.network(Network::Interfaces(vec![interface]))
}

fn links() -> String {
    String::from_utf8(host("ip", &["-o", "link"]).stdout).unwrap()
}

const LOOK: &str =
    "ip -o -4 addr show eth0; cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu; ip route";

#[test]
fn a_veth_pair_is_counted_on_both_sides_and_goes_away() {
    with_uplink(|bed| {
        ip("link add br0 type bridge");
        ip("addr add 10.1.1.1/24 dev br0");
        ip("link set br0 up");
        let mut veth = Interface::veth("br0").address("10.1.1.2/24".parse().unwrap()).name("lan0");
        veth.host_name = Some("web0".into());
        veth = veth.gateway("10.1.1.1".parse().unwrap());
        let script = "ping -c 3 -i 0.1 -w 5 10.1.1.1 >/dev/null && echo ready; cat >/dev/null";
        let command = with(bed.sh(script), veth).build().unwrap();
        let id = command.id.clone();
        // The driver is called from this thread's namespace, so it needs a thread that has the same one.
        let (input, stdin) = std::io::pipe().unwrap();
        let (mut stdout, output) = std::io::pipe().unwrap();
        let driver = bed.driver.clone();
        std::thread::scope(|scope| {
            let running = scope.spawn(move || {
                let pipes = execdriver::Pipes::null().stdin(input).stdout(output);
                driver.run(&command, pipes, &mut |_| ())
            });
            common::until_line(&mut stdout, "ready");
            assert!(links().contains("web0"), "{}", links());
            let stats = bed.driver.stats(&id).unwrap();
            let lan = stats.container.network_interfaces.iter().find(|i| i.name == "lan0").unwrap();
            assert!(lan.tx_packets >= 3 && lan.rx_packets >= 3, "{lan:?}");
            drop(stdin);
            assert_eq!(running.join().unwrap().unwrap().exit_code, 0);
        });
        assert!(!links().contains("web0"), "{}", links());
    });
}

#[test]
fn a_macvlan_has_a_static_address() {
    with_uplink(|bed| {
        if has("macvlan") {
            ip("addr add 10.2.2.1/24 dev up1");
            let macvlan =
                Interface::macvlan("up0").address("10.2.2.2/24".parse().unwrap()).mac("02:00:00:00:02:02");
            let seen = bed.run(with(bed.sh(&format!("{LOOK}; ping -c 1 -w 5 10.2.2.1")), macvlan));
            let seen = seen.assert_ok();
            assert!(seen.contains("10.2.2.2/24") && seen.contains("02:00:00:00:02:02"), "{seen}");
        }
    });
}

#[test]
fn a_vlan_has_its_number() {
    with_uplink(|bed| {
        if host("ip", &["link", "add", "link", "up0", "name", "p", "type", "vlan", "id", "3"])
            .status
            .success()
        {
            let vlan = Interface::vlan("up0", 7).address("10.3.3.2/24".parse().unwrap());
            assert!(bed.run(with(bed.sh(LOOK), vlan)).assert_ok().contains("10.3.3.2/24"));
        } else {
            println!("skipped: this kernel has no vlan");
        }
    });
}

#[test]
fn an_ipvlan_has_its_links_mac() {
    with_uplink(|bed| {
        if has("ipvlan") {
            let ipvlan = Interface::ipvlan("up0").address("10.4.4.2/24".parse().unwrap());
            assert!(bed.run(with(bed.sh(LOOK), ipvlan)).assert_ok().contains("10.4.4.2/24"));
        }
    });
}

#[test]
fn an_interface_of_the_host_comes_back() {
    with_uplink(|bed| {
        let phys = Interface::phys("up1").address("10.5.5.2/24".parse().unwrap()).mtu(1300);
        let seen = bed.run(with(bed.sh(LOOK), phys));
        let seen = seen.assert_ok();
        assert!(seen.contains("10.5.5.2/24") && seen.contains("1300"), "{seen}");
        assert!(links().contains("up1"), "{}", links());
    });
}

#[test]
fn a_veth_pair_needs_no_bridge() {
    with_uplink(|bed| {
        let veth = Interface::veth_pair().host_name("alone0").name("lan0");
        let command = with(bed.sh("ls /sys/class/net; echo ready; cat"), veth).build().unwrap();
        let mut during = String::new();
        let mut output = Vec::new();
        // The program waits for the end of its input.
        let (input, writer) = std::io::pipe().unwrap();
        let mut writer = Some(writer);
        let pipes = execdriver::Pipes::null().stdin(execdriver::Input::reader(input)).stdout(&mut output);
        let mut look = |_| {
            during = links();
            writer.take();
        };
        bed.driver.run(&command, pipes, &mut look).unwrap();
        assert!(during.contains("alone0"), "{during}");
        assert!(String::from_utf8(output).unwrap().starts_with("lan0\n"));
        assert!(!links().contains("alone0"));
    });
}

#[test]
fn a_missing_bridge_is_named() {
    with_uplink(|bed| {
        let message = bed.refusal(with(bed.sh("true"), Interface::veth("nobridge")));
        let named = ": network.interfaces[0].link: this host has no interface \"nobridge\"";
        assert!(message.ends_with(named), "{message}");
    });
}

#[test]
fn the_kernels_without_a_kind_are_told_so() {
    with_uplink(|bed| {
        if !has("macvlan") {
            let message = bed.refusal(with(bed.sh("true"), Interface::macvlan("up0")));
            assert!(message.contains("macvlan"), "{message}");
        }
    });
}

#[test]
fn addresses_have_their_broadcast_address() {
    with_uplink(|bed| {
        for (address, broadcast) in
            [("10.77.0.2/24", "brd 10.77.0.255"), ("10.77.1.9/29", "brd 10.77.1.15"), ("10.77.2.2/32", "")]
        {
            let veth = Interface::veth_pair().address(address.parse().unwrap());
            let seen = bed.run(with(bed.sh("ip -o -4 addr show eth0"), veth)).out;
            assert!(seen.contains(address) && seen.contains(broadcast), "{seen}");
        }
    });
}
