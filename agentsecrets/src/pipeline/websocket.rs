//! A WebSocket after its handshake: what the server says is searched, what the agent says is filled where
//! its rule allows that, and each side waits for the other. Whatever cannot be read ends both.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::authz::Held;
use crate::http::websocket::{CONTROL, FrameError, Kind, Piece, Reader, Signal, Writer};
use crate::inject::Messages;
use crate::pipeline::agent_credentials::Wallet;
use crate::redact::Conversation;

/// The largest text message that is searched for placeholders, in bytes: it must be held whole.
const LARGEST_FILLED: usize = 1024 * 1024;
/// How long one side may take to end after the other has.
const GOODBYE: Duration = Duration::from_secs(10);
/// How long a side that is told to go may take to hear it.
const FAREWELL: Duration = Duration::from_secs(1);

/// A WebSocket that both sides agreed to.
pub(super) struct Tunnel {
    /// The agent's side.
    pub agent: OnUpgrade,
    /// The server's side.
    pub server: OnUpgrade,
    /// Searches what the server says.
    pub conversation: Conversation,
    /// Fills what the agent says, where that is allowed.
    pub messages: Option<Messages>,
    /// Knows the placeholders.
    pub wallet: Arc<Wallet>,
}

/// Why a WebSocket ended otherwise than by its two ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum TunnelError {
    /// A side could not be reached in the first place.
    #[error("the upgrade did not come about")]
    Upgrade(#[from] hyper::Error),
    /// The agent's side.
    #[error("the agent: {0}")]
    Agent(FrameError),
    /// The server's side.
    #[error("the server: {0}")]
    Server(FrameError),
    /// Nothing was said for too long.
    #[error("nothing was said for too long")]
    Idle,
    /// We end.
    #[error("the interceptor ended")]
    Stopped,
    /// What it was let in for has ended.
    #[error("{0}")]
    Over(String),
    /// A message names a secret that may not be spent there.
    #[error("policy_denied: a message names a secret that may not be spent there")]
    Denied,
    /// The server repeated pieces of a secret too often.
    #[error("redaction_limit: pieces of a secret came back too often")]
    Guessed,
    /// A message is too large to be filled.
    #[error("body_too_large: a text message is larger than 1 MiB, and cannot be searched for placeholders")]
    TooLarge,
}

impl TunnelError {
    /// What either side is told: a close code and a reason.
    fn close(&self) -> (u16, &'static str) {
        match self {
            Self::Upgrade(_) | Self::Stopped => (1001, "going away"),
            Self::Idle => (1001, "nothing was said for too long"),
            Self::Agent(FrameError::Protocol(what)) | Self::Server(FrameError::Protocol(what)) => {
                (1002, what)
            }
            Self::Agent(FrameError::Io(_)) | Self::Server(FrameError::Io(_)) => {
                (1001, "the other side is gone")
            }
            Self::Over(_) => (1008, "what this was allowed for has ended"),
            Self::Denied => (1008, "policy_denied: a secret that may not be spent here"),
            Self::Guessed => (1008, "redaction_limit: pieces of a secret came back too often"),
            Self::TooLarge => (1009, "body_too_large: text messages may have 1 MiB here"),
        }
    }
}

/// The same where nothing more may be said.
const LAST_WORD: Duration = Duration::from_millis(100);

type Io = TokioIo<Upgraded>;

impl Tunnel {
    /// Carries messages until both sides have ended, or one of them broke off.
    pub(super) async fn carry(
        self,
        idle: Duration,
        stop: &CancellationToken,
        held: &Held,
    ) -> Result<(), TunnelError> {
        let Self { agent, server, conversation, messages, wallet } = self;
        let (agent, server) = tokio::try_join!(agent, server)?;
        let (from_agent, to_agent) = split(TokioIo::new(agent));
        let (from_server, to_server) = split(TokioIo::new(server));
        let (clock, goodbyes) = (Clock::default(), Goodbyes::default());
        let mut to_server = Writer::to_server(to_server);
        let mut to_agent = Writer::to_client(to_agent);
        let ended = {
            let up = upward(from_agent, &mut to_server, messages.as_ref(), &wallet, (&clock, &goodbyes));
            let down = downward(from_server, &mut to_agent, conversation, (&clock, &goodbyes));
            tokio::pin!(up, down);
            tokio::select! {
                ended = &mut up => match ended {
                    Ok(()) => timeout(GOODBYE, down).await.unwrap_or(Ok(())),
                    error => error,
                },
                ended = &mut down => match ended {
                    Ok(()) => timeout(GOODBYE, up).await.unwrap_or(Ok(())),
                    error => error,
                },
                () = clock.still(idle) => Err(TunnelError::Idle),
                () = stop.cancelled() => Err(TunnelError::Stopped),
                why = held.ended() => Err(TunnelError::Over(why)),
            }
        };
        // After both goodbyes nothing is owed, and a side may leave as abruptly as it likes.
        let ended = match ended {
            Err(TunnelError::Agent(FrameError::Io(_)) | TunnelError::Server(FrameError::Io(_)))
                if goodbyes.are_said() =>
            {
                Ok(())
            }
            ended => ended,
        };
        if let Err(TunnelError::Over(_)) = &ended {
            // At once: who does not read at this moment hears the end of the connection.
            let (code, reason) = TunnelError::Over(String::new()).close();
            let told = async { tokio::join!(to_agent.close(code, reason), to_server.close(code, reason)) };
            let _ = timeout(LAST_WORD, told).await;
            return ended;
        }
        if let Err(error) = &ended {
            // Who stood in the middle of a frame hears an error instead, which is true as well.
            let (code, reason) = error.close();
            let _ = timeout(FAREWELL, to_agent.close(code, reason)).await;
            let _ = timeout(FAREWELL, to_server.close(code, reason)).await;
        }
        let _ = timeout(FAREWELL, to_agent.shutdown()).await;
        let _ = timeout(FAREWELL, to_server.shutdown()).await;
        ended
    }
}

/// The server's messages.
async fn downward(
    from: ReadHalf<Io>,
    to: &mut Writer<WriteHalf<Io>>,
    mut conversation: Conversation,
    (clock, goodbyes): (&Clock, &Goodbyes),
) -> Result<(), TunnelError> {
    let gone = |error| TunnelError::Agent(FrameError::Io(error));
    let mut from = Reader::of_server(from);
    while let Some(piece) = from.next().await.map_err(TunnelError::Server)? {
        clock.touch();
        match piece {
            Piece::Data { kind, bytes, is_last } => {
                let clean = conversation.part(bytes.freeze(), is_last);
                if is_last || !clean.is_empty() {
                    to.data(kind, &clean, is_last).await.map_err(gone)?;
                }
                if is_last && !conversation.may_go_on() {
                    return Err(TunnelError::Guessed);
                }
            }
            Piece::Control(Signal::Close, bytes) => {
                goodbyes.say(Goodbyes::SERVER);
                let (code, reason) = bytes.split_at_checked(2).unwrap_or((&bytes, &[]));
                let reason = conversation.whole(reason.to_vec().into());
                let reason = text(&reason, CONTROL - 2);
                to.control(Signal::Close, &[code, reason].concat()).await.map_err(gone)?;
            }
            Piece::Control(signal, bytes) => {
                let clean = conversation.whole(bytes.freeze());
                to.control(signal, &clean).await.map_err(gone)?;
            }
        }
        clock.touch();
    }
    to.shutdown().await.map_err(gone)
}

/// The agent's messages.
async fn upward(
    from: ReadHalf<Io>,
    to: &mut Writer<WriteHalf<Io>>,
    messages: Option<&Messages>,
    wallet: &Wallet,
    (clock, goodbyes): (&Clock, &Goodbyes),
) -> Result<(), TunnelError> {
    let gone = |error| TunnelError::Server(FrameError::Io(error));
    let mut from = Reader::of_client(from);
    let mut whole = Vec::new();
    while let Some(piece) = from.next().await.map_err(TunnelError::Agent)? {
        clock.touch();
        match (piece, messages) {
            (Piece::Data { kind: Kind::Text, bytes, is_last }, Some(messages)) => {
                if whole.len() + bytes.len() > LARGEST_FILLED {
                    return Err(TunnelError::TooLarge);
                }
                whole.extend_from_slice(&bytes);
                if is_last {
                    let filled =
                        messages.fill(&whole, &wallet.vocabulary).map_err(|_| TunnelError::Denied)?;
                    let text = filled.as_deref().unwrap_or(&whole);
                    to.data(Kind::Text, text, true).await.map_err(gone)?;
                    whole.clear();
                }
            }
            (Piece::Data { kind, bytes, is_last }, _) => {
                to.data(kind, &bytes, is_last).await.map_err(gone)?;
            }
            (Piece::Control(signal, bytes), _) => {
                if signal == Signal::Close {
                    goodbyes.say(Goodbyes::AGENT);
                }
                to.control(signal, &bytes).await.map_err(gone)?;
            }
        }
        clock.touch();
    }
    to.shutdown().await.map_err(gone)
}

/// The longest beginning of `bytes` that is text of at most so many bytes.
fn text(bytes: &[u8], most: usize) -> &[u8] {
    let bytes = bytes.get(..most).unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(_) => bytes,
        Err(error) => bytes.get(..error.valid_up_to()).unwrap_or_default(),
    }
}

/// Who has said, with a close frame, that nothing follows.
#[derive(Default)]
struct Goodbyes(AtomicU8);

impl Goodbyes {
    const AGENT: u8 = 1;
    const SERVER: u8 = 2;

    fn say(&self, who: u8) {
        self.0.fetch_or(who, Ordering::Relaxed);
    }

    fn are_said(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::AGENT | Self::SERVER
    }
}

/// When something was said last.
struct Clock(Mutex<Instant>);

impl Default for Clock {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Clock {
    fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Ends when nothing was said for as long as `patience`.
    async fn still(&self, patience: Duration) {
        loop {
            let deadline = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + patience;
            if deadline <= Instant::now() {
                return;
            }
            sleep_until(deadline).await;
        }
    }
}
