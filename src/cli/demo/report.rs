//! The demo's report: figures that were measured, and whether each promise held.

use serde::Serialize;

/// Pictures of one size class.
#[derive(Debug, Default, Serialize)]
pub struct SizeClass {
    /// `1600 px`, `2000 px`, ...
    pub class: String,
    /// Pictures.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What one node did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NodeShare {
    /// Its display name.
    pub name: String,
    /// Commits proposed there as the object's home.
    pub home_objects: u64,
    /// Bytes taken from the client.
    pub first_hop_bytes: u64,
    /// Bytes passed on to other nodes.
    pub forwarded_bytes: u64,
    /// Bodies declined.
    pub declined: u64,
    /// First-hop bytes in percent of all.
    pub share_percent: f64,
    /// The most memory that its process had, of both its lives; none where the system does not say.
    pub memory_peak_bytes: Option<u64>,
    /// It was the one killed (its figures are those of just before, and after its restart).
    pub killed: bool,
}

/// One promise and whether it held.
#[derive(Debug, Serialize)]
pub struct Check {
    /// What was promised.
    pub promise: String,
    /// What was seen.
    pub seen: String,
    /// Whether it held.
    pub held: bool,
}

/// All of it.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Seed of the pictures.
    pub seed: u64,
    /// Pictures.
    pub images: u64,
    /// Their bytes.
    pub bytes: u64,
    /// By size.
    pub classes: Vec<SizeClass>,
    /// Uploads begun.
    pub attempted: u64,
    /// Uploads acknowledged.
    pub done: u64,
    /// Uploads that failed.
    pub failed: u64,
    /// Wall time of all uploads.
    pub upload_ms: u64,
    /// Megabytes (10^6) of pictures a second.
    pub mb_per_s: f64,
    /// Uploads a second.
    pub uploads_per_s: f64,
    /// Median time of one upload.
    pub median_ms: u64,
    /// Longest time of one upload.
    pub worst_ms: u64,
    /// Bytes that the client wrote to its streams.
    pub stream_bytes: u64,
    /// Those, as a multiple of the pictures' bytes.
    pub stream_ratio: f64,
    /// Each node.
    pub nodes: Vec<NodeShare>,
    /// Standard deviation of the shares, in points of a percent.
    pub share_deviation: f64,
    /// Longest time without an acknowledged byte or commit while work was pending.
    pub longest_stall_ms: u64,
    /// From the killed node's restart until every picture had all its copies again.
    pub full_redundancy_ms: Option<u64>,
    /// Wall time of reading everything back.
    pub read_ms: u64,
    /// From the last start until all three served.
    pub ready_ms: Option<u64>,
    /// Each promise.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether every promise held.
    pub fn held(&self) -> bool {
        self.checks.iter().all(|c| c.held)
    }

    /// Notes a promise.
    pub fn check(&mut self, promise: impl Into<String>, seen: impl Into<String>, held: bool) {
        self.checks.push(Check { promise: promise.into(), seen: seen.into(), held });
    }

    /// Works out shares and their standard deviation from the first-hop bytes.
    pub fn work_out_shares(&mut self) {
        let total: u64 = self.nodes.iter().map(|n| n.first_hop_bytes).sum();
        for node in &mut self.nodes {
            node.share_percent = 100.0 * node.first_hop_bytes as f64 / total.max(1) as f64;
        }
        let count = self.nodes.len().max(1) as f64;
        let mean = 100.0 / count;
        let variance = self.nodes.iter().map(|n| (n.share_percent - mean).powi(2)).sum::<f64>() / count;
        self.share_deviation = variance.sqrt();
    }

    /// What the standard deviation says, in words.
    pub fn verdict(&self) -> &'static str {
        match self.share_deviation {
            d if d <= 5.0 => "evenly spread",
            d if d <= 15.0 => "fairly spread",
            _ => "unevenly spread (a node was away for a part of the run)",
        }
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.text_pictures(&mut out);
        self.text_uploads(&mut out);
        self.text_nodes(&mut out);
        out.push_str("\nPromises\n");
        for check in &self.checks {
            let mark = if check.held { "held  " } else { "BROKEN" };
            out.push_str(&format!("  {mark}  {}: {}\n", check.promise, check.seen));
        }
        out
    }

    fn text_pictures(&self, out: &mut String) {
        out.push_str(&format!(
            "Pictures   {} of {:.1} MB in all, seed {}\n",
            self.images,
            mb(self.bytes),
            self.seed
        ));
        for class in &self.classes {
            out.push_str(&format!(
                "  {:<12} {:>4}   {:>9.1} MB\n",
                class.class,
                class.count,
                mb(class.bytes)
            ));
        }
    }

    fn text_uploads(&self, out: &mut String) {
        out.push_str(&format!(
            "\nUploads    {} attempted, {} done, {} failed\n  {:.1} MB/s   {:.2} uploads/s   median {:.2} s   worst {:.2} s\n",
            self.attempted,
            self.done,
            self.failed,
            self.mb_per_s,
            self.uploads_per_s,
            self.median_ms as f64 / 1e3,
            self.worst_ms as f64 / 1e3,
        ));
        out.push_str(&format!(
            "  the client's streams carried {:.1} MB for {:.1} MB of pictures: {:.4} times\n",
            mb(self.stream_bytes),
            mb(self.bytes),
            self.stream_ratio
        ));
        out.push_str(&format!("  longest stall {} ms\n", self.longest_stall_ms));
        if let Some(ms) = self.ready_ms {
            out.push_str(&format!("  cluster ready {ms} ms after the last start\n"));
        }
        if let Some(ms) = self.full_redundancy_ms {
            out.push_str(&format!(
                "  full redundancy {:.2} s after the killed node's restart\n",
                ms as f64 / 1e3
            ));
        }
        out.push_str(&format!("  read back and compared in {:.2} s\n", self.read_ms as f64 / 1e3));
    }

    fn text_nodes(&self, out: &mut String) {
        out.push_str("\nNode             home of   first hop   forwarded   declined    memory   share\n");
        for node in &self.nodes {
            let bar = "#".repeat((node.share_percent / 2.5).round() as usize);
            let memory = node.memory_peak_bytes.map_or("?".into(), |bytes| format!("{:.1} MB", mb(bytes)));
            out.push_str(&format!(
                "{:<16} {:>7} {:>8.1} MB {:>8.1} MB {:>10} {memory:>9} {:>6.1} %  {bar}{}\n",
                node.name,
                node.home_objects,
                mb(node.first_hop_bytes),
                mb(node.forwarded_bytes),
                node.declined,
                node.share_percent,
                if node.killed { "  (killed)" } else { "" },
            ));
        }
        out.push_str(&format!(
            "standard deviation of the shares {:.1} points: {}\n",
            self.share_deviation,
            self.verdict()
        ));
    }
}

/// The median of some times; 0 of none.
pub fn median(mut times_ms: Vec<u64>) -> u64 {
    times_ms.sort_unstable();
    times_ms.get(times_ms.len() / 2).copied().unwrap_or(0)
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_an_even_spread_has_no_deviation() {
        let node = |bytes| NodeShare { first_hop_bytes: bytes, ..NodeShare::default() };
        let mut report = Report { nodes: vec![node(5), node(5), node(5)], ..Report::default() };
        report.work_out_shares();
        assert!(report.share_deviation < 1e-9);
        let mut uneven = Report { nodes: vec![node(10), node(0)], ..Report::default() };
        uneven.work_out_shares();
        assert!((uneven.nodes[0].share_percent - 100.0).abs() < 1e-9);
        assert!((uneven.share_deviation - 50.0).abs() < 1e-9);
    }

    #[test]
    fn one_broken_promise_is_enough() {
        let mut report = Report::default();
        report.check("a", "b", true);
        assert!(report.held());
        report.check("c", "d", false);
        assert!(!report.held());
        assert!(report.text().contains("BROKEN"));
    }

    #[test]
    fn the_median_of_few() {
        assert_eq!(median(vec![]), 0);
        assert_eq!(median(vec![3, 1, 2]), 2);
    }
}
