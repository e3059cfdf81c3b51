//! The audit log on its way to whoever collects it. A process of its own reads the file that the interceptor
//! writes, so that nobody's request waits for a collector, and a collector that is away loses nothing: what it
//! has not taken is sent again.

mod counts;
mod otlp;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::audit::follow::{Bookmark, Follower};
use crate::audit::{AuditError, Record};
use crate::base::files;

pub use counts::Counts;
pub use otlp::{Collector, CollectorError, NoCollector};

/// How often the log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

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
    /// Streams until `stop` is cancelled.
    ///
    /// # Errors
    /// When the log cannot be read, or nobody takes what it says: what was not taken is sent the next time.
    pub async fn run(self, stop: &CancellationToken) -> Result<(), StreamError> {
        let Self { folder, position, only_new, mut target, counts } = self;
        let mut follower = begin(&folder, position.as_deref(), only_new)?;
        let counts = counts.map(|(counts, listener)| {
            tokio::spawn(counts.clone().serve(listener, stop.clone()));
            counts
        });
        loop {
            let records = follower.lines()?;
            if records.is_empty() {
                tokio::select! {
                    () = tokio::time::sleep(LOOK_EVERY) => continue,
                    () = stop.cancelled() => return Ok(()),
                }
            }
            match &mut target {
                Target::Nowhere => {}
                Target::Output => print(&records).map_err(StreamError::Output)?,
                Target::Collector(collector) => tokio::select! {
                    sent = collector.send(&records) => sent?,
                    () = stop.cancelled() => return Ok(()),
                },
            }
            if let Some(counts) = &counts {
                records.iter().for_each(|record| counts.count(record));
            }
            if let Some(path) = &position {
                keep(path, follower.bookmark())
                    .map_err(|source| StreamError::Position { path: path.clone(), source })?;
            }
        }
    }
}

fn begin(folder: &Path, position: Option<&Path>, only_new: bool) -> Result<Follower, StreamError> {
    let kept = position
        .map(|path| kept(path).map_err(|source| StreamError::Position { path: path.to_path_buf(), source }));
    if let Some(bookmark) = kept.transpose()?.flatten() {
        if let Some(follower) = Follower::from(folder, bookmark)? {
            return Ok(follower);
        }
        tracing::warn!("the log is not the one of which a position was kept: all of it is streamed");
    } else if only_new {
        return Ok(Follower::at_end(folder));
    }
    // The beginning is a place of every log.
    Ok(Follower::from(folder, Bookmark::default())?.unwrap_or_else(|| Follower::at_end(folder)))
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

fn print(records: &[Record]) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for record in records {
        serde_json::to_writer(&mut out, record)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}
