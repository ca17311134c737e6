//! One progress bar for all objects of a command.
//!
//! It is on stderr, only on a terminal, and it is gone when the command is done.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::Output;
use crate::api::Progress;

/// Drawn this often at most.
const DRAWS_PER_SECOND: u8 = 10;

/// Sums the progress of several transfers. Dropping it takes the bar away.
pub struct Meter {
    bar: Option<ProgressBar>,
    output: Output,
}

/// The progress of one transfer within a [`Meter`].
pub struct Part<'a> {
    meter: &'a Meter,
    done: AtomicU64,
    // What this transfer has added to the meter's length so far.
    expected: AtomicU64,
}

impl Meter {
    /// A meter of transfers; `bytes` are those known beforehand.
    pub fn new(output: &Output, verb: &'static str, bytes: u64) -> Self {
        let bar = output.wants_bars().then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
            let bar = ProgressBar::with_draw_target(Some(bytes), target).with_message(verb);
            bar.set_style(style());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        output.set_bar(bar.clone());
        Self { bar, output: output.clone() }
    }

    /// One transfer; `expected` is what of it is already counted in the meter's bytes.
    pub fn part(&self, expected: u64) -> Part<'_> {
        Part { meter: self, done: AtomicU64::new(0), expected: AtomicU64::new(expected) }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.output.set_bar(None);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Part<'_> {
    /// Takes news of the transfer.
    pub fn update(&self, progress: Progress) {
        let Some(bar) = &self.meter.bar else { return };
        if let Some(total) = progress.bytes_total {
            let before = self.expected.swap(total, Ordering::Relaxed);
            bar.inc_length(total.saturating_sub(before));
        }
        let before = self.done.fetch_max(progress.bytes_done, Ordering::Relaxed);
        bar.inc(progress.bytes_done.saturating_sub(before));
    }

    /// It has ended, well or not: what it had to do is no longer awaited.
    pub fn end(&self) {
        let Some(bar) = &self.meter.bar else { return };
        let expected = self.expected.load(Ordering::Relaxed);
        let before = self.done.fetch_max(expected, Ordering::Relaxed);
        bar.inc(expected.saturating_sub(before));
    }
}

/// What is waited for, in one line on a terminal that changes. Dropping it takes the line away.
pub struct Spinner {
    bar: Option<ProgressBar>,
    output: Output,
    whose: String,
}

impl Spinner {
    /// A line about this.
    pub fn new(output: &Output, whose: &str) -> Self {
        let bar = output.wants_bars().then(|| {
            let bar = waiting_bar(ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        output.set_bar(bar.clone());
        Self { bar, output: output.clone(), whose: whose.to_owned() }
    }

    /// It waits for this now.
    pub fn say(&self, waiting: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(super::text::sanitised(&format!("{}: {waiting}", self.whose)));
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.output.set_bar(None);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Words, and a sign that it goes on. What a bar is without a style has no place for words.
fn waiting_bar(target: ProgressDrawTarget) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {wide_msg}");
    ProgressBar::with_draw_target(None, target)
        .with_style(style.expect("the template is a constant that a test renders"))
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}",
    )
    .expect("the template is a constant that a test renders")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is drawn, and nothing of how the cursor moves.
    #[derive(Clone, Debug, Default)]
    struct Screen(std::sync::Arc<std::sync::Mutex<String>>);

    impl indicatif::TermLike for Screen {
        fn width(&self) -> u16 {
            60
        }
        fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn write_line(&self, line: &str) -> std::io::Result<()> {
            self.write_str(line)
        }
        fn write_str(&self, text: &str) -> std::io::Result<()> {
            self.0.lock().expect("nobody failed").push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> std::io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_waited_for_is_in_the_line() {
        let screen = Screen::default();
        let bar = waiting_bar(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        let spinner =
            Spinner { bar: Some(bar.clone()), output: Output::new(false, true), whose: "a.png".into() };
        spinner.say("attic works on it");
        bar.tick();
        let drawn = screen.0.lock().expect("nobody failed").clone();
        assert!(drawn.contains("a.png: attic works on it"), "{drawn:?}");
    }

    #[test]
    fn a_meter_sums_its_parts_and_never_goes_back() {
        let bar = ProgressBar::hidden();
        bar.set_length(100);
        bar.set_style(style());
        let meter = Meter { bar: Some(bar.clone()), output: Output::new(false, true) };
        let (one, two) = (meter.part(60), meter.part(40));
        one.update(Progress { bytes_done: 50, bytes_total: Some(60) });
        one.update(Progress { bytes_done: 30, bytes_total: Some(60) });
        two.update(Progress { bytes_done: 10, bytes_total: Some(90) });
        assert_eq!((bar.position(), bar.length()), (60, Some(150)));
        one.end();
        two.end();
        assert_eq!(bar.position(), 150);
    }
}
