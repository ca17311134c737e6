//! A switch and hosts on it: real interfaces with an address each, and what can go wrong with them.
//!
//! Hosts are network namespaces, which needs Linux, root and iproute2; elsewhere the tests say why and pass.
//! The switch lies in a namespace of its own too, so that nothing of this machine's network is touched, and
//! all of it ends with the test.

#![cfg(target_os = "linux")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::cluster::{Answer, PROGRAM, finish};

/// From the last start until all serve.
const READY: Duration = Duration::from_secs(10);
/// What a shaped port lets wait: a small switch's worth.
const QUEUE_BYTES: &str = "128kb";

static LANS: AtomicU32 = AtomicU32::new(0);

/// Some hosts on one switch. Ends with all that runs on it.
pub struct Lan {
    /// Part of every name, so that no two processes and no two tests meet.
    name: String,
    hosts: usize,
    /// By host, the last start of its node.
    running: BTreeMap<usize, Child>,
    /// Holds the homes; free for the test's own files.
    pub dir: TempDir,
}

/// What a node says on standard output, line by line.
pub type Lines = mpsc::Receiver<String>;

/// Bytes that an interface has carried, headers and all.
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

impl Lan {
    /// Hosts 1 to `hosts`; none, and the reason on standard error, where that is not possible.
    pub fn new(hosts: usize) -> Option<Self> {
        let number = LANS.fetch_add(1, Ordering::SeqCst);
        let name = format!("tintype-{}-{number}", std::process::id());
        let dir = tempfile::tempdir().expect("a folder");
        let lan = Self { name, hosts, running: BTreeMap::new(), dir };
        if let Err(reason) = lan.build() {
            eprintln!("SKIPPED: no network of namespaces can be made here: {reason}");
            return None;
        }
        Some(lan)
    }

    /// What a test of a network may lack is the right to make namespaces; all that follows must work then.
    fn build(&self) -> Result<(), String> {
        let switch = self.switch();
        try_run("ip", &["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "br0", "up"]);
        for host in 1..=self.hosts {
            let (space, port, addr) = (self.host(host), port(host), format!("10.77.0.{host}/24"));
            ip(&["netns", "add", &space]);
            ip(&["-n", &space, "link", "set", "lo", "up"]);
            let ends = ["link", "add", "eth0", "netns", &space, "type", "veth", "peer", "name", &port];
            ip(&[&ends[..], &["netns", &switch]].concat());
            ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"]);
            ip(&["-n", &space, "addr", "add", &addr, "dev", "eth0"]);
            ip(&["-n", &space, "link", "set", "eth0", "up"]);
            // As on any LAN; nobody is there, but it is the way that multicast takes.
            ip(&["-n", &space, "route", "add", "default", "via", "10.77.0.254"]);
        }
        Ok(())
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }

    fn host(&self, host: usize) -> String {
        format!("{}-{host}", self.name)
    }

    /// A home with this cluster key and nothing else.
    pub fn home(&self, name: &str, key: &str) -> PathBuf {
        let home = self.dir.path().join(name);
        std::fs::create_dir_all(home.join("keys")).expect("made");
        std::fs::write(home.join("keys/cluster.key"), key).expect("written");
        home
    }

    /// The program on a host.
    pub fn command(&self, host: usize, home: &Path, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host(host), PROGRAM]).args(args).arg("--home").arg(home);
        command.stdin(Stdio::null());
        command
    }

    /// The program on a host, to its end.
    pub fn run(&self, host: usize, home: &Path, args: &[&str]) -> Answer {
        finish(&mut self.command(host, home, args))
    }

    /// Starts a node on a host, with no address named.
    pub fn up(&mut self, host: usize, key: &str, expect: &str) -> Lines {
        let name = format!("host-{host}");
        let home = self.home(&name, key);
        let mut command = self.command(host, &home, &["up", "--expect", expect, "--name", &name]);
        let log = std::fs::File::create(home.join("log.txt")).expect("made");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("started");
        let stdout = child.stdout.take().expect("piped");
        if let Some(before) = self.running.insert(host, child) {
            end(before);
        }
        let (tell, lines) = mpsc::sync_channel(64);
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.for_each(|line| drop(tell.try_send(line)));
        });
        lines
    }

    /// Waits until all these nodes have said that so many serve.
    pub fn wait_ready(&self, nodes: &[(usize, Lines)], count: usize) {
        let deadline = Instant::now() + READY;
        let wanted = format!("ready nodes={count}");
        for (host, lines) in nodes {
            loop {
                match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(line) if line == wanted => break,
                    Ok(line) => assert!(!line.starts_with("ready"), "host {host} says {line}"),
                    Err(_) => panic!("host {host} is not ready within {READY:?}: {}", self.log(*host)),
                }
            }
        }
    }

    /// Kills the node of a host without warning; the host stays.
    pub fn kill(&mut self, host: usize) {
        self.running.remove(&host).into_iter().for_each(end);
    }

    /// What the node of a host wrote on standard error.
    pub fn log(&self, host: usize) -> String {
        let path = self.dir.path().join(format!("host-{host}/log.txt"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    // ---- what can go wrong ----

    /// From now on every packet of a host leaves it by itself, as on a wire: the system would pass on several
    /// as one piece, and a fault would meet all of them.
    pub fn single_packets(&self, host: usize) {
        ip(&["-n", &self.host(host), "link", "set", "eth0", "gso_max_segs", "1"]);
    }

    /// Makes a host's link take no IP packets above so many bytes, at both of its ends.
    pub fn set_mtu(&self, host: usize, bytes: u16) {
        for (space, device) in [(self.host(host), "eth0".to_owned()), (self.switch(), port(host))] {
            ip(&["-n", &space, "link", "set", &device, "mtu", &bytes.to_string()]);
        }
    }

    /// Rules for what the switch passes on, in nft's words (`meta length > 1280 drop`); none takes them away.
    /// The answer is why that is not possible here.
    pub fn switch_rules(&self, rules: &[&str]) -> Result<(), String> {
        let chain = format!(
            "table bridge faults {{}}; delete table bridge faults; table bridge faults {{ chain passed {{ \
             type filter hook forward priority 0; policy accept; {}; }}; }}",
            rules.join("; ")
        );
        let switch = self.switch();
        try_run("ip", &["netns", "exec", &switch, "nft", &chain])
    }

    /// Parts hosts from each other: whatever one of `these` sends to one of `those` is lost on its way, and
    /// the other way round. Nothing is refused. The answer is why that is not possible here.
    pub fn part(&self, these: &[usize], those: &[usize]) -> Result<(), String> {
        let ports = |hosts: &[usize]| hosts.iter().map(|host| port(*host)).collect::<Vec<_>>().join(", ");
        let (these, those) = (ports(these), ports(those));
        let lost = |from: &str, to: &str| format!("iifname {{ {from} }} oifname {{ {to} }} drop");
        self.switch_rules(&[&lost(&these, &those), &lost(&those, &these)])
    }

    /// Takes the cable of a host out of the switch, or puts it back.
    pub fn plug(&self, host: usize, is_in: bool) {
        let state = if is_in { "up" } else { "down" };
        ip(&["-n", &self.switch(), "link", "set", &port(host), state]);
    }

    /// Gives a host another address: the last number of it.
    pub fn move_to(&self, host: usize, number: u8) {
        let space = self.host(host);
        ip(&["-n", &space, "addr", "flush", "dev", "eth0"]);
        ip(&["-n", &space, "addr", "add", &format!("10.77.0.{number}/24"), "dev", "eth0"]);
        ip(&["-n", &space, "route", "replace", "default", "via", "10.77.0.254"]);
    }

    /// Gives a host's link this many bits per second (`10mbit`), both ways.
    pub fn limit_rate(&self, host: usize, rate: &str) {
        for (space, device) in [(self.host(host), "eth0".to_owned()), (self.switch(), port(host))] {
            let shape = ["root", "tbf", "rate", rate, "burst", "32kb", "limit", QUEUE_BYTES];
            let args = [&["-n", &space, "qdisc", "replace", "dev", &device][..], &shape].concat();
            try_run("tc", &args).unwrap_or_else(|reason| panic!("{reason}"));
        }
    }

    /// What a host's interface has carried so far.
    pub fn carried(&self, host: usize) -> Carried {
        // The switch's end of the cable, so what it has received is what the host sent.
        let read = |counter: &str| {
            let path = format!("/sys/class/net/{}/statistics/{counter}", port(host));
            let read = Command::new("ip").args(["netns", "exec", &self.switch(), "cat", &path]).output();
            let text = String::from_utf8(read.expect("ip runs").stdout).expect("a text");
            text.trim().parse().unwrap_or_else(|_| panic!("{path}: {text}"))
        };
        Carried { sent: read("rx_bytes"), received: read("tx_bytes") }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        std::mem::take(&mut self.running).into_values().for_each(end);
        // What lies in a namespace goes with it. One that was not made is no loss.
        for space in (1..=self.hosts).map(|host| self.host(host)).chain([self.switch()]) {
            let _ = try_run("ip", &["netns", "delete", &space]);
        }
    }
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn port(host: usize) -> String {
    format!("port{host}")
}

#[track_caller]
fn ip(args: &[&str]) {
    try_run("ip", args).unwrap_or_else(|reason| panic!("{reason}"));
}

fn try_run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output =
        output.map_err(|error| format!("`{program}` (Debian: iproute2, nftables) does not run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let failed = || format!("`{program} {}`: {}", args.join(" "), said.trim());
    output.status.success().then_some(()).ok_or_else(failed)
}

/// A new cluster key, as `init` makes it.
pub fn new_key(dir: &Path, name: &str) -> String {
    let home = dir.join(name);
    let made = finish(Command::new(PROGRAM).args(["init", "--home"]).arg(&home));
    assert_eq!(made.code, Some(0), "{made:?}");
    std::fs::read_to_string(home.join("keys/cluster.key")).expect("a key")
}
