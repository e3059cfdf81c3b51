//! Outcomes that the log would not take, as when its disk is full: kept until it does, so that nothing
//! that happened meanwhile is lost. Nothing is sent on while there are any.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::AuditError;
use super::record::Record;
use agentsecrets_types::sync::MutexExt;

/// Upper bound; rejected requests beyond it are only counted.
const MAX_RECORDS: usize = 8192;

/// The outcomes that wait, oldest first.
#[derive(Default)]
pub(super) struct RetryQueue {
    records: Mutex<VecDeque<Record>>,
    /// The length, readable without the lock.
    count: AtomicUsize,
    lost: AtomicU64,
}

impl RetryQueue {
    /// Whether everything was written.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Keeps `record`.
    pub(super) fn keep(&self, record: Record) {
        let mut records = self.records.lock_ignoring_poison();
        if records.len() < MAX_RECORDS {
            records.push_back(record);
            self.count.store(records.len(), Ordering::Release);
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes all of them with `write`, up to the first that fails.
    pub(super) fn write(&self, write: impl Fn(&Record) -> Result<(), AuditError>) -> Result<(), AuditError> {
        if self.is_empty() {
            return Ok(());
        }
        let mut records = self.records.lock_ignoring_poison();
        while let Some(record) = records.front() {
            let written = write(record);
            if written.is_ok() {
                records.pop_front();
            }
            self.count.store(records.len(), Ordering::Release);
            written?;
        }
        match self.lost.swap(0, Ordering::Relaxed) {
            0 => tracing::info!("the audit log can be written again; what waited for it is in it"),
            lost => tracing::error!(lost, "the audit log can be written again, but without some refusals"),
        }
        Ok(())
    }
}
