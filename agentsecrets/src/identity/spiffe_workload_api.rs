//! Asking the SPIFFE Workload API who we are. It attests who asks by the kernel's word about the other end of a
//! socket, and then tells of each change. With the identity it hands out its private key: so that it never is where
//! agents' bytes are read, a helper asks, which reads none of those, has no right, and passes on names
//! and times alone.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anstream::eprintln;
use futures_util::StreamExt;
use spiffe::transport::Endpoint;
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Context, X509Svid};
use tokio::time::timeout;

use super::spiffe::{CurrentIdentities, IdentityUpdate, SpiffeIdentity, listed, now};
use crate::privsep::helper::{self, invalid_response as unclear};
use crate::privsep::{Channel, Limits};

/// Time limit for the API's first message.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for the first identities, so that agents that start after this service find them.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause after a failure of the API; it grows with repeated failures.
const MIN_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// The longest time for which nothing new needs to be said.
const MAX_EXPIRY_WAIT: Duration = Duration::from_secs(24 * 3600);
const MAX_IDENTITIES: usize = 16;
/// The longest reason, in bytes.
const MAX_REASON_LEN: usize = 400;
/// Larger than any word.
const LIMITS: Limits = Limits { length: 64 * 1024, descriptors: 0 };

/// The Workload API, by the process that asks it.
pub struct WorkloadApi {
    line: Channel,
    known: Arc<CurrentIdentities>,
    last: Option<IdentityUpdate>,
}

impl WorkloadApi {
    /// Forks the process that asks at `socket`, which gives up by `confine` what it does not need. The calling
    /// process must have one thread.
    pub fn start(socket: PathBuf, confine: impl FnOnce() -> io::Result<()>) -> io::Result<Self> {
        let line = helper::fork(LIMITS, confine, move |line| follow(&socket, line))?;
        Ok(Self { line, known: Arc::default(), last: None })
    }

    /// The current identities.
    pub fn known(&self) -> Arc<CurrentIdentities> {
        self.known.clone()
    }

    /// Waits a moment for the first word.
    pub fn recv_first(&mut self) -> io::Result<()> {
        self.line.set_receive_timeout(Some(STARTUP_TIMEOUT))?;
        let heard = recv(&self.line);
        self.line.set_receive_timeout(None)?;
        match heard {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            heard => self.take(heard),
        }
        Ok(())
    }

    /// Hears what is said until nobody is left to say it. Blocks.
    pub fn listen(mut self) {
        loop {
            let heard = recv(&self.line);
            let is_over = heard.is_err();
            self.take(heard);
            if is_over {
                return;
            }
        }
    }

    fn take(&mut self, heard: io::Result<IdentityUpdate>) {
        // Without who asks we would not hear that an identity was taken back.
        let word = heard.unwrap_or_else(|error| {
            IdentityUpdate::Refused(format!(
                "who asks the Workload API is gone; start the service again: {error}"
            ))
        });
        let before = self.known.ids();
        self.known.apply(word.clone());
        let ids = self.known.ids();
        match &word {
            IdentityUpdate::Issued(_) if ids.is_empty() => {
                eprintln!("agentsecrets: {}", self.known.describe())
            }
            IdentityUpdate::Issued(_) if ids != before => {
                eprintln!("agentsecrets: this workload is {}", listed(&ids))
            }
            IdentityUpdate::Issued(_) => {}
            word if self.last.as_ref() == Some(word) => {}
            IdentityUpdate::Refused(reason) => {
                eprintln!("agentsecrets: this workload has no SPIFFE identity: {reason}")
            }
            IdentityUpdate::Away(reason) => {
                eprintln!(
                    "agentsecrets: no SPIFFE identity is told, and what was holds until it expires: {reason}"
                );
            }
        }
        self.last = Some(word);
    }
}

/// The next word.
fn recv(line: &Channel) -> io::Result<IdentityUpdate> {
    let message = line.recv()?.ok_or_else(|| io::Error::other("it ended"))?;
    message.parse_json().map_err(|_| unclear())
}

/// The life of the helper: it asks until there is nobody to tell.
fn follow(socket: &Path, line: &Channel) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let endpoint = Endpoint::Unix(socket.to_path_buf());
    let send_update = |word: &IdentityUpdate| line.send_json(word, &[]);
    runtime.block_on(async {
        let mut rest = MIN_BACKOFF;
        loop {
            let mut has_said = false;
            let say = |word| {
                has_said = true;
                send_update(&word)
            };
            let Err(end) = ask(&endpoint, say).await;
            send_update(&end.update()?)?;
            rest = if has_said { MIN_BACKOFF } else { rest };
            tokio::time::sleep(rest).await;
            rest = (rest * 2).min(MAX_BACKOFF);
        }
    })
}

/// Why the API says no more.
enum StreamEnd {
    Failed(WorkloadApiError),
    Silent,
    Stale,
    Over,
    Unheard(io::Error),
}

impl StreamEnd {
    /// The update that the end of the stream implies; an error if nobody receives it.
    fn update(self) -> io::Result<IdentityUpdate> {
        Ok(match self {
            Self::Failed(WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_)) => {
                IdentityUpdate::Refused(
                    "the Workload API gives it no identity; register it there, by its namespace and service account"
                        .to_owned(),
                )
            }
            Self::Failed(error) if error.is_invalid_argument() => {
                IdentityUpdate::Refused(bounded(format!("what answers at the socket is no Workload API: {error}")))
            }
            Self::Failed(WorkloadApiError::Transport(error)) => {
                IdentityUpdate::Away(bounded(format!("the Workload API cannot be asked: {}", whole(&error))))
            }
            // It answered, and what it says is not to be relied on.
            Self::Failed(error) => {
                IdentityUpdate::Refused(bounded(format!("the Workload API's answer cannot be used: {}", whole(&error))))
            }
            Self::Silent => {
                IdentityUpdate::Away(format!("the Workload API does not answer within {} s", FIRST_MESSAGE_TIMEOUT.as_secs()))
            }
            Self::Stale => IdentityUpdate::Away("the Workload API has let what it said expire".to_owned()),
            Self::Over => IdentityUpdate::Away("the Workload API ended its answer".to_owned()),
            Self::Unheard(error) => return Err(error),
        })
    }
}

/// Asks, and says what is answered until that ends.
async fn ask(
    endpoint: &Endpoint,
    mut say: impl FnMut(IdentityUpdate) -> io::Result<()>,
) -> Result<Infallible, StreamEnd> {
    let (_client, contexts) = with_timeout(async {
        let client = WorkloadApiClient::connect(endpoint.clone()).await?;
        let contexts = client.stream_x509_contexts().await?;
        Ok((client, contexts))
    })
    .await?
    .map_err(StreamEnd::Failed)?;
    let mut contexts = pin!(contexts);
    let mut said = issued(with_timeout(contexts.next()).await?)?;
    loop {
        // Whoever says nothing until all is over may never say anything again.
        let lasts = lasts(&said);
        say(IdentityUpdate::Issued(said)).map_err(StreamEnd::Unheard)?;
        let next = timeout(lasts.max(FIRST_MESSAGE_TIMEOUT), contexts.next()).await;
        said = issued(next.map_err(|_| StreamEnd::Stale)?)?;
    }
}

/// The time until the first identity expires.
fn lasts(issued: &[SpiffeIdentity]) -> Duration {
    let last = issued.iter().map(|one| one.until).max().unwrap_or_default();
    let left = last.saturating_sub(now()).saturating_add(1);
    Duration::from_secs(left.try_into().unwrap_or_default()).min(MAX_EXPIRY_WAIT)
}

async fn with_timeout<T>(answer: impl Future<Output = T>) -> Result<T, StreamEnd> {
    timeout(FIRST_MESSAGE_TIMEOUT, answer).await.map_err(|_| StreamEnd::Silent)
}

/// The identities of an answer, without their keys.
fn issued(context: Option<Result<X509Context, WorkloadApiError>>) -> Result<Vec<SpiffeIdentity>, StreamEnd> {
    let context = context.ok_or(StreamEnd::Over)?.map_err(StreamEnd::Failed)?;
    Ok(context.svids().iter().take(MAX_IDENTITIES).filter_map(|svid| identities(svid)).collect())
}

/// An identity, while every certificate of its chain is valid.
fn identities(svid: &X509Svid) -> Option<SpiffeIdentity> {
    let (mut since, mut until) = (i64::MIN, i64::MAX);
    for certificate in svid.cert_chain() {
        let (_, read) = x509_parser::parse_x509_certificate(certificate.as_bytes()).ok()?;
        since = since.max(read.validity().not_before.timestamp());
        until = until.min(read.validity().not_after.timestamp());
    }
    Some(SpiffeIdentity { id: svid.spiffe_id().clone(), since, until })
}

/// An error with what is behind it.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        behind = error.source();
    }
    text
}

fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_REASON_LEN));
    text
}
