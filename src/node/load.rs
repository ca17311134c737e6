//! The load of this machine, sampled: CPU and memory used, smoothed.
//!
//! load = 100 · (0.5 · cpu + 0.3 · min(1, tasks / slots) + 0.2 · memory used), lower is better.

use sysinfo::System;

/// How much of a new sample enters the smoothed value: about five seconds of memory at one sample a second.
const SMOOTHING: f64 = 0.2;

/// Samples the machine.
pub struct Sampler {
    system: Option<System>,
    smoothed: Option<f64>,
    last_centi: u64,
}

impl Sampler {
    /// A sampler without samples. On a system that tells nothing the load stays 0.
    pub fn new() -> Self {
        Self { system: System::new().ok(), smoothed: None, last_centi: 0 }
    }

    /// Takes a sample; the answer is the smoothed load in hundredths of a point.
    pub fn sample(&mut self) -> u64 {
        let Some(system) = &mut self.system else { return self.last_centi };
        system.refresh_cpu_usage();
        system.refresh_memory();
        let cpu = f64::from(system.global_cpu_usage()) / 100.0;
        let total = system.total_memory().max(1) as f64;
        let memory = system.used_memory() as f64 / total;
        let now = score(cpu, 0.0, memory);
        let smoothed = self.smoothed.map_or(now, |old| old + SMOOTHING * (now - old));
        self.smoothed = Some(smoothed);
        self.last_centi = (smoothed * 100.0) as u64;
        self.last_centi
    }

    /// The last answer of [`Self::sample`].
    pub fn last(&self) -> u64 {
        self.last_centi
    }
}

impl Default for Sampler {
    fn default() -> Self {
        Self::new()
    }
}

/// The load in points from parts of 0 to 1 each; lower is better.
pub fn score(cpu: f64, tasks: f64, memory: f64) -> f64 {
    100.0 * (0.5 * cpu.clamp(0.0, 1.0) + 0.3 * tasks.clamp(0.0, 1.0) + 0.2 * memory.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_vectors_of_the_formula() {
        assert!((score(0.2, 0.2, 0.2) - 20.0).abs() < 1e-9);
        assert!((score(0.4, 0.5, 0.4) - 43.0).abs() < 1e-9);
    }

    #[test]
    fn a_sample_is_a_load() {
        let mut sampler = Sampler::new();
        assert!(sampler.sample() <= 10_000);
    }
}
