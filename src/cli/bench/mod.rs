//! `tintype bench`: measures this machine and what tintype makes of it.
//!
//! Each figure stands beside its ceiling, measured in the same run: what the machine gives to a program that
//! does nothing but that one thing. Nothing of the user's vault is touched; everything made here is removed.

mod clients;
mod cluster;
mod cpu;
mod failover;
mod figure;
mod group_commit;
mod hide;
mod hide_nodes;
mod load;
mod local;
mod many;
mod perf;
mod pingpong;
mod profile;
mod spread;
mod symbols;
mod wire;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;

use super::{context::Context, demo::place, problem::Outcome, text};
use crate::api::{Exit, Problem};
use figure::Figure;
use group_commit::Work;

/// Room that a quick run takes on the disk, every copy counted.
const QUICK_ROOM_BYTES: u64 = 5 << 30;
/// Room that a thorough one takes, likewise.
const ROOM_BYTES: u64 = 18 << 30;
/// Sentences about puts that failed: they all say the same.
const FAILED_TOLD_MAX: usize = 10;
/// Bytes of a mebibyte.
const MIB: f64 = (1u64 << 20) as f64;

/// `bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to measure [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<Name>,
    /// A few seconds for each, at most
    #[arg(long)]
    pub quick: bool,
    /// Instead: processor time for each GiB, of the client and of three nodes, by room (Linux)
    #[arg(long, conflicts_with = "names")]
    pub profile: bool,
    /// For the ceiling of `commits`: be nothing but a durable writer in that home
    #[arg(long, value_name = "HOME", hide = true)]
    pub durable_writer: Option<PathBuf>,
    /// For the ceiling of `small-puts`: bodies before each record
    #[arg(long, requires = "durable_writer", hide = true)]
    pub with_bodies: bool,
    /// Be nothing but one client with that load
    #[arg(long, value_name = "LOAD", hide = true)]
    pub load: Option<String>,
    /// Where the files go; not on a memory disk [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// One bare stream, without nodes, beside one of stock libp2p
    BareStream,
    /// Encrypting and naming chunks, one core
    Seal,
    /// Storing 1 MiB bodies durably, one after the other
    Disk,
    /// Hiding a text, and as much as fits, in pictures of 3000 x 3000 pixels: one core, one node, three nodes
    Hide,
    /// A task whose coordinator, worker or both are killed in the middle, on five nodes
    Failover,
    /// 50 pictures of 7 to 37 MB from four clients on three nodes: whether each does its share
    Spread,
    /// Lane frames there and back, one after the other
    Lane,
    /// Heartbeats there and back, one after the other
    Gossip,
    /// Questions to a node and back, one after the other
    Rpc,
    /// Putting pictures of 30 MB with one copy, two at once
    #[value(name = "put-1-copy")]
    Put1Copy,
    /// Putting pictures of 30 MB on three nodes, two at once
    #[value(name = "put-3-copies")]
    Put3Copies,
    /// Getting them back
    Get,
    /// Whole puts of 20 kB, 32 at once, on three nodes
    SmallPuts,
    /// First writes of registers on three nodes, 64 at once
    Commits,
    /// Pictures of 8 MB from 20 clients at once on three nodes, each client a process
    #[value(name = "many-3-nodes")]
    Many3Nodes,
    /// The same on ten nodes
    #[value(name = "many-10-nodes")]
    Many10Nodes,
}

impl Name {
    /// Whether it is, or its ceiling is, what one bare stream carries.
    fn is_beside_a_stream(self) -> bool {
        let transfers = matches!(self, Self::Put1Copy | Self::Put3Copies | Self::Get);
        transfers || matches!(self, Self::BareStream | Self::Many3Nodes | Self::Many10Nodes)
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    quick: bool,
}

impl Effort {
    fn pick(self, quick: usize, thorough: usize) -> usize {
        if self.quick { quick } else { thorough }
    }
}

/// Measures, and prints the table or one JSON object a line.
///
/// # Errors
/// What keeps it from measuring. A put of many that failed is a finding.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    if let Some(home) = &args.durable_writer {
        let failed = |error: anyhow::Error| Problem::failed(format!("{error:#}"), "check the disk");
        let work = if args.with_bodies { Work::SmallPut } else { Work::Commit };
        group_commit::serve(home, work, Effort { quick: args.quick }).await.map_err(failed)?;
        return Ok(Exit::Done);
    }
    if let Some(load) = &args.load {
        load::serve(load, context).await.map_err(problem)?;
        return Ok(Exit::Done);
    }
    let dir = place::choose(args.dir.as_deref(), if args.quick { QUICK_ROOM_BYTES } else { ROOM_BYTES })
        .map_err(problem)?;
    // Declared before the processes that use it, so that it goes after them.
    let _tidy = place::RemoveAtEnd(dir.clone());
    if cfg!(debug_assertions) {
        context.output.warn("this is a debug build: its figures say nothing about a release build");
    }
    if args.profile {
        profile::run(&dir, Effort { quick: args.quick }, context).await.map_err(problem)?;
        return Ok(Exit::Done);
    }
    let measured = measure(args, &dir, context).await.map_err(problem)?;
    if context.output.json() {
        measured.figures.iter().try_for_each(|figure| context.output.object(figure))?;
    } else {
        let rows: Vec<Vec<String>> = measured.figures.iter().map(Figure::row).collect();
        context.output.lines(text::table(&figure::HEAD, &rows))?;
    }
    tell_failed(&measured.failed, context);
    Ok(if measured.failed.is_empty() { Exit::Done } else { Exit::Findings })
}

fn problem(error: anyhow::Error) -> Problem {
    match error.downcast::<Problem>() {
        Ok(problem) => problem,
        Err(error) => Problem::failed(format!("{error:#}"), "see `tintype bench --help`"),
    }
}

/// Says how many puts failed, and why the first of them did.
fn tell_failed(failed: &[String], context: &Context) {
    if failed.is_empty() {
        return;
    }
    context.output.warn(&format!("{} failed:", text::count(failed.len() as u64, "put", "puts")));
    failed.iter().take(FAILED_TOLD_MAX).for_each(|sentence| context.output.warn(sentence));
}

/// All figures, and a sentence for each put that failed.
#[derive(Default)]
struct Measured {
    figures: Vec<Figure>,
    failed: Vec<String>,
}

async fn measure(args: &Args, dir: &Path, context: &Context) -> Result<Measured> {
    let effort = Effort { quick: args.quick };
    let wanted = wanted(&args.names);
    let mut measured = Measured::default();
    let mut cluster = None;
    let needs_streams = wanted.iter().any(|name| name.is_beside_a_stream());
    let (own, stock) = if needs_streams { wire::bare_streams(effort).await? } else { (0.0, 0.0) };
    for name in wanted {
        context.output.talk(&format!("measuring {}", label(name)));
        let figure = match name {
            Name::Seal => local::seal(effort).await?,
            Name::Disk => local::disk(dir, effort).await?,
            Name::Lane => pingpong::lane(effort).await?,
            Name::Gossip => pingpong::gossip(effort).await?,
            Name::BareStream => Figure::new("bare-stream", "MiB/s", own).under("stock libp2p-quic", stock),
            Name::Hide => {
                let (figures, ceiling) = hide::measure(effort).await?;
                measured.figures.extend(figures);
                stop(cluster.take()).await?;
                measured.figures.extend(hide_nodes::measure(dir, effort, ceiling).await?);
                continue;
            }
            Name::Failover => {
                stop(cluster.take()).await?;
                measured.figures.extend(failover::measure(dir, effort).await?);
                continue;
            }
            Name::Spread => {
                stop(cluster.take()).await?;
                measured.figures.extend(spread::measure(dir, effort).await?);
                continue;
            }
            Name::Many3Nodes | Name::Many10Nodes => {
                stop(cluster.take()).await?;
                let shape = if name == Name::Many3Nodes { &many::THREE } else { &many::TEN };
                let many = many::measure(shape, dir, effort, own).await?;
                measured.figures.extend(many.figures);
                measured.failed.extend(many.failed);
                continue;
            }
            name => {
                if cluster.is_none() {
                    cluster = Some(cluster::Cluster::start(&dir.join("cluster")).await?);
                }
                let cluster = cluster.as_mut().expect("it was started just above");
                cluster.measure(name, effort, own).await?
            }
        };
        measured.figures.push(figure);
    }
    stop(cluster).await?;
    Ok(measured)
}

/// Ends the cluster of the single client, so that it takes nothing from who comes next.
async fn stop(cluster: Option<cluster::Cluster>) -> Result<()> {
    if let Some(cluster) = cluster {
        cluster.stop().await?;
    }
    Ok(())
}

/// All, or those asked for, each once, in the order in which they are measured best.
fn wanted(names: &[Name]) -> Vec<Name> {
    let all = Name::value_variants().iter().copied();
    all.filter(|name| names.is_empty() || names.contains(name)).collect()
}

/// As it is typed.
fn label(name: Name) -> &'static str {
    match name {
        Name::BareStream => "bare-stream",
        Name::Seal => "seal",
        Name::Disk => "disk",
        Name::Hide => "hide",
        Name::Failover => "failover",
        Name::Spread => "spread",
        Name::Lane => "lane",
        Name::Gossip => "gossip",
        Name::Rpc => "rpc",
        Name::SmallPuts => "small-puts",
        Name::Put1Copy => "put-1-copy",
        Name::Put3Copies => "put-3-copies",
        Name::Get => "get",
        Name::Commits => "commits",
        Name::Many3Nodes => "many-3-nodes",
        Name::Many10Nodes => "many-10-nodes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_is_what_is_typed() {
        for name in Name::value_variants() {
            assert_eq!(Name::from_str(label(*name), false), Ok(*name));
            let typed = name.to_possible_value().unwrap();
            assert_eq!(typed.get_name(), label(*name));
        }
    }

    #[test]
    fn none_named_is_all_and_each_is_measured_once() {
        assert_eq!(wanted(&[]).len(), Name::value_variants().len());
        assert_eq!(wanted(&[Name::Get, Name::Seal, Name::Get]), [Name::Seal, Name::Get]);
    }

    #[test]
    fn unknown_names_are_refused_and_flags_understood() {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let line = Line::try_parse_from(["bench", "small-puts", "seal", "--quick"]).unwrap();
        assert_eq!(line.args.names, [Name::SmallPuts, Name::Seal]);
        assert!(line.args.quick);
        assert!(Line::try_parse_from(["bench", "speed"]).is_err());
        assert!(!Line::try_parse_from(["bench"]).unwrap().args.quick);
    }
}
