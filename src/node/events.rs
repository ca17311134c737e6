//! Events that a person cares about, one sentence each, the last thousand kept in memory.
//!
//! For people only: nothing decides by them.

use std::{
    collections::VecDeque,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::model::{limits, rpc::EventInfo};

/// The ring of events.
#[derive(Default)]
pub struct Events {
    kept: VecDeque<EventInfo>,
    last: u64,
}

impl Events {
    /// Adds a sentence and logs it.
    pub fn say(&mut self, text: impl Into<String>) {
        let text = text.into();
        tracing::info!("{text}");
        self.last += 1;
        if self.kept.len() == limits::EVENTS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(EventInfo { number: self.last, unix_ms: unix_ms(), text });
    }

    /// Events with a number above `after`, oldest first.
    pub fn after(&self, after: u64) -> Vec<EventInfo> {
        self.kept.iter().filter(|e| e.number > after).cloned().collect()
    }
}

/// The wall clock, for display only: milliseconds since 1970.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_thousand_are_kept_and_numbers_go_on() {
        let mut events = Events::default();
        for i in 0..limits::EVENTS_KEPT + 5 {
            events.say(format!("event {i}"));
        }
        let all = events.after(0);
        assert_eq!(all.len(), limits::EVENTS_KEPT);
        assert_eq!(all[0].number, 6);
        assert_eq!(events.after(all[all.len() - 1].number), vec![]);
    }
}
