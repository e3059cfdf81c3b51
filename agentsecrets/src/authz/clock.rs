//! Until when something was given. Two clocks count: the wall's, which a person means and which a machine may
//! set anew, and one that only goes forward, from when this process first read of it. The one that ends first
//! decides, so that a wall clock which is set back gives nobody more time than was meant.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// One moment, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct ClockReading {
    /// The wall's.
    pub wall: Timestamp,
    /// The other.
    pub steady: Instant,
}

impl ClockReading {
    /// This moment.
    pub fn read() -> Self {
        Self { wall: Timestamp::now(), steady: Instant::now() }
    }
}

/// An end, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    expires: Timestamp,
    deadline: Instant,
}

impl Lease {
    /// The end of what was given at `issued` until `expires`, read of now; `passed` is how long ago that was at
    /// least, where something other than the wall's clock can tell.
    pub fn begin(issued: Timestamp, expires: Timestamp, passed: Duration, now: ClockReading) -> Self {
        let whole = between(issued, expires);
        let left = between(now.wall, expires).min(whole.saturating_sub(passed));
        // Beyond what the clock can show, the wall's decides alone.
        let deadline =
            now.steady.checked_add(left).unwrap_or(now.steady + Duration::from_secs(u32::MAX.into()));
        Self { expires, deadline }
    }

    /// The same, not beyond what `before` said of it.
    #[must_use]
    pub fn within(self, before: &Self) -> Self {
        Self { deadline: self.deadline.min(before.deadline), ..self }
    }

    /// Whether it has ended.
    pub fn is_over(&self, now: ClockReading) -> bool {
        now.wall >= self.expires || now.steady >= self.deadline
    }
}

/// From `one` to `other`, nothing where that is backward.
fn between(one: Timestamp, other: Timestamp) -> Duration {
    Duration::try_from(other.duration_since(one)).unwrap_or(Duration::ZERO)
}

/// The id of this boot. Empty if the system gives none.
pub fn boot() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    text.map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Seconds since the machine was started, sleep included.
pub fn uptime() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000_000 + second).unwrap()
    }

    proptest! {
        /// However the wall's clock is set, and however often the file is read again, nothing outlasts its ttl.
        #[test]
        fn clock_step_does_not_extend_lease(
            ttl in 1_i64..5000,
            steps in prop::collection::vec((0_u64..500, -4000_i64..4000), 1..40),
        ) {
            let begin = Instant::now();
            let (mut wall, mut passed) = (0_i64, 0_u64);
            let now = |wall: i64, passed: u64| ClockReading { wall: at(wall), steady: begin + Duration::from_secs(passed) };
            let read = |now| Lease::begin(at(0), at(ttl), Duration::ZERO, now);
            let mut lease = read(now(0, 0));
            for (goes, step) in steps {
                passed += goes;
                wall += goes as i64 + step;
                lease = read(now(wall, passed)).within(&lease);
                if passed as i64 >= ttl || wall >= ttl {
                    prop_assert!(lease.is_over(now(wall, passed)));
                }
            }
        }

        /// Without steps it lasts as long as was meant, to the second.
        #[test]
        fn lease_lasts_as_requested(ttl in 1_u64..5000, late in 0_u64..5000, after in 0_u64..6000) {
            let begin = Instant::now();
            let now = |second: u64| ClockReading { wall: at(second as i64), steady: begin + Duration::from_secs(second) };
            let lease = Lease::begin(at(0), at(ttl as i64), Duration::ZERO, now(late));
            let moment = late.max(after);
            prop_assert_eq!(lease.is_over(now(moment)), moment >= ttl);
        }

        /// A process that reads of it after the clock was set back still knows how long ago it began.
        #[test]
        fn elapsed_time_is_not_granted_again(ttl in 1_u64..5000, passed in 0_u64..6000, back in 0_i64..9000) {
            let now = ClockReading { wall: at(passed as i64 - back), steady: Instant::now() };
            let lease = Lease::begin(at(0), at(ttl as i64), Duration::from_secs(passed), now);
            let later = ClockReading { wall: now.wall, steady: now.steady + Duration::from_secs(ttl.saturating_sub(passed)) };
            prop_assert!(lease.is_over(later));
        }
    }
}
