//! Rate limits of agents, rules and secrets, by the generic cell rate algorithm: bursts up to the whole count
//! of a period are allowed. Each limiter is one atomic word, so that no request waits for another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::types::host::Host;
use crate::types::name::{AgentName, SecretName};
use crate::types::rejection::{ErrorCode, Rejection};

/// A number of requests in each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    pub count: u32,
    pub period: Duration,
}

/// Limits the requests of one agent.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    rate: Rate,
    scope: LimitScope,
    start: Instant,
    /// Nanoseconds from `start` to the moment when the full allowance is available again.
    theoretical_arrival: AtomicU64,
}

impl RateLimiter {
    /// A limiter with its full allowance.
    pub(super) fn new(rate: Rate, scope: LimitScope) -> Self {
        Self { rate, scope, start: Instant::now(), theoretical_arrival: AtomicU64::new(0) }
    }

    /// Takes one request from the allowance. The error is the time until one is available.
    pub(super) fn acquire(&self, now: Instant) -> Result<(), Duration> {
        let now = nanos(now.saturating_duration_since(self.start));
        let (period, cost) = (nanos(self.rate.period), self.cost());
        let mut arrival = self.theoretical_arrival.load(Ordering::Relaxed);
        loop {
            let next = arrival.max(now).saturating_add(cost);
            let limit = now.saturating_add(period);
            if next > limit {
                return Err(Duration::from_nanos(next - limit));
            }
            match self.theoretical_arrival.compare_exchange_weak(
                arrival,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(current) => arrival = current,
            }
        }
    }

    /// Undoes one `acquire`.
    fn release(&self) {
        self.theoretical_arrival.fetch_sub(self.cost(), Ordering::Relaxed);
    }

    /// The nanoseconds after which one more request is available.
    fn cost(&self) -> u64 {
        (nanos(self.rate.period) / u64::from(self.rate.count.max(1))).max(1)
    }

    /// Whether both limit the same requests at the same rate.
    pub(super) fn has_same_limit(&self, other: &RateLimiter) -> bool {
        self.rate == other.rate && self.scope == other.scope
    }
}

/// The requests of an agent that count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LimitScope {
    /// Every request of the agent.
    Agent(AgentName),
    /// The requests that one rule allows.
    Rule,
    /// The requests that spend this secret.
    Secret(SecretName),
}

/// Charges one request to `host` to all of `limiters`, or to none and returns the rejection. `unit` is the
/// plural noun for its message.
pub(crate) fn charge<'a>(
    limiters: impl Iterator<Item = &'a Arc<RateLimiter>> + Clone,
    host: &Host,
    unit: &str,
    now: Instant,
) -> Option<Rejection> {
    let (number, (limiter, wait)) = limiters
        .clone()
        .enumerate()
        .find_map(|(number, limiter)| Some((number, (limiter, limiter.acquire(now).err()?))))?;
    limiters.take(number).for_each(|charged| charged.release());
    let (wait, rate) = (wait.as_secs().saturating_add(1), limiter.rate);
    let scope = match &limiter.scope {
        LimitScope::Agent(agent) => format!("of agent '{agent}'"),
        LimitScope::Rule => format!("to '{host}'"),
        LimitScope::Secret(name) => format!("with '{name}'"),
    };
    let (count, period) = (rate.count, rate.period.as_secs());
    let message =
        format!("more than {count} {unit} in {period} seconds {scope}; try again in {wait} seconds");
    Some(Rejection { retry_after: Some(wait), ..Rejection::new(ErrorCode::RateLimited, message) })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_one_at_a_time() {
        let limiter = RateLimiter::new(Rate { count: 3, period: Duration::from_secs(60) }, LimitScope::Rule);
        let now = limiter.start;
        for _ in 0..3 {
            limiter.acquire(now).unwrap();
        }
        assert_eq!(limiter.acquire(now), Err(Duration::from_secs(20)));
        assert!(limiter.acquire(now + Duration::from_secs(19)).is_err());
        limiter.acquire(now + Duration::from_secs(20)).unwrap();
        assert!(limiter.acquire(now + Duration::from_secs(20)).is_err());
    }

    #[test]
    fn long_pause_allows_one_burst() {
        let limiter = RateLimiter::new(Rate { count: 2, period: Duration::from_secs(1) }, LimitScope::Rule);
        let later = limiter.start + Duration::from_secs(3_600);
        assert_eq!((0..10).filter(|_| limiter.acquire(later).is_ok()).count(), 2);
    }

    #[test]
    fn all_limiters_are_charged_or_none() {
        let limiter =
            |count, scope| Arc::new(RateLimiter::new(Rate { count, period: Duration::from_secs(60) }, scope));
        let all = [limiter(3, LimitScope::Agent("a".parse().unwrap())), limiter(1, LimitScope::Rule)];
        let (host, now) = ("a.net".parse().unwrap(), Instant::now());
        assert!(charge(all.iter(), &host, "requests", now).is_none());
        for _ in 0..5 {
            let rejection = charge(all.iter(), &host, "requests", now).unwrap();
            assert!(
                rejection.message.contains("to 'a.net'") && rejection.retry_after == Some(61),
                "{rejection:?}"
            );
        }
        assert_eq!(
            (0..5).filter(|_| all[0].acquire(now).is_ok()).count(),
            2,
            "requests rejected by the rule cost nothing"
        );
        let rejection = charge(all.iter(), &host, "requests", now).unwrap();
        assert!(rejection.message.contains("of agent 'a'"), "{rejection:?}");
    }
}
