//! What has been done, how often, and how long it took.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Add,
    Del,
    Check,
    Gc,
    Kill,
    Foreign,
}

/// Something that was done: what, when in seconds from the beginning, and for how many milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub kind: Kind,
    pub at: f64,
    pub took: f64,
}

/// All of it.
pub struct Figures {
    began: Instant,
    events: Mutex<Vec<Event>>,
    /// When there was an audit, and how many faults it found.
    audits: Mutex<Vec<(f64, usize)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Figures {
    pub fn new() -> Self {
        Self { began: Instant::now(), events: Mutex::default(), audits: Mutex::default() }
    }

    /// Since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn seconds(&self) -> f64 {
        self.elapsed().as_secs_f64()
    }

    /// Notes what began then and has ended now.
    pub fn add(&self, kind: Kind, began: Instant) {
        let took = began.elapsed().as_secs_f64() * 1e3;
        lock(&self.events).push(Event { kind, at: self.seconds(), took });
    }

    /// Notes what has no duration of interest.
    pub fn count(&self, kind: Kind) {
        lock(&self.events).push(Event { kind, at: self.seconds(), took: 0.0 });
    }

    pub fn audited(&self, faults: usize) {
        lock(&self.audits).push((self.seconds(), faults));
    }

    pub fn is_empty(&self) -> bool {
        lock(&self.events).is_empty()
    }

    pub fn events(&self) -> Vec<Event> {
        lock(&self.events).clone()
    }

    pub fn audits(&self) -> Vec<(f64, usize)> {
        lock(&self.audits).clone()
    }

    /// How long calls of a kind take at this load: of the last ones, the median.
    pub fn typical(&self, kind: Kind) -> Duration {
        const LAST: usize = 50;
        let events = lock(&self.events);
        let recent = events.iter().rev().filter(|event| event.kind == kind);
        let mut took: Vec<_> = recent.take(LAST).map(|event| event.took).collect();
        took.sort_by(f64::total_cmp);
        Duration::from_secs_f64(percentile(&took, 50) / 1e3)
    }

    /// The last seconds, in a line.
    pub fn line(&self) -> String {
        const WINDOW: f64 = 5.0;
        let since = self.seconds() - WINDOW;
        let (events, audits) = (lock(&self.events), lock(&self.audits));
        let rate = |kind| {
            let recent = events.iter().rev().take_while(|event| event.at > since);
            recent.filter(|event| event.kind == kind).count() as f64 / WINDOW
        };
        let faults: usize = audits.iter().map(|(_, faults)| faults).sum();
        format!(
            "{:.0} ADD/s {:.0} DEL/s, {} audits, {faults} faults",
            rate(Kind::Add),
            rate(Kind::Del),
            audits.len()
        )
    }

    /// Prints totals and percentiles.
    pub fn print(&self) {
        let events = self.events();
        let seconds = events.last().map_or(1.0, |event| event.at);
        let kinds =
            [(Kind::Add, "ADD"), (Kind::Del, "DEL"), (Kind::Check, "CHECK"), (Kind::Gc, "GC")];
        for (kind, name) in kinds {
            let mut took: Vec<_> =
                events.iter().filter(|e| e.kind == kind).map(|e| e.took).collect();
            took.sort_by(f64::total_cmp);
            println!(
                "{name:5} {:6} calls, {:5.0}/s; ms: median {:.1}, 95 % {:.1}, 99 % {:.1}, most {:.1}",
                took.len(),
                took.len() as f64 / seconds,
                percentile(&took, 50),
                percentile(&took, 95),
                percentile(&took, 99),
                percentile(&took, 100)
            );
        }
        let count = |kind| events.iter().filter(|event| event.kind == kind).count();
        println!(
            "{} calls killed, {} of the foreign lease writers, {} audits",
            count(Kind::Kill),
            count(Kind::Foreign),
            self.audits().len()
        );
    }
}

/// Of numbers in order, the one that so many in a hundred are not above; 0 of none.
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(at).copied().unwrap_or(0.0)
}
