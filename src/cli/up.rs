//! `tintype up`: a node in this terminal, until Ctrl-C or `tintype down`.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use super::{context::Context, init, output::Output, problem::Halt, problem::Outcome, signals};
use crate::{
    api::{Exit, Problem},
    disk::Home,
    model::{
        PeerId,
        config::{Capacity, Config, ConfigError, Layered, Listen, Port, Slots},
        limits,
    },
    node::{self, NodeError, Notice},
};

/// `up`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Address and UDP port to listen on [default: every address, port 4117]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<SocketAddr>,
    /// A node to call, host:port or a multiaddr; may be given several times
    #[arg(long, value_name = "ADDR")]
    bootstrap: Vec<String>,
    /// How many machines found the cluster together [default: 1]
    #[arg(long, value_name = "N", value_parser = members())]
    expect: Option<u32>,
    /// What people see in `status` [default: the machine's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How much this machine may store, such as 500GB [default: all of the disk but the reserve]
    #[arg(long, value_name = "SIZE")]
    capacity: Option<String>,
    /// Do not look for other machines by multicast
    #[arg(long)]
    no_mdns: bool,
    /// This home was moved here from another machine, and is used nowhere else
    #[arg(long)]
    moved: bool,
}

fn members() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=limits::MEMBERS_MAX as i64)
}

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its home, keys and all.
    pub home: Home,
    /// Who it is.
    pub peer: PeerId,
    /// Every knob.
    pub config: Config,
    /// Its display name: the configured one, or the machine's.
    pub name: String,
    /// The home was moved here on purpose.
    pub moved: bool,
    /// The cluster key was there before this start, so there may be a cluster to look for.
    pub cluster_key_was_there: bool,
}

impl Args {
    /// Lays the flags over the configuration.
    ///
    /// # Errors
    /// A value that cannot be.
    pub fn lay(&self, layers: &mut Layered) -> Result<(), ConfigError> {
        if let Some(listen) = self.listen {
            let address = match listen.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => String::new(),
                IpAddr::V6(ip) if ip.is_unspecified() => String::new(),
                ip => ip.to_string(),
            };
            layers.flag("--listen", "node.listen", address)?;
            layers.flag("--listen", "node.port", i64::from(listen.port()))?;
        }
        if !self.bootstrap.is_empty() {
            layers.flag("--bootstrap", "network.bootstrap", self.bootstrap.clone())?;
        }
        if let Some(expect) = self.expect {
            layers.flag("--expect", "node.expect", i64::from(expect))?;
        }
        if let Some(name) = &self.name {
            layers.flag("--name", "node.name", name.as_str())?;
        }
        if let Some(capacity) = &self.capacity {
            layers.flag("--capacity", "node.capacity", capacity.as_str())?;
        }
        if self.no_mdns {
            layers.flag("--no-mdns", "network.mdns", false)?;
        }
        Ok(())
    }
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// Whatever keeps it from starting, in one sentence with the file and the key.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    let keys = init::make_keys(&context.home)?;
    let config = context.config.config.clone();
    let name = if config.node.name.is_empty() { machine_name() } else { config.node.name.clone() };
    let start = Start {
        home: context.home.clone(),
        peer: keys.peer,
        config,
        name,
        moved: args.moved,
        cluster_key_was_there: !keys.cluster_key_made,
    };
    introduce(&start, &context.output);
    serve(start, &context.output).await
}

/// Runs the node; what it tells goes out at once.
async fn serve(start: Start, output: &Output) -> Outcome {
    let out = output.clone();
    let expect = u64::from(start.config.node.expect);
    let on_notice = Box::new(move |notice| {
        // A reader of stdout that has gone is no reason for a node to stop.
        drop(tell(&notice, &out));
        if let Notice::Ready { nodes } = notice
            && expect > 1
            && nodes as u64 != expect
        {
            out.talk(&founded_otherwise(nodes as u64, expect));
        }
    });
    match node::run(node_config(&start), on_notice).await {
        Ok(node::Stopped::Asked) => Ok(Exit::Done),
        Err(error) => Err(problem_of(&error).into()),
    }
}

fn node_config(start: &Start) -> node::NodeConfig {
    let knobs = &start.config.node;
    let (port, port_given) = match knobs.port {
        Port::Auto => (limits::DEFAULT_PORT, false),
        Port::Free => (0, true),
        Port::Given(port) => (port, true),
    };
    node::NodeConfig {
        home: start.home.root().to_owned(),
        listen: match knobs.listen {
            Listen::All => None,
            Listen::One(ip) => Some(SocketAddr::new(ip, port)),
        },
        port,
        port_given,
        bootstrap: start.config.network.bootstrap.clone(),
        expect: knobs.expect as usize,
        name: start.name.clone(),
        capacity_bytes: match knobs.capacity {
            Capacity::All => None,
            Capacity::Bytes(bytes) => Some(bytes),
        },
        reserve_bytes: knobs.reserve.0,
        mdns: start.config.network.mdns,
        packets: start.config.network.packets(),
        moved: start.moved,
        key_was_there: start.cluster_key_was_there,
        slots: match start.config.tasks.slots {
            Slots::Auto => None,
            Slots::Given(slots) => Some(usize::from(slots)),
        },
        worker: this_program(),
        added_load: start.config.tasks.added_load,
        stop_on_hangup: signals::heeds_hangup(),
    }
}

/// This very program, also when its file was replaced meanwhile by a newer one.
fn this_program() -> Option<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() { Some(running.to_owned()) } else { std::env::current_exe().ok() }
}

/// What keeps a node from running, and what to do about it.
fn problem_of(error: &NodeError) -> Problem {
    use crate::disk::DiskError;
    let remedy = match error {
        NodeError::PortTaken { .. } => "choose another with `--listen HOST:PORT`, or stop the other program",
        NodeError::Disk(DiskError::Locked { .. }) => {
            "a node runs on this home already: `tintype status`, `tintype down`"
        }
        NodeError::Disk(DiskError::OtherMachine { .. }) => {
            "start once with `--moved` if the old home is not used any more"
        }
        NodeError::Disk(DiskError::NewerFormat { .. }) => "update tintype on this machine",
        NodeError::Key { .. } => "put the right key back in its place; nothing was overwritten",
        NodeError::Address(_) => "an address looks like 192.168.1.5:4117",
        NodeError::RolledBack(_) | NodeError::Refused(_) | NodeError::Disk(DiskError::RolledBack { .. }) => {
            "start the home that this node used last; this one is never used again"
        }
        NodeError::Twin { .. } => "stop the other node first if this home is the one that counts",
        NodeError::Disk(_) | NodeError::Record(_) => "check the disk; nothing was overwritten",
        NodeError::Net(_) | NodeError::Transport(_) | NodeError::Threads(_) => {
            "`tintype doctor` looks for the cause"
        }
    };
    Problem::failed(error.to_string(), remedy)
}

/// Prints a notice: on stdout what scripts wait for, on stderr words.
///
/// # Errors
/// As stdout says; a node goes on without its reader.
fn tell(notice: &Notice, output: &Output) -> Result<(), Halt> {
    match notice {
        Notice::Listening { peer, addr } if output.json() => {
            output.object(
                &serde_json::json!({ "event": "listening", "peer": peer.to_string(), "addr": addr }),
            )?;
        }
        Notice::Listening { peer, addr } => output.line(&format!("listening peer={peer} addr={addr}"))?,
        Notice::Ready { nodes } if output.json() => {
            output.object(&serde_json::json!({ "event": "ready", "nodes": nodes }))?;
        }
        Notice::Ready { nodes } => output.line(&format!("ready nodes={nodes}"))?,
        Notice::Say(words) => output.talk(words),
    }
    Ok(())
}

fn introduce(start: &Start, output: &Output) {
    output.talk(&format!("This is {}, {}.", start.name, start.peer));
    output.talk(&format!(
        "Data lies in {}, keys in {}.",
        start.home.data_dir().display(),
        keys_dir(&start.home)
    ));
    // A machine that was given the key or the number of machines has been told already.
    let told = start.cluster_key_was_there || start.config.node.expect > 1;
    if !told && !start.home.data_dir().exists() {
        output.talk(&init::found_together(&start.home));
    }
    if !start.cluster_key_was_there {
        output.talk("In a second terminal: `tintype put photo.png`. Stop here with Ctrl-C.");
    }
}

/// `--expect` counts at the founding alone; who changes it later hopes for something that does not happen.
fn founded_otherwise(nodes: u64, expect: u64) -> String {
    format!(
        "This vault was founded by {}; `--expect {expect}` does not change that.",
        super::text::count(nodes, "machine", "machines")
    )
}

fn keys_dir(home: &Home) -> String {
    home.cluster_key_path().parent().map_or_else(String::new, |keys| keys.display().to_string())
}

/// The machine's own name, cut to what a display name may be.
fn machine_name() -> String {
    let full = sysinfo::System::host_name().unwrap_or_else(|_| "this machine".into());
    let mut name = full.split('.').next().unwrap_or("this machine").to_owned();
    while name.len() > limits::DISPLAY_NAME_BYTES_MAX {
        name.pop();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_decide_over_the_file() {
        let mut layers = Layered::new();
        layers.file("f", "[node]\nport = 1\nname = \"file\"\n[network]\nmdns = true").unwrap();
        let args = Args {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            bootstrap: vec!["a:1".into(), "b:2".into()],
            expect: Some(3),
            name: Some("desk".into()),
            capacity: Some("5GB".into()),
            no_mdns: true,
            moved: false,
        };
        args.lay(&mut layers).unwrap();
        let config = layers.finish().unwrap().config;
        assert_eq!(config.node.listen, Listen::One("127.0.0.1".parse().unwrap()));
        assert_eq!(config.node.port, Port::Free);
        assert_eq!(config.node.capacity, Capacity::Bytes(5_000_000_000));
        assert_eq!((config.node.name.as_str(), config.node.expect), ("desk", 3));
        assert_eq!((config.network.mdns, config.network.bootstrap.len()), (false, 2));
    }

    #[test]
    fn a_wildcard_address_means_all() {
        let mut layers = Layered::new();
        Args { listen: Some("0.0.0.0:4200".parse().unwrap()), ..Args::default() }.lay(&mut layers).unwrap();
        let config = layers.finish().unwrap().config;
        assert_eq!((config.node.listen, config.node.port), (Listen::All, Port::Given(4200)));
    }

    #[test]
    fn a_flag_that_cannot_be_is_refused_by_its_name() {
        let args = Args { capacity: Some("much".into()), ..Args::default() };
        let error = args.lay(&mut Layered::new()).expect_err("not a size");
        assert!(error.to_string().starts_with("--capacity:"), "{error}");
    }
}
