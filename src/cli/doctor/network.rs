//! What `doctor` finds about port, firewall, multicast and socket buffers.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::Path,
};

use super::Report;
use crate::{cli::text, model::config::Listen};

const MDNS_PORT: u16 = 5353;
const FLAG_UP: u32 = 0x1;
const FLAG_LOOPBACK: u32 = 0x8;
const FLAG_MULTICAST: u32 = 0x1000;

/// The UDP port in a multiaddress.
pub(super) fn udp_port(addr: &str) -> Option<u16> {
    let mut steps = addr.split('/');
    steps.find(|step| *step == "udp")?;
    steps.next()?.parse().ok()
}

/// Whether the port is ours, free or taken.
pub(super) fn port(listen: Listen, port: u16, node_runs_here: bool) -> Report {
    if node_runs_here {
        return Report::good("port", format!("the node of this home listens on UDP {port}"));
    }
    let address = match listen {
        Listen::All => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Listen::One(address) => address,
    };
    match UdpSocket::bind((address, port)) {
        Ok(_) => Report::good("port", format!("UDP {port} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Report::finding(
            "port",
            format!("UDP {port} is taken by another program (another tintype with another home?)"),
            format!("stop it (`ss -lunp 'sport = :{port}'` names it), or give another port with --listen"),
        ),
        Err(error) => Report::finding(
            "port",
            format!("UDP {port} on {address} cannot be used: {error}"),
            "set node.listen to an address of this machine, or leave it empty for all",
        ),
    }
}

/// Which firewall is at work, and the lines that open the port.
pub(super) fn firewall(port: u16) -> Report {
    let lines = opening_lines(port);
    let found = detected();
    let open =
        format!("if another machine cannot reach this one, open the port with the line for it:\n{lines}");
    if found.is_empty() {
        return Report::hint("firewall", "none was recognised on this machine", open);
    }
    let rules: Vec<String> =
        ["/etc/ufw/user.rules", "/etc/firewalld/zones/public.xml"].into_iter().filter_map(read).collect();
    let names = found.join(" and ");
    if rules.iter().any(|text| has_rule(text, port)) {
        return Report::good("firewall", format!("{names} is active and has a rule for UDP {port}"));
    }
    match rules.is_empty() {
        true => Report::hint(
            "firewall",
            format!("{names} is active; only the administrator can read its rules"),
            open,
        ),
        false => Report::finding(
            "firewall",
            format!("{names} is active and has no rule for UDP {port}: other machines cannot call this one"),
            format!("open the port with the line for it:\n{lines}"),
        ),
    }
}

/// Whether a rule file of ufw or a zone of firewalld lets the port in.
fn has_rule(rules: &str, port: u16) -> bool {
    let firewalld = [format!("port=\"{port}\""), "protocol=\"udp\"".into()];
    rules.lines().any(|line| {
        let ufw =
            line.contains("-p udp") && line.contains(&format!("--dport {port} ")) && line.contains("ACCEPT");
        ufw || firewalld.iter().all(|part| line.contains(part.as_str()))
    })
}

/// One line for each firewall that people have.
fn opening_lines(port: u16) -> String {
    format!(
        "ufw:       sudo ufw allow {port}/udp && sudo ufw allow {MDNS_PORT}/udp\n\
         firewalld: sudo firewall-cmd --permanent --add-port={port}/udp --add-service=mdns && \
         sudo firewall-cmd --reload\n\
         Windows:   netsh advfirewall firewall add rule name=tintype dir=in action=allow protocol=UDP \
         localport={port}"
    )
}

/// Active firewalls.
fn detected() -> Vec<&'static str> {
    let mut found = Vec::new();
    if read("/etc/ufw/ufw.conf").is_some_and(|text| ufw_is_on(&text)) {
        found.push("ufw");
    }
    if process_runs("firewalld") {
        found.push("firewalld");
    }
    if found.is_empty() && read("/proc/modules").is_some_and(|text| nft_is_used(&text)) {
        found.push("nftables");
    }
    found
}

fn ufw_is_on(conf: &str) -> bool {
    conf.lines().any(|line| line.trim().to_ascii_lowercase().replace(' ', "") == "enabled=yes")
}

/// The filter module is loaded and something refers to it.
fn nft_is_used(modules: &str) -> bool {
    modules.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("nf_tables") && words.nth(1).is_some_and(|users| users != "0")
    })
}

fn process_runs(name: &str) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes.flatten().any(|entry| read(entry.path().join("comm")).is_some_and(|comm| comm.trim() == name))
}

/// Whether an interface can carry the multicast by which machines find each other.
pub(super) fn multicast(mdns: bool) -> Report {
    const BOOTSTRAP: &str =
        "name another machine instead: `tintype up --bootstrap HOST:PORT`, or network.bootstrap";
    if !mdns {
        return Report::hint(
            "multicast",
            "it is turned off (network.mdns), so machines do not find each other",
            BOOTSTRAP,
        );
    }
    let Ok(interfaces) = fs::read_dir("/sys/class/net") else {
        return Report::hint("multicast", "this platform does not tell which interfaces carry it", BOOTSTRAP);
    };
    let able: Vec<String> = interfaces
        .flatten()
        .filter(|interface| {
            read(interface.path().join("flags")).and_then(|text| flags(&text)).is_some_and(carries_multicast)
        })
        .map(|interface| interface.file_name().to_string_lossy().into_owned())
        .collect();
    match able.is_empty() {
        false => Report::good("multicast", format!("{} can carry it", able.join(", "))),
        true => Report::finding(
            "multicast",
            "no interface that is up carries it, so machines cannot find each other",
            BOOTSTRAP,
        ),
    }
}

fn flags(text: &str) -> Option<u32> {
    u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
}

fn carries_multicast(flags: u32) -> bool {
    flags & FLAG_UP != 0 && flags & FLAG_MULTICAST != 0 && flags & FLAG_LOOPBACK == 0
}

/// What the system lets a socket buffer; small buffers lose packets under load.
pub(super) fn udp_buffers(wanted: u64) -> Vec<Report> {
    let known = ["rmem_max", "wmem_max"].into_iter().filter_map(|name| {
        let bytes: u64 = read(format!("/proc/sys/net/core/{name}"))?.trim().parse().ok()?;
        Some((name, bytes))
    });
    known.map(|(name, bytes)| buffer(name, bytes, wanted)).collect()
}

fn buffer(name: &'static str, bytes: u64, wanted: u64) -> Report {
    match bytes >= wanted {
        true => Report::good("UDP buffers", format!("net.core.{name} is {}", text::size(bytes))),
        false => Report::finding(
            "UDP buffers",
            format!(
                "net.core.{name} is {}, less than {}: large pictures travel more slowly",
                text::size(bytes),
                text::size(wanted)
            ),
            format!(
                "sudo sysctl -w net.core.{name}={wanted}\n\
                 (to keep it: echo net.core.{name}={wanted} | sudo tee -a /etc/sysctl.d/99-tintype.conf)"
            ),
        ),
    }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Verdict;

    #[test]
    fn the_port_is_told_free_ours_or_taken() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let taken = socket.local_addr().expect("an address").port();
        let here = Listen::One("127.0.0.1".parse().expect("an address"));
        let report = port(here, taken, false);
        assert_eq!(report.verdict, Verdict::Finding);
        assert!(report.text.contains(&taken.to_string()) && report.remedy.contains("--listen"));
        assert_eq!(port(here, taken, true).verdict, Verdict::Good);
        drop(socket);
        assert_eq!(port(here, taken, false).verdict, Verdict::Good);
        let elsewhere = Listen::One("192.0.2.1".parse().expect("an address"));
        assert_eq!(port(elsewhere, taken, false).verdict, Verdict::Finding);
    }

    #[test]
    fn the_port_of_a_multiaddress_is_found() {
        assert_eq!(udp_port("/ip4/127.0.0.1/udp/4117/quic-v1"), Some(4117));
        assert_eq!(udp_port("/ip4/127.0.0.1/tcp/80"), None);
        assert_eq!(udp_port("/ip4/127.0.0.1/udp"), None);
    }

    #[test]
    fn all_three_lines_name_the_port() {
        let lines = opening_lines(4200);
        for line in ["ufw allow 4200/udp", "--add-port=4200/udp", "localport=4200"] {
            assert!(lines.contains(line), "{lines}");
        }
        assert!(!firewall(4200).remedy.is_empty());
    }

    #[test]
    fn firewalls_are_recognised_by_their_own_files() {
        assert!(
            ufw_is_on("# comment\nENABLED=yes\n") && !ufw_is_on("ENABLED=no") && !ufw_is_on("#ENABLED=yes")
        );
        assert!(has_rule("-A ufw-user-input -p udp --dport 4117 -j ACCEPT", 4117));
        assert!(!has_rule("-A ufw-user-input -p udp --dport 41170 -j ACCEPT", 4117));
        assert!(has_rule("  <port port=\"4117\" protocol=\"udp\"/>", 4117));
        assert!(!has_rule("  <port port=\"4117\" protocol=\"tcp\"/>", 4117));
        assert!(nft_is_used("nf_tables 311296 120 nft_ct,nft_compat, Live 0x0"));
        assert!(!nft_is_used("nf_tables 311296 0 - Live 0x0") && !nft_is_used("x 1 1"));
    }

    #[test]
    fn an_interface_carries_multicast_if_it_is_up_able_and_not_the_loopback() {
        assert!(carries_multicast(flags("0x1003\n").expect("flags")));
        for hopeless in ["0x1002", "0x9", "0x3"] {
            assert!(!carries_multicast(flags(hopeless).expect("flags")), "{hopeless}");
        }
    }

    #[test]
    fn a_small_buffer_is_a_finding_with_the_line_that_mends_it() {
        assert_eq!(buffer("rmem_max", 4 << 20, 4 << 20).verdict, Verdict::Good);
        let small = buffer("rmem_max", 212_992, 4 << 20);
        assert_eq!(small.verdict, Verdict::Finding);
        assert!(small.remedy.contains("sysctl -w net.core.rmem_max=4194304"));
    }
}
