//! Relays a WebSocket after its handshake. The server's messages are searched for secrets; placeholders in the
//! agent's messages are filled where the rule allows it. A message that cannot be read ends both sides.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::authz::RevocationGuard;
use crate::http::websocket::{
    ControlKind, Fragment, FrameReader, FrameWriter, MAX_CONTROL_PAYLOAD, MessageKind, WebSocketError,
};
use crate::inject::MessageInjector;
use crate::pipeline::agent_credentials::AgentCredentials;
use crate::redact::Conversation;
use crate::types::sync::MutexExt;

/// The largest text message that is searched for placeholders, in bytes: it must be buffered whole.
const MAX_FILLED_MESSAGE: usize = 1024 * 1024;
/// The limit for one side to end after the other has.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The limit for sending a close frame.
const CLOSE_FRAME_TIMEOUT: Duration = Duration::from_secs(1);
/// The same after a revocation, when nothing more may be sent.
const REVOKED_CLOSE_TIMEOUT: Duration = Duration::from_millis(100);

/// A WebSocket whose handshake has succeeded.
pub(super) struct WebSocket {
    pub agent: OnUpgrade,
    pub server: OnUpgrade,
    /// Redacts the server's messages.
    pub conversation: Conversation,
    /// Fills the agent's messages, where the rule allows it.
    pub messages: Option<MessageInjector>,
    pub secrets: Arc<AgentCredentials>,
}

/// The reason why a WebSocket did not end normally.
#[derive(Debug, thiserror::Error)]
pub(super) enum RelayError {
    #[error("the upgrade did not come about")]
    Upgrade(#[from] hyper::Error),
    #[error("the agent: {0}")]
    Agent(WebSocketError),
    #[error("the server: {0}")]
    Server(WebSocketError),
    #[error("nothing was said for too long")]
    Idle,
    /// We are shutting down.
    #[error("the interceptor ended")]
    Stopped,
    /// The session or token of the request has ended.
    #[error("{0}")]
    Revoked(String),
    #[error("policy_denied: a message names a secret that may not be spent there")]
    Denied,
    /// The guess detector has raised an alarm.
    #[error("redaction_limit: pieces of a secret came back too often")]
    Guessed,
    #[error("body_too_large: a text message is larger than 1 MiB, and cannot be searched for placeholders")]
    TooLarge,
}

impl RelayError {
    /// The close code and the reason that both sides get.
    fn close(&self) -> (u16, &'static str) {
        match self {
            Self::Upgrade(_) | Self::Stopped => (1001, "going away"),
            Self::Idle => (1001, "nothing was said for too long"),
            Self::Agent(WebSocketError::Protocol(what)) | Self::Server(WebSocketError::Protocol(what)) => {
                (1002, what)
            }
            Self::Agent(WebSocketError::Io(_)) | Self::Server(WebSocketError::Io(_)) => {
                (1001, "the other side is gone")
            }
            Self::Revoked(_) => (1008, "what this was allowed for has ended"),
            Self::Denied => (1008, "policy_denied: a secret that may not be spent here"),
            Self::Guessed => (1008, "redaction_limit: pieces of a secret came back too often"),
            Self::TooLarge => (1009, "body_too_large: text messages may have 1 MiB here"),
        }
    }
}

type Io = TokioIo<Upgraded>;

impl WebSocket {
    /// Relays messages until both sides have ended, or one of them has failed.
    pub(super) async fn relay(
        self,
        idle: Duration,
        stop: &CancellationToken,
        guard: &RevocationGuard,
    ) -> Result<(), RelayError> {
        let Self { agent, server, conversation, messages, secrets } = self;
        let (agent, server) = tokio::try_join!(agent, server)?;
        let (from_agent, to_agent) = split(TokioIo::new(agent));
        let (from_server, to_server) = split(TokioIo::new(server));
        let (activity, close_frames) = (LastActivity::default(), CloseFrames::default());
        let mut to_server = FrameWriter::to_server(to_server);
        let mut to_agent = FrameWriter::to_client(to_agent);
        let ended = {
            let up = relay_to_server(
                from_agent,
                &mut to_server,
                messages.as_ref(),
                &secrets,
                (&activity, &close_frames),
            );
            let down = relay_to_agent(from_server, &mut to_agent, conversation, (&activity, &close_frames));
            tokio::pin!(up, down);
            tokio::select! {
                ended = &mut up => match ended {
                    Ok(()) => timeout(CLOSE_TIMEOUT, down).await.unwrap_or(Ok(())),
                    // A side may reset its connection once it has sent a close frame.
                    Err(RelayError::Agent(WebSocketError::Io(_))) if close_frames.is_sent(CloseFrames::AGENT) => {
                        Ok(())
                    }
                    error => error,
                },
                ended = &mut down => match ended {
                    Ok(()) => timeout(CLOSE_TIMEOUT, up).await.unwrap_or(Ok(())),
                    Err(RelayError::Server(WebSocketError::Io(_)))
                        if close_frames.is_sent(CloseFrames::SERVER) =>
                    {
                        Ok(())
                    }
                    error => error,
                },
                () = activity.idle(idle) => Err(RelayError::Idle),
                () = stop.cancelled() => Err(RelayError::Stopped),
                why = guard.ended() => Err(RelayError::Revoked(why)),
            }
        };
        // After both close frames, an abrupt end of the connection is not an error.
        let ended = match ended {
            Err(RelayError::Agent(WebSocketError::Io(_)) | RelayError::Server(WebSocketError::Io(_)))
                if close_frames.are_both_sent() =>
            {
                Ok(())
            }
            ended => ended,
        };
        if let Err(RelayError::Revoked(_)) = &ended {
            // At once: a side that does not read now only sees the end of the connection.
            let (code, reason) = RelayError::Revoked(String::new()).close();
            let close = async { tokio::join!(to_agent.close(code, reason), to_server.close(code, reason)) };
            let _ = timeout(REVOKED_CLOSE_TIMEOUT, close).await;
            return ended;
        }
        if let Err(error) = &ended {
            // In the middle of a frame this is a protocol error for the peer, which also ends the connection.
            let (code, reason) = error.close();
            let _ = timeout(CLOSE_FRAME_TIMEOUT, to_agent.close(code, reason)).await;
            let _ = timeout(CLOSE_FRAME_TIMEOUT, to_server.close(code, reason)).await;
        }
        let _ = timeout(CLOSE_FRAME_TIMEOUT, to_agent.shutdown()).await;
        let _ = timeout(CLOSE_FRAME_TIMEOUT, to_server.shutdown()).await;
        ended
    }
}

/// Redacts the server's messages.
async fn relay_to_agent(
    from: ReadHalf<Io>,
    to: &mut FrameWriter<WriteHalf<Io>>,
    mut conversation: Conversation,
    (activity, close_frames): (&LastActivity, &CloseFrames),
) -> Result<(), RelayError> {
    let gone = |error| RelayError::Agent(WebSocketError::Io(error));
    let mut from = FrameReader::from_server(from);
    while let Some(piece) = from.next().await.map_err(RelayError::Server)? {
        activity.touch();
        match piece {
            Fragment::Data { kind, bytes, is_last } => {
                let clean = conversation.part(bytes.freeze(), is_last);
                if is_last || !clean.is_empty() {
                    to.data(kind, &clean, is_last).await.map_err(gone)?;
                }
                if is_last && !conversation.may_go_on() {
                    return Err(RelayError::Guessed);
                }
            }
            Fragment::Control(ControlKind::Close, bytes) => {
                close_frames.mark_sent(CloseFrames::SERVER);
                let (code, reason) = bytes.split_at_checked(2).unwrap_or((&bytes, &[]));
                let reason = conversation.whole(reason.to_vec().into());
                let reason = truncated_text(&reason, MAX_CONTROL_PAYLOAD - 2);
                to.control(ControlKind::Close, &[code, reason].concat()).await.map_err(gone)?;
            }
            Fragment::Control(signal, bytes) => {
                let clean = conversation.whole(bytes.freeze());
                to.control(signal, &clean).await.map_err(gone)?;
            }
        }
        activity.touch();
    }
    to.shutdown().await.map_err(gone)
}

/// Fills the agent's messages.
async fn relay_to_server(
    from: ReadHalf<Io>,
    to: &mut FrameWriter<WriteHalf<Io>>,
    messages: Option<&MessageInjector>,
    secrets: &AgentCredentials,
    (activity, close_frames): (&LastActivity, &CloseFrames),
) -> Result<(), RelayError> {
    let gone = |error| RelayError::Server(WebSocketError::Io(error));
    let mut from = FrameReader::from_client(from);
    let mut whole = Vec::new();
    while let Some(piece) = from.next().await.map_err(RelayError::Agent)? {
        activity.touch();
        match (piece, messages) {
            (Fragment::Data { kind: MessageKind::Text, bytes, is_last }, Some(messages)) => {
                if whole.len() + bytes.len() > MAX_FILLED_MESSAGE {
                    return Err(RelayError::TooLarge);
                }
                whole.extend_from_slice(&bytes);
                if is_last {
                    let filled =
                        messages.fill(&whole, &secrets.vocabulary).map_err(|_| RelayError::Denied)?;
                    let text = filled.as_deref().unwrap_or(&whole);
                    to.data(MessageKind::Text, text, true).await.map_err(gone)?;
                    whole.clear();
                }
            }
            (Fragment::Data { kind, bytes, is_last }, _) => {
                to.data(kind, &bytes, is_last).await.map_err(gone)?;
            }
            (Fragment::Control(signal, bytes), _) => {
                if signal == ControlKind::Close {
                    close_frames.mark_sent(CloseFrames::AGENT);
                }
                to.control(signal, &bytes).await.map_err(gone)?;
            }
        }
        activity.touch();
    }
    to.shutdown().await.map_err(gone)
}

/// The longest prefix of `bytes` that is UTF-8 and at most `max_len` bytes long.
fn truncated_text(bytes: &[u8], max_len: usize) -> &[u8] {
    let bytes = bytes.get(..max_len).unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(_) => bytes,
        Err(error) => bytes.get(..error.valid_up_to()).unwrap_or_default(),
    }
}

/// The sides that have sent a close frame.
#[derive(Default)]
struct CloseFrames(AtomicU8);

impl CloseFrames {
    const AGENT: u8 = 1;
    const SERVER: u8 = 2;

    fn mark_sent(&self, who: u8) {
        self.0.fetch_or(who, Ordering::Relaxed);
    }

    fn is_sent(&self, who: u8) -> bool {
        self.0.load(Ordering::Relaxed) & who != 0
    }

    fn are_both_sent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::AGENT | Self::SERVER
    }
}

/// The time of the last frame.
struct LastActivity(Mutex<Instant>);

impl Default for LastActivity {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl LastActivity {
    fn touch(&self) {
        *self.0.lock_ignoring_poison() = Instant::now();
    }

    /// Completes after `limit` without a frame.
    async fn idle(&self, limit: Duration) {
        loop {
            let deadline = *self.0.lock_ignoring_poison() + limit;
            if deadline <= Instant::now() {
                return;
            }
            sleep_until(deadline).await;
        }
    }
}
