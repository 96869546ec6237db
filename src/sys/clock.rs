//! The clock that leases run by: it goes on while the machine sleeps, and nobody can set it (clock_gettime(2),
//! `CLOCK_BOOTTIME`).

use std::ops::{Add, Sub};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A point in time, since the machine was started.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Time(Duration);

impl Time {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        // The clock is there since Linux 2.6.39.
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Self::default(), |time| Self(time.into()))
    }

    /// So long after the start.
    #[must_use]
    pub const fn after_boot(passed: Duration) -> Self {
        Self(passed)
    }

    /// How long after the start it is.
    #[must_use]
    pub const fn since_boot(self) -> Duration {
        self.0
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    /// So much later; a time beyond all times is the last one.
    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }
}

impl Sub for Time {
    type Output = Duration;

    /// How much later this is than `earlier`; nothing if it is not.
    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}
