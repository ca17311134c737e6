//! The demo's story: start, upload, kill half way, go on, read back, restart, heal, corrupt, mend.
//!
//! Every figure of the report is measured here, and every promise is judged by what was seen.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    load::{self, StallWatch, Upload},
    nodes::Nodes,
    pictures::{Picture, SizeClass},
    place,
    report::{NodeShare, Report, SizeClass as ClassRow, median},
};
use crate::{
    api::{Connect, Vault},
    model::rpc::NodeInfo,
};

/// Uploads at once, as a person's client would do.
const UPLOADS_AT_ONCE: usize = 2;
/// The longest stall that the demo accepts around the kill.
const STALL_MS_MAX: u64 = 2000;
/// What the client may write for each byte of picture.
const STREAM_RATIO_MAX: f64 = 1.03;
/// What may be under way to the node that is killed, and goes out twice then.
const UNDER_WAY_BYTES_MAX: u64 = 8 << 20;
/// What a node's process may take in all.
const NODE_MEMORY_BYTES_MAX: u64 = 200 << 20;
/// How long full redundancy may take after the restart.
const REDUNDANCY_TIMEOUT: Duration = Duration::from_secs(180);

/// What the command line asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Pictures.
    pub images: u64,
    /// Their seed.
    pub seed: u64,
    /// Where the homes go; none = the system's temporary folder.
    pub dir: Option<PathBuf>,
    /// Leave the homes behind.
    pub keep: bool,
    /// How to reach a cluster that is up; with addresses in it the load runs there, without killing.
    pub connect: Connect,
}

/// Tells a person what is going on.
pub type Say<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Runs the demo.
///
/// # Errors
/// What keeps it from running; a promise that did not hold is in the report.
pub async fn run(options: &Options, say: Say<'_>) -> Result<Report> {
    if options.connect.nodes.is_empty() {
        on_this_machine(options, say).await
    } else {
        on_a_cluster(options, say).await
    }
}

/// The load alone, on a cluster that is up.
async fn on_a_cluster(options: &Options, say: Say<'_>) -> Result<Report> {
    let vault = Vault::open(options.connect.clone()).await?;
    let before = vault.nodes().await?;
    let mut report = Report { seed: options.seed, images: options.images, ..Report::default() };
    let uploads = upload_all(options, &vault, say, &mut |_| Ok(())).await?;
    fill_uploads(&mut report, &uploads, &vault);
    read_all(&mut report, &uploads, &vault, say).await;
    report.nodes = shares(&vault.nodes().await?, Some(&before), None);
    report.work_out_shares();
    vault.close().await;
    Ok(report)
}

/// Three nodes here, and all that a bad day brings.
async fn on_this_machine(options: &Options, say: Say<'_>) -> Result<Report> {
    let pictures = all_pictures(options);
    let bytes: u64 = pictures.iter().map(Picture::png_bytes).sum();
    let dir = place::choose(options.dir.as_deref(), place::room_of_pictures(bytes))?;
    let _tidy = (!options.keep).then(|| place::RemoveAtEnd(dir.clone()));
    say(&format!("three nodes under {}", dir.display()));
    let (mut nodes, client_home) = Nodes::prepare(&std::env::current_exe()?, &dir, 3)?;
    let ready = nodes.start_all()?;
    let mut report = Report { seed: options.seed, images: options.images, ..Report::default() };
    report.ready_ms = Some(millis(ready));
    say(&format!("ready in {} ms", millis(ready)));
    let connect = Connect { home: client_home, nodes: nodes.addresses(), ..Connect::default() };
    let vault = Vault::open(connect).await?;

    let mut killed: Option<(usize, Vec<NodeInfo>)> = None;
    let mut memory_before_kill = None;
    let uploads = upload_all(options, &vault, say, &mut |last_seen: &[NodeInfo]| {
        let talking_to = vault.talking_to().context("the client talks to no node")?.to_string();
        let index = nodes.all.iter().position(|n| n.peer == talking_to).context("an unknown node")?;
        memory_before_kill = nodes.memory_peak_bytes(index);
        nodes.kill(index)?;
        say(&format!("killed {} (SIGKILL), the node that the client was talking to", nodes.all[index].name));
        killed = Some((index, last_seen.to_vec()));
        Ok(())
    })
    .await?;
    fill_uploads(&mut report, &uploads, &vault);
    let stream = format!("{:.4} times the pictures' bytes", report.stream_ratio);
    report.check(
        "the client sends each picture once (at most 1.03 times, or the 8 MiB that may be under way to the \
         node that is killed)",
        stream,
        report.stream_bytes <= stream_bytes_allowed(report.bytes),
    );
    let stall = format!("longest {} ms", report.longest_stall_ms);
    report.check("no stall of more than 2 s around the kill", stall, report.longest_stall_ms <= STALL_MS_MAX);
    read_all(&mut report, &uploads, &vault, say).await;

    let Some((index, before_kill)) = killed else { bail!("no node was killed: the load ended too early") };
    restart_and_heal(&mut report, &mut nodes, index, &uploads, &vault, say).await?;
    corrupt_and_mend(&mut report, &nodes, &vault, say).await?;
    report.nodes = shares(&vault.nodes().await?, None, Some((&nodes.all[index].peer, &before_kill)));
    report.work_out_shares();
    judge_memory(&mut report, &nodes, (index, memory_before_kill));
    vault.close().await;
    Ok(report)
}

/// What the client's streams may carry for so many bytes of pictures: of few pictures what was under way when
/// the node died is more than a few percent.
fn stream_bytes_allowed(bytes: u64) -> u64 {
    let by_ratio = (bytes as f64 * STREAM_RATIO_MAX) as u64;
    by_ratio.max(bytes + UNDER_WAY_BYTES_MAX)
}

/// Notes each node's memory; that of the killed one is the larger of its two lives'.
fn judge_memory(report: &mut Report, nodes: &Nodes, before_kill: (usize, Option<u64>)) {
    for (index, node) in nodes.all.iter().enumerate() {
        let earlier = before_kill.1.filter(|_| before_kill.0 == index);
        let peak = nodes.memory_peak_bytes(index).max(earlier);
        report
            .nodes
            .iter_mut()
            .filter(|share| share.name == node.name)
            .for_each(|share| share.memory_peak_bytes = peak);
    }
    // Where the system does not say, nothing is promised.
    if let Some(most) = report.nodes.iter().filter_map(|node| node.memory_peak_bytes).max() {
        let seen = format!("at most {:.0} MiB", most as f64 / f64::from(1 << 20));
        report.check("a node takes no more than 200 MiB of memory", seen, most <= NODE_MEMORY_BYTES_MAX);
    }
}

fn all_pictures(options: &Options) -> Vec<Picture> {
    (0..options.images).map(|index| Picture::new(options.seed, index)).collect()
}

/// Uploads everything, two at once; `half_way` is called once in the middle of the load.
async fn upload_all(
    options: &Options,
    vault: &Vault,
    say: Say<'_>,
    half_way: &mut (dyn FnMut(&[NodeInfo]) -> Result<()> + Send),
) -> Result<Uploads> {
    let pictures = all_pictures(options);
    let total: u64 = pictures.iter().map(Picture::png_bytes).sum();
    let moved = AtomicU64::new(0);
    let reached_half = AtomicBool::new(false);
    let watch = StallWatch::start();
    let started = Instant::now();
    let stream_before = vault.stream_bytes_written();
    let uploading = Uploading { vault, watch: &watch, moved: &moved };
    let mut uploads = {
        let run = uploading.all(&pictures);
        tokio::pin!(run);
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let mut last_seen = Vec::new();
        let mut told = 0;
        loop {
            tokio::select! {
                uploads = &mut run => break uploads,
                _ = tick.tick() => {
                    let done = moved.load(Ordering::Relaxed);
                    if let Some(percent) = (done * 100).checked_div(total)
                        && percent >= told + 10
                    {
                        told = percent - percent % 10;
                        say(&format!("uploaded {told} %"));
                    }
                    if !reached_half.load(Ordering::Relaxed) {
                        if done * 2 >= total {
                            reached_half.store(true, Ordering::Relaxed);
                            half_way(&last_seen)?;
                        } else if let Ok(Ok(seen)) =
                            tokio::time::timeout(Duration::from_millis(300), vault.nodes()).await
                        {
                            last_seen = seen;
                        }
                    }
                }
            }
        }
    };
    uploads.sort_by_key(|u| u.picture.index);
    Ok(Uploads {
        all: uploads,
        took: started.elapsed(),
        longest_stall_ms: watch.longest_ms(),
        stream_bytes: vault.stream_bytes_written() - stream_before,
    })
}

/// All uploads of a run.
struct Uploads {
    all: Vec<Upload>,
    took: Duration,
    longest_stall_ms: u64,
    stream_bytes: u64,
}

/// What every upload of a run shares.
struct Uploading<'a> {
    vault: &'a Vault,
    watch: &'a StallWatch,
    moved: &'a AtomicU64,
}

impl Uploading<'_> {
    async fn all(&self, pictures: &[Picture]) -> Vec<Upload> {
        let next = AtomicU64::new(0);
        let workers = (0..UPLOADS_AT_ONCE).map(|_| self.worker(pictures, &next));
        futures::future::join_all(workers).await.into_iter().flatten().collect()
    }

    async fn worker(&self, pictures: &[Picture], next: &AtomicU64) -> Vec<Upload> {
        let mut done = Vec::new();
        while let Some(picture) = pictures.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            let bytes = load::make(*picture).await;
            let on_bytes = |n| {
                self.moved.fetch_add(n, Ordering::Relaxed);
            };
            done.push(load::upload(self.vault, *picture, Arc::clone(&bytes), self.watch, &on_bytes).await);
        }
        done
    }
}

fn fill_uploads(report: &mut Report, uploads: &Uploads, _vault: &Vault) {
    let ok: Vec<&Upload> = uploads.all.iter().filter(|u| u.result.is_ok()).collect();
    report.bytes = uploads.all.iter().map(|u| u.bytes).sum();
    report.classes = SizeClass::ALL
        .iter()
        .map(|class| {
            let of: Vec<u64> =
                uploads.all.iter().filter(|u| u.picture.class() == *class).map(|u| u.bytes).collect();
            ClassRow { class: class.label().into(), count: of.len() as u64, bytes: of.iter().sum() }
        })
        .collect();
    report.attempted = uploads.all.len() as u64;
    report.done = ok.len() as u64;
    report.failed = report.attempted - report.done;
    report.upload_ms = millis(uploads.took);
    let seconds = uploads.took.as_secs_f64().max(1e-3);
    report.mb_per_s = report.bytes as f64 / 1e6 / seconds;
    report.uploads_per_s = report.done as f64 / seconds;
    report.median_ms = median(uploads.all.iter().map(|u| millis(u.took)).collect());
    report.worst_ms = uploads.all.iter().map(|u| millis(u.took)).max().unwrap_or(0);
    report.stream_bytes = uploads.stream_bytes;
    report.stream_ratio = uploads.stream_bytes as f64 / report.bytes.max(1) as f64;
    report.longest_stall_ms = uploads.longest_stall_ms;
    let first_failure = uploads.all.iter().find_map(|u| u.result.as_ref().err());
    let seen =
        first_failure.map_or_else(|| format!("{} of {}", report.done, report.attempted), ToString::to_string);
    report.check("every upload is acknowledged", seen, report.failed == 0);
    let survive = ok.iter().filter(|u| u.result.as_ref().is_ok_and(|done| done.survives >= 1)).count() as u64;
    let seen = format!("{survive} of {} said so", report.done);
    report.check("each survives the loss of a machine", seen, survive == report.done);
}

async fn read_all(report: &mut Report, uploads: &Uploads, vault: &Vault, say: Say<'_>) {
    say("reading everything back");
    let started = Instant::now();
    let mut wrong = Vec::new();
    let mut same = 0;
    for upload in uploads.all.iter().filter(|u| u.result.is_ok()) {
        match load::read_back(vault, upload.picture).await {
            Ok(_) => same += 1,
            Err(sentence) => wrong.push(sentence),
        }
    }
    report.read_ms = millis(started.elapsed());
    let seen = wrong.first().cloned().unwrap_or_else(|| format!("{same} pictures, every byte"));
    report.check("every picture comes back byte for byte", seen, wrong.is_empty() && same == report.done);
}

/// Restarts the killed node and waits until every picture has all its copies.
async fn restart_and_heal(
    report: &mut Report,
    nodes: &mut Nodes,
    index: usize,
    uploads: &Uploads,
    vault: &Vault,
    say: Say<'_>,
) -> Result<()> {
    say(&format!("restarting {}", nodes.all[index].name));
    let started = Instant::now();
    nodes.restart(index)?;
    let mut pending: Vec<String> =
        uploads.all.iter().filter(|u| u.result.is_ok()).map(|u| u.picture.name()).collect();
    while started.elapsed() < REDUNDANCY_TIMEOUT {
        while let Some(name) = pending.last() {
            if !vault.where_is(name).await.is_ok_and(|w| w.fewest_copies >= 3) {
                break;
            }
            pending.pop();
        }
        if pending.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if pending.is_empty() {
        report.full_redundancy_ms = Some(millis(started.elapsed()));
    }
    let seen = match report.full_redundancy_ms {
        Some(ms) => format!("three copies of everything {:.1} s after the restart", ms as f64 / 1e3),
        None => {
            format!("{} pictures still lacked a copy after {} s", pending.len(), REDUNDANCY_TIMEOUT.as_secs())
        }
    };
    report.check("the restarted node is whole again", seen, pending.is_empty());
    Ok(())
}

/// Flips a byte of one stored chunk behind the node's back; `verify` must find and mend it.
async fn corrupt_and_mend(report: &mut Report, nodes: &Nodes, vault: &Vault, say: Say<'_>) -> Result<()> {
    let file = place::flip_a_byte(&nodes.all[0].home.join("data/chunks"))?;
    say(&format!("flipped one byte of {}", file.file_name().unwrap_or_default().to_string_lossy()));
    let first = vault.verify(&[], &|_| ()).await?;
    let second = vault.verify(&[], &|_| ()).await?;
    let seen = format!("{} bad found, {} mended; read again: {} bad", first.bad, first.mended, second.bad);
    let held = first.bad == 1 && first.mended == 1 && second.bad == 0 && first.lost == 0 && second.lost == 0;
    report.check("`verify` finds a corrupt chunk and mends it", seen, held);
    Ok(())
}

/// Each node's figures; those of the killed node are added up over its two lives.
fn shares(
    now: &[NodeInfo],
    before: Option<&[NodeInfo]>,
    killed: Option<(&str, &[NodeInfo])>,
) -> Vec<NodeShare> {
    let of = |infos: &[NodeInfo], peer: &crate::model::PeerId| {
        infos.iter().find(|i| i.peer == *peer).and_then(|i| i.counters.clone()).unwrap_or_default()
    };
    now.iter()
        .map(|info| {
            let counters = of(now, &info.peer);
            let earlier = before.map(|b| of(b, &info.peer)).unwrap_or_default();
            let was_killed = killed.is_some_and(|(peer, _)| *peer == info.peer.to_string());
            let first_life = match killed {
                Some((_, infos)) if was_killed => of(infos, &info.peer),
                _ => Default::default(),
            };
            let sum = |now: u64, first: u64, earlier: u64| (now + first).saturating_sub(earlier);
            NodeShare {
                name: info.name.clone(),
                home_objects: sum(counters.home_commits, first_life.home_commits, earlier.home_commits),
                first_hop_bytes: sum(
                    counters.first_hop_bytes,
                    first_life.first_hop_bytes,
                    earlier.first_hop_bytes,
                ),
                forwarded_bytes: sum(
                    counters.forwarded_bytes,
                    first_life.forwarded_bytes,
                    earlier.forwarded_bytes,
                ),
                declined: sum(counters.declined, first_life.declined, earlier.declined),
                share_percent: 0.0,
                memory_peak_bytes: None,
                killed: was_killed,
            }
        })
        .collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_pictures_may_be_sent_again_by_what_was_under_way_and_many_by_a_part_of_them() {
        assert_eq!(stream_bytes_allowed(0), 8 << 20);
        assert_eq!(stream_bytes_allowed(100 << 20), 108 << 20);
        assert_eq!(stream_bytes_allowed(1000 << 20), 1030 << 20);
    }
}
