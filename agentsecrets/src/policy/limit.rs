//! A rule's `rate`: so many requests in each period, with bursts up to the whole count. One atomic word
//! holds the state, so that no request waits for another's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::scale::Rate;

/// Counts the requests of one agent under one rule.
#[derive(Debug)]
pub(super) struct Limiter {
    rate: Rate,
    start: Instant,
    /// Nanoseconds from the start to the moment when all that was spent will have been earned again.
    earned: AtomicU64,
}

impl Limiter {
    /// A full allowance.
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, start: Instant::now(), earned: AtomicU64::new(0) }
    }

    /// What it was made of.
    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes one request from the allowance, or says how long it takes until there is one.
    pub(super) fn take(&self, now: Instant) -> Result<(), Duration> {
        let now = nanos(now.saturating_duration_since(self.start));
        let period = nanos(self.rate.period);
        let cost = (period / u64::from(self.rate.count.max(1))).max(1);
        let mut earned = self.earned.load(Ordering::Relaxed);
        loop {
            let next = earned.max(now).saturating_add(cost);
            let limit = now.saturating_add(period);
            if next > limit {
                return Err(Duration::from_nanos(next - limit));
            }
            match self.earned.compare_exchange_weak(earned, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(current) => earned = current,
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_one_at_a_time() {
        let limiter = Limiter::new(Rate { count: 3, period: Duration::from_secs(60) });
        let now = limiter.start;
        for _ in 0..3 {
            limiter.take(now).unwrap();
        }
        assert_eq!(limiter.take(now), Err(Duration::from_secs(20)));
        assert!(limiter.take(now + Duration::from_secs(19)).is_err());
        limiter.take(now + Duration::from_secs(20)).unwrap();
        assert!(limiter.take(now + Duration::from_secs(20)).is_err());
    }

    #[test]
    fn a_long_pause_earns_no_more_than_one_burst() {
        let limiter = Limiter::new(Rate { count: 2, period: Duration::from_secs(1) });
        let later = limiter.start + Duration::from_secs(3_600);
        assert_eq!((0..10).filter(|_| limiter.take(later).is_ok()).count(), 2);
    }
}
