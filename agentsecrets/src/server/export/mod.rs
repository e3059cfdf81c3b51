//! The audit log on its way to whoever collects it. A process of its own reads the file that the interceptor
//! writes, so that nobody's request waits for a collector, and a collector that is away loses nothing: what it
//! has not taken is sent again.

mod metrics;
mod otlp;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::audit::tail::{Bookmark, Follower, LOOK_EVERY};
use crate::audit::{AuditError, Record};
use crate::sys::files;

pub use metrics::Counts;
pub use otlp::{Collector, CollectorError, NoCollector};

/// How long to wait where the log cannot be read for a moment, as without a descriptor left.
const PAUSE: Duration = Duration::from_secs(1);

/// Where records go, and from which on.
pub struct Stream {
    /// The folder of the log.
    pub folder: PathBuf,
    /// The file that keeps how far it came; none to begin with the first record every time.
    pub position: Option<PathBuf>,
    /// To begin with what is written from now on, where no position was kept.
    pub only_new: bool,
    /// To whom.
    pub target: Target,
    /// What is counted, and where that can be asked for.
    pub counts: Option<(Counts, TcpListener)>,
}

/// Who takes records.
pub enum Target {
    /// Whoever reads standard output, one JSON object a line.
    Output,
    /// A collector.
    Collector(Box<Collector>),
    /// Nobody: they are counted only.
    Nowhere,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] AuditError),
    /// Nobody reads standard output any longer.
    #[error("standard output: {0}")]
    Output(io::Error),
    /// The position cannot be read or kept.
    #[error("the position cannot be kept in {path}: {source}", path = .path.display())]
    Position {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The collector does not want it.
    #[error(transparent)]
    Collector(#[from] CollectorError),
}

impl Stream {
    /// Streams until `stop` is cancelled. Where counts are asked for, it goes on counting whatever a collector says.
    ///
    /// # Errors
    /// When the log cannot be read, or nobody takes what it says: what was not taken is sent the next time.
    pub async fn run(self, stop: &CancellationToken) -> Result<(), StreamError> {
        let Self { folder, position, only_new, mut target, counts } = self;
        let mut follower = begin(&folder, position.as_deref(), only_new)?;
        let keep = |bookmark: &Bookmark| match &position {
            Some(path) => {
                keep(path, bookmark).map_err(|source| StreamError::Position { path: path.clone(), source })
            }
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
                    pause = PAUSE;
                    continue;
                }
            };
            pause = if records.is_empty() { LOOK_EVERY } else { Duration::ZERO };
            if records.is_empty() {
                continue;
            }
            if let Some(counts) = &counts {
                records.iter().for_each(|record| counts.count(record));
            }
            tokio::select! {
                taken = target.take(&records, counts.is_some()) => taken?,
                () = stop.cancelled() => return Ok(()),
            }
            keep(follower.bookmark())?;
        }
    }
}

impl Target {
    /// Gives it `records`, and returns when they were taken; `insists` on what was refused, too.
    async fn take(&mut self, records: &[Record], insists: bool) -> Result<(), StreamError> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Collector(collector) => Ok(collector.send(records, insists).await?),
            Self::Output => {
                let text = lines(records).map_err(StreamError::Output)?;
                // Whoever reads slowly keeps nobody but us waiting.
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

fn begin(folder: &Path, position: Option<&Path>, only_new: bool) -> Result<Follower, StreamError> {
    let kept = position
        .map(|path| kept(path).map_err(|source| StreamError::Position { path: path.to_path_buf(), source }));
    if let Some(bookmark) = kept.transpose()?.flatten() {
        if let Some(follower) = Follower::resume(folder, bookmark)? {
            return Ok(follower);
        }
        tracing::warn!("the log is not the one of which a position was kept: all of it is streamed");
    } else if only_new {
        return Ok(Follower::at_end(folder)?);
    }
    Ok(Follower::at_start(folder))
}

fn kept(path: &Path) -> io::Result<Option<Bookmark>> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn keep(path: &Path, bookmark: &Bookmark) -> io::Result<()> {
    files::replace(path, &serde_json::to_vec(bookmark)?)
}

/// One JSON object a line.
fn lines(records: &[Record]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for record in records {
        serde_json::to_writer(&mut text, record)?;
        text.push(b'\n');
    }
    Ok(text)
}
