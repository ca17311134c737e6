//! `tintype doctor`: checks this machine and its network, and explains what it finds with what to do about
//! it.
//!
//! It changes nothing: the one file that it writes, to measure the disk, is gone before it answers. A check
//! that cannot be made here says so and is no finding.

mod machine;
mod network;

use serde::Serialize;

use super::{
    context::{Context, now_unix_ms},
    problem::{Halt, Outcome},
    text,
};
use crate::{
    api::{Exit, Problem, Status},
    model::config::Port,
    model::limits,
    net::transport::cipher_in_words,
};

/// Clocks that differ by less are the same to a person who reads dates.
const CLOCK_DIFFERENCE_MS_MAX: u64 = 5_000;

/// `doctor`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// All is well.
    Good,
    /// Worth knowing; perhaps nothing is wrong.
    Hint,
    /// Something is wrong.
    Finding,
}

/// What one check has to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Report {
    check: &'static str,
    verdict: Verdict,
    text: String,
    remedy: String,
}

impl Report {
    fn good(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Good, text: text.into(), remedy: String::new() }
    }

    fn hint(check: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Hint, text: text.into(), remedy: remedy.into() }
    }

    fn finding(check: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Finding, text: text.into(), remedy: remedy.into() }
    }
}

/// Runs every check.
///
/// # Errors
/// As stdout says.
pub async fn run(_: &Args, context: &Context) -> Outcome {
    let status = ask_the_vault(context).await;
    let mut reports = Vec::new();
    let (port, node_runs_here) = port(context, status.is_ok())?;
    reports.push(network::port(context.config.config.node.listen, port, node_runs_here));
    reports.push(network::firewall(port));
    let knobs = &context.config.config.network;
    reports.push(network::multicast(knobs.mdns));
    reports.extend(network::udp_buffers(knobs.udp_buffer.0));
    reports.push(Report::good("cipher", cipher_in_words(knobs.cipher)));
    reports.push(machine::descriptors());
    reports.extend(disk(context).await);
    match &status {
        Ok(status) => reports.extend(of_vault(status)),
        Err(problem) => reports.push(no_vault(problem, context)?),
    }
    tell(&reports, context)
}

async fn ask_the_vault(context: &Context) -> Result<Status, Problem> {
    let vault = match context.vault().await {
        Ok(vault) => vault,
        Err(Halt::Problem(problem)) => return Err(problem),
        Err(Halt::ReaderGone) => return Err(Problem::failed("nobody reads the answers", "")),
    };
    vault.status().await
}

/// The port that matters, and whether our own node has it.
fn port(context: &Context, vault_answers: bool) -> Result<(u16, bool), Halt> {
    let running = context.home.node_addr()?.filter(|_| vault_answers);
    let of_running =
        running.as_ref().and_then(|node| node.addrs.iter().find_map(|addr| network::udp_port(addr)));
    let configured = match context.config.config.node.port {
        Port::Given(port) => port,
        Port::Auto | Port::Free => limits::DEFAULT_PORT,
    };
    Ok((of_running.unwrap_or(configured), of_running.is_some()))
}

async fn disk(context: &Context) -> Vec<Report> {
    let (home, reserve) = (context.home.clone(), context.config.config.node.reserve.0);
    let checked = tokio::task::spawn_blocking(move || machine::disk(&home, reserve)).await;
    checked.unwrap_or_else(|_| vec![Report::hint("disk", "the disk could not be checked", "run it again")])
}

fn of_vault(status: &Status) -> Vec<Report> {
    let mut reports: Vec<Report> = Vec::new();
    let copy =
        "if it should belong to this vault, copy keys/cluster.key from here to it before its first start";
    reports.extend(status.info.foreign.iter().map(|text| Report::finding("other key", text, copy)));
    reports.extend(
        status.info.warnings.iter().map(|text| Report::finding("node", text, "see `tintype status`")),
    );
    let apart = now_unix_ms().abs_diff(status.info.clock_unix_ms);
    reports.push(match apart <= CLOCK_DIFFERENCE_MS_MAX {
        true => Report::good("clock", format!("this one and the node's differ by {}", text::duration(apart))),
        false => Report::finding(
            "clock",
            format!("this one and the node's differ by {}: dates will be wrong", text::duration(apart)),
            "turn on network time on both (`timedatectl set-ntp true`); nothing but dates depends on it",
        ),
    });
    reports
}

/// No node answers. That is a finding only where one was started.
fn no_vault(problem: &Problem, context: &Context) -> Result<Report, Halt> {
    let text = format!("no node answers: {}", problem.error);
    Ok(match context.home.node_addr()? {
        Some(_) => Report::finding(
            "node",
            format!("{text}, though one was started here"),
            "start it again with `tintype up`",
        ),
        None => {
            Report::hint("node", text, "start one with `tintype up`; clocks and other keys were not checked")
        }
    })
}

fn tell(reports: &[Report], context: &Context) -> Outcome {
    let findings = reports.iter().filter(|report| report.verdict == Verdict::Finding).count() as u64;
    for report in reports {
        if context.output.json() {
            context.output.object(report)?;
        } else {
            context.output.lines(lines(report))?;
        }
    }
    context.output.talk(&match findings {
        0 => "Nothing to mend was found.".into(),
        number => format!("{} to mend.", text::count(number, "thing", "things")),
    });
    Ok(if findings == 0 { Exit::Done } else { Exit::Findings })
}

fn lines(report: &Report) -> Vec<String> {
    let mark = match report.verdict {
        Verdict::Good => "ok  ",
        Verdict::Hint => "note",
        Verdict::Finding => "MEND",
    };
    let mut lines = vec![format!("{mark}  {}: {}", report.check, report.text)];
    lines.extend(report.remedy.lines().map(|line| format!("      {line}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_its_remedy_below() {
        let report = Report::finding("disk", "full", "make room\nor move");
        assert_eq!(lines(&report), ["MEND  disk: full", "      make room", "      or move"]);
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["verdict"], "finding");
    }
}
