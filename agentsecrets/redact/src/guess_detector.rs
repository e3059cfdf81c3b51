//! Detects an agent that guesses. An agent that makes a server repeat guesses learns from the marker when one
//! is right. Pieces shorter than a marker replaces tell nothing; longer ones are counted here by agent and
//! host. After several in a short time there is an alarm in the log and in the record, and the host is closed
//! to the agent for a while.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use agentsecrets_types::name::AgentName;
use agentsecrets_types::rejection::{ErrorCode, Rejection};
use agentsecrets_types::sync::MutexExt;

/// Responses with a piece of a secret, within [`PERIOD`], that raise the alarm.
const ALARM_THRESHOLD: u32 = 16;
/// Pieces are counted over this time.
const PERIOD: Duration = Duration::from_secs(600);
/// An alarm closes the host for this time.
const CLOSED_FOR: Duration = Duration::from_secs(600);
/// Upper bound on the pairs of agent and host that are counted at once.
const MAX_TRACKED_PAIRS: usize = 1024;

/// Counts pieces of secrets in responses, by agent and host.
#[derive(Default)]
pub struct GuessDetector(Mutex<HashMap<(AgentName, String), Count>>);

#[derive(Clone, Copy)]
struct Count {
    since: Instant,
    pieces: u32,
    closed: Option<Instant>,
}

impl Count {
    fn is_over(&self, now: Instant) -> bool {
        match self.closed {
            Some(closed) => now.saturating_duration_since(closed) >= CLOSED_FOR,
            None => now.saturating_duration_since(self.since) >= PERIOD,
        }
    }
}

impl GuessDetector {
    /// Refused with `redaction_limit` while `domain` is closed to `agent`.
    pub fn check(&self, agent: &AgentName, domain: &impl ToString) -> Result<(), Rejection> {
        self.check_at(agent, domain.to_string(), Instant::now())
    }

    /// The counter for responses of `domain` to `agent`.
    pub fn counter(self: &Arc<Self>, agent: &AgentName, domain: &impl ToString) -> GuessCounter {
        GuessCounter { detector: self.clone(), agent: agent.clone(), domain: domain.to_string() }
    }

    fn check_at(&self, agent: &AgentName, domain: String, now: Instant) -> Result<(), Rejection> {
        let counts = self.0.lock_ignoring_poison();
        let key = (agent.clone(), domain);
        let closed = counts.get(&key).filter(|count| !count.is_over(now)).and_then(|count| count.closed);
        let Some(closed) = closed else { return Ok(()) };
        let left = CLOSED_FOR.saturating_sub(now.saturating_duration_since(closed)).as_secs() + 1;
        let message = format!(
            "'{}' repeated pieces of a secret {ALARM_THRESHOLD} times within {} minutes, as it does to somebody who guesses; \
             it is closed to this agent for {left} more seconds",
            key.1,
            PERIOD.as_secs() / 60,
        );
        Err(Rejection::new(ErrorCode::RedactionLimit, message))
    }

    /// Counts one more; whether it raises the alarm.
    fn count(&self, agent: &AgentName, domain: &str, now: Instant) -> bool {
        let mut counts = self.0.lock_ignoring_poison();
        let key = (agent.clone(), domain.to_owned());
        if counts.len() >= MAX_TRACKED_PAIRS && !counts.contains_key(&key) {
            counts.retain(|_, count| !count.is_over(now));
            let oldest = counts.iter().filter(|(_, count)| count.closed.is_none());
            let oldest = oldest.min_by_key(|(_, count)| count.since).map(|(key, _)| key.clone());
            match oldest {
                Some(oldest) if counts.len() >= MAX_TRACKED_PAIRS => drop(counts.remove(&oldest)),
                None if counts.len() >= MAX_TRACKED_PAIRS => return false,
                _ => {}
            }
        }
        let fresh = Count { since: now, pieces: 0, closed: None };
        let count = counts.entry(key).or_insert(fresh);
        if count.is_over(now) {
            *count = fresh;
        }
        count.pieces += 1;
        let raises = count.pieces >= ALARM_THRESHOLD && count.closed.is_none();
        if raises {
            count.closed = Some(now);
        }
        raises
    }
}

/// Counts for one agent and host.
#[derive(Clone)]
pub struct GuessCounter {
    detector: Arc<GuessDetector>,
    agent: AgentName,
    domain: String,
}

/// The report in a response; final once its body has ended.
#[derive(Clone, Default)]
pub struct RedactionReport(Arc<ReportState>);

#[derive(Default)]
struct ReportState {
    redacted: AtomicBool,
    has_piece: AtomicBool,
    counter: Option<GuessCounter>,
    alarm: OnceLock<String>,
}

impl RedactionReport {
    pub(super) fn counted_by(counter: Option<GuessCounter>) -> Self {
        Self(Arc::new(ReportState { counter, ..ReportState::default() }))
    }

    /// Whether anything was taken out so far.
    pub fn redacted(&self) -> bool {
        self.0.redacted.load(Ordering::Acquire)
    }

    /// The alarm that this answer raised, for its record.
    pub fn alarm(&self) -> Option<String> {
        self.0.alarm.get().cloned()
    }

    /// Something was taken out. A piece counts once an answer.
    pub(super) fn found(&self, has_piece: bool) {
        self.0.redacted.store(true, Ordering::Release);
        if has_piece && !self.0.has_piece.swap(true, Ordering::AcqRel) {
            self.count();
        }
    }

    /// Another message of a conversation begins, whose pieces count anew. Whether the conversation may go on.
    pub(super) fn next_message(&self) -> bool {
        self.0.has_piece.store(false, Ordering::Release);
        let Some(counter) = &self.0.counter else { return true };
        counter.detector.check(&counter.agent, &counter.domain).is_ok()
    }

    fn count(&self) {
        let Some(counter) = &self.0.counter else { return };
        if !counter.detector.count(&counter.agent, &counter.domain, Instant::now()) {
            return;
        }
        let (agent, domain) = (counter.agent.as_str(), &counter.domain);
        tracing::warn!(
            agent,
            domain,
            "pieces of a secret came back {ALARM_THRESHOLD} times: is somebody guessing it?"
        );
        let _ = self
            .0
            .alarm
            .set(format!("redaction_alarm: pieces of a secret came back {ALARM_THRESHOLD} times"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> AgentName {
        "coder".parse().unwrap()
    }

    #[test]
    fn alarm_closes_host_once() {
        let detector = GuessDetector::default();
        let start = Instant::now();
        for _ in 1..ALARM_THRESHOLD {
            assert!(!detector.count(&agent(), "api.test", start));
        }
        let check = |domain: &str, now| detector.check_at(&agent(), domain.to_owned(), now);
        check("api.test", start).unwrap();
        assert!(detector.count(&agent(), "api.test", start));
        assert!(!detector.count(&agent(), "api.test", start));
        let refusal = check("api.test", start).unwrap_err();
        assert_eq!((refusal.code.as_str(), refusal.code.status()), ("redaction_limit", 429));
        check("other.test", start).unwrap();
        detector.check_at(&"other".parse().unwrap(), "api.test".to_owned(), start).unwrap();
        check("api.test", start + CLOSED_FOR).unwrap();
        assert!(!detector.count(&agent(), "api.test", start + CLOSED_FOR), "it begins anew");
    }

    #[test]
    fn occasional_piece_raises_no_alarm() {
        let detector = GuessDetector::default();
        let start = Instant::now();
        assert!((0..100).all(|at| !detector.count(
            &agent(),
            "api.test",
            start + at * PERIOD / (ALARM_THRESHOLD - 1)
        )));
    }

    #[test]
    fn many_hosts_use_bounded_memory() {
        let detector = GuessDetector::default();
        let now = Instant::now();
        for _ in 0..ALARM_THRESHOLD {
            detector.count(&agent(), "closed.test", now);
        }
        for host in 0..MAX_TRACKED_PAIRS * 2 {
            detector.count(&agent(), &format!("{host}.test"), now);
        }
        assert!(detector.0.lock().unwrap().len() <= MAX_TRACKED_PAIRS);
        assert!(detector.check_at(&agent(), "closed.test".to_owned(), now).is_err(), "it is still closed");
    }

    #[test]
    fn response_counts_once_and_conversation_per_message() {
        let detector = Arc::<GuessDetector>::default();
        let report = RedactionReport::counted_by(Some(detector.counter(&agent(), &"api.test")));
        for _ in 0..100 {
            report.found(true);
        }
        assert!(report.redacted() && report.alarm().is_none());
        for message in 1..ALARM_THRESHOLD {
            assert!(report.next_message(), "{message}");
            report.found(true);
        }
        assert!(!report.next_message());
        assert!(report.alarm().unwrap().starts_with("redaction_alarm"));
    }
}
