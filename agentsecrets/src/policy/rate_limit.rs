//! How many requests leave: so many in each period, with bursts up to the whole count, of an agent, under a
//! rule, with a secret. One atomic word holds the state of each, so that no request waits for another's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::policy::units::Rate;
use crate::types::host::Host;
use crate::types::name::{AgentName, SecretName};
use crate::types::rejection::{ErrorCode, Rejection};

/// Counts requests of one agent.
#[derive(Debug)]
pub(crate) struct Limiter {
    rate: Rate,
    of: Of,
    start: Instant,
    /// Nanoseconds from the start to the moment when all that was spent will have been earned again.
    earned: AtomicU64,
}

impl Limiter {
    /// A full allowance.
    pub(super) fn new(rate: Rate, of: Of) -> Self {
        Self { rate, of, start: Instant::now(), earned: AtomicU64::new(0) }
    }

    /// Takes one request from the allowance, or says how long it takes until there is one.
    pub(super) fn take(&self, now: Instant) -> Result<(), Duration> {
        let now = nanos(now.saturating_duration_since(self.start));
        let (period, cost) = (nanos(self.rate.period), self.cost());
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

    /// Undoes one `take`.
    fn give_back(&self) {
        self.earned.fetch_sub(self.cost(), Ordering::Relaxed);
    }

    /// The nanoseconds in which one request is earned.
    fn cost(&self) -> u64 {
        (nanos(self.rate.period) / u64::from(self.rate.count.max(1))).max(1)
    }

    /// Whether it counts the same requests by the same rate.
    pub(super) fn is_as(&self, other: &Limiter) -> bool {
        self.rate == other.rate && self.of == other.of
    }
}

/// Which of an agent's requests are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Of {
    /// All of them.
    Agent(AgentName),
    /// Those under one rule.
    Rule,
    /// Those that spend this secret.
    Secret(SecretName),
}

/// Charges each of `limiters` for one of `what` to `host`, or none of them, and says that there were too many.
pub(crate) fn charge<'a>(
    limiters: impl Iterator<Item = &'a Arc<Limiter>> + Clone,
    host: &Host,
    what: &str,
    now: Instant,
) -> Option<Rejection> {
    let (number, (limiter, wait)) = limiters
        .clone()
        .enumerate()
        .find_map(|(number, limiter)| Some((number, (limiter, limiter.take(now).err()?))))?;
    limiters.take(number).for_each(|charged| charged.give_back());
    let (wait, rate) = (wait.as_secs().saturating_add(1), limiter.rate);
    let of = match &limiter.of {
        Of::Agent(agent) => format!("of agent '{agent}'"),
        Of::Rule => format!("to '{host}'"),
        Of::Secret(name) => format!("with '{name}'"),
    };
    let (count, period) = (rate.count, rate.period.as_secs());
    let message = format!("more than {count} {what} in {period} seconds {of}; try again in {wait} seconds");
    Some(Rejection { retry_after: Some(wait), ..Rejection::new(ErrorCode::RateLimited, host, message) })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_one_at_a_time() {
        let limiter = Limiter::new(Rate { count: 3, period: Duration::from_secs(60) }, Of::Rule);
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
        let limiter = Limiter::new(Rate { count: 2, period: Duration::from_secs(1) }, Of::Rule);
        let later = limiter.start + Duration::from_secs(3_600);
        assert_eq!((0..10).filter(|_| limiter.take(later).is_ok()).count(), 2);
    }

    #[test]
    fn all_are_charged_or_none() {
        let limiter = |count, of| Arc::new(Limiter::new(Rate { count, period: Duration::from_secs(60) }, of));
        let all = [limiter(3, Of::Agent("a".parse().unwrap())), limiter(1, Of::Rule)];
        let (host, now) = ("a.net".parse().unwrap(), Instant::now());
        assert!(charge(all.iter(), &host, "requests", now).is_none());
        for _ in 0..5 {
            let refusal = charge(all.iter(), &host, "requests", now).unwrap();
            assert!(refusal.message.contains("to 'a.net'") && refusal.retry_after == Some(61), "{refusal:?}");
        }
        assert_eq!(
            (0..5).filter(|_| all[0].take(now).is_ok()).count(),
            2,
            "the rule's refusals cost nothing"
        );
        let refusal = charge(all.iter(), &host, "requests", now).unwrap();
        assert!(refusal.message.contains("of agent 'a'"), "{refusal:?}");
    }
}
