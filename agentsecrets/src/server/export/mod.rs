//! Streams the audit log to a collector. A separate process reads the log file, so that no request waits for
//! a collector, and a collector that is down loses nothing: unacknowledged records are sent again.

mod metrics;
mod otlp;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::audit::tail::{Bookmark, Follower, POLL_INTERVAL};
use crate::audit::{AuditError, Record};
use crate::sys::files;

pub(crate) use metrics::Metrics;
pub(crate) use otlp::{Collector, CollectorRejection};

/// Delay before reading the log again after an error, such as no free descriptor.
const LOG_RETRY_DELAY: Duration = Duration::from_secs(1);

/// A stream of audit records.
pub(crate) struct AuditStream {
    /// The folder of the log.
    pub(crate) folder: PathBuf,
    /// Stores the position between runs; without it the stream starts at the first record every time.
    pub(crate) position_file: Option<PathBuf>,
    /// Start with records written from now on, if no position is stored.
    pub(crate) only_new: bool,
    pub(crate) target: StreamTarget,
    /// Metrics, and the listener that serves them.
    pub(crate) metrics: Option<(Metrics, TcpListener)>,
}

/// The destination of records.
pub(crate) enum StreamTarget {
    /// Standard output, one JSON object a line.
    Stdout,
    /// An OTLP collector.
    Collector(Box<Collector>),
    /// No destination: records are only counted.
    None,
}

/// Reasons that a stream ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] AuditError),
    /// Standard output is closed.
    #[error("standard output: {0}")]
    Output(io::Error),
    /// The position file cannot be read or written.
    #[error("the position cannot be kept in {path}: {source}", path = .path.display())]
    Position { path: PathBuf, source: io::Error },
    /// The collector rejects the records permanently.
    #[error(transparent)]
    Collector(#[from] CollectorRejection),
}

impl AuditStream {
    /// Streams until `stop` is cancelled. With metrics it keeps counting even if the collector rejects
    /// records.
    ///
    /// # Errors ¶| If the log cannot be read or the destination fails; records not acknowledged are sent by
    /// the next run.
    pub(crate) async fn run(self, stop: &CancellationToken) -> Result<(), StreamError> {
        let Self { folder, position_file: position, only_new, mut target, metrics: counts } = self;
        let mut follower = open_follower(&folder, position.as_deref(), only_new)?;
        let keep = |bookmark: &Bookmark| match &position {
            Some(path) => write_position(path, bookmark)
                .map_err(|source| StreamError::Position { path: path.clone(), source }),
            None => Ok(()),
        };
        keep(follower.bookmark())?;
        let counts = counts.map(|(counts, listener)| {
            tokio::spawn(counts.clone().serve(listener, stop.clone()));
            counts
        });
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return Ok(()),
            }
            let records = match follower.records() {
                Ok(records) => records,
                Err(error) => {
                    tracing::warn!(%error, "the audit log is tried again");
                    pause = LOG_RETRY_DELAY;
                    continue;
                }
            };
            pause = if records.is_empty() { POLL_INTERVAL } else { Duration::ZERO };
            if records.is_empty() {
                continue;
            }
            if let Some(counts) = &counts {
                records.iter().for_each(|record| counts.record(record));
            }
            tokio::select! {
                taken = target.send(&records, counts.is_some()) => taken?,
                () = stop.cancelled() => return Ok(()),
            }
            keep(follower.bookmark())?;
        }
    }
}

impl StreamTarget {
    /// Sends `records` and waits for the acknowledgement; with `insists` it retries rejected records too.
    async fn send(&mut self, records: &[Record], insists: bool) -> Result<(), StreamError> {
        match self {
            Self::None => Ok(()),
            Self::Collector(collector) => Ok(collector.send(records, insists).await?),
            Self::Stdout => {
                let text = json_lines(records).map_err(StreamError::Output)?;
                // A slow reader blocks this thread alone.
                let written = tokio::task::spawn_blocking(move || {
                    let mut out = io::stdout().lock();
                    out.write_all(&text).and_then(|()| out.flush())
                });
                written
                    .await
                    .map_err(io::Error::other)
                    .and_then(|written| written)
                    .map_err(StreamError::Output)
            }
        }
    }
}

fn open_follower(folder: &Path, position: Option<&Path>, only_new: bool) -> Result<Follower, StreamError> {
    let stored = position.map(|path| {
        read_position(path).map_err(|source| StreamError::Position { path: path.to_path_buf(), source })
    });
    if let Some(bookmark) = stored.transpose()?.flatten() {
        if let Some(follower) = Follower::resume(folder, bookmark)? {
            return Ok(follower);
        }
        tracing::warn!("the log is not the one of which a position was kept: all of it is streamed");
    } else if only_new {
        return Ok(Follower::at_end(folder)?);
    }
    Ok(Follower::at_start(folder))
}

fn read_position(path: &Path) -> io::Result<Option<Bookmark>> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write_position(path: &Path, bookmark: &Bookmark) -> io::Result<()> {
    files::replace(path, &serde_json::to_vec(bookmark)?)
}

fn json_lines(records: &[Record]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for record in records {
        serde_json::to_writer(&mut text, record)?;
        text.push(b'\n');
    }
    Ok(text)
}
