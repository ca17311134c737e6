//! The load of this machine: CPU and memory used, sampled and smoothed, and the tasks in hand as they are.
//!
//! load = 100 · (0.5 · cpu + 0.3 · min(1, tasks / slots) + 0.2 · memory used), lower is better.

use sysinfo::System;

/// How much of a new sample enters the smoothed value: about five seconds of memory at one sample a second.
const SMOOTHING: f64 = 0.2;

/// Samples the machine.
pub struct Sampler {
    system: Option<System>,
    /// CPU and memory.
    smoothed: Option<f64>,
    added_points: f64,
    last_centi: u64,
}

impl Sampler {
    /// A sampler without samples. On a system that tells nothing the load stays 0.
    /// `added_points` are added to every load.
    pub fn new(added_points: u8) -> Self {
        let added_points = f64::from(added_points);
        Self { system: System::new().ok(), smoothed: None, added_points, last_centi: 0 }
    }

    /// Takes a sample of the machine.
    pub fn sample(&mut self) {
        let Some(system) = &mut self.system else { return };
        system.refresh_cpu_usage();
        system.refresh_memory();
        let cpu = f64::from(system.global_cpu_usage()) / 100.0;
        let total = system.total_memory().max(1) as f64;
        let memory = system.used_memory() as f64 / total;
        let now = score(cpu, 0.0, memory);
        let smoothed = self.smoothed.map_or(now, |old| old + SMOOTHING * (now - old));
        self.smoothed = Some(smoothed);
    }

    /// The load with so many tasks in hand, in hundredths of a point.
    pub fn load(&mut self, tasks: u64, slots: u64) -> u64 {
        let tasks = tasks as f64 / slots.max(1) as f64;
        let points = self.smoothed.unwrap_or(0.0) + score(0.0, tasks, 0.0) + self.added_points;
        self.last_centi = (points.clamp(0.0, 100.0) * 100.0) as u64;
        self.last_centi
    }

    /// The last answer of [`Self::load`].
    pub fn last(&self) -> u64 {
        self.last_centi
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
        let mut sampler = Sampler::new(0);
        sampler.sample();
        let idle = sampler.load(0, 4);
        assert!(idle <= 7_000, "CPU and memory are 70 points");
        assert_eq!((sampler.load(2, 4), sampler.last()), (idle + 1500, idle + 1500));
        assert_eq!(sampler.load(9, 4), idle + 3000);
        let mut spared = Sampler::new(40);
        assert_eq!((spared.load(0, 4), spared.load(4, 4)), (4000, 7000));
        assert_eq!(Sampler::new(255).load(0, 0), 10_000);
    }
}
