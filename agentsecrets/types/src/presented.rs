//! Credentials that a client presents: tokens, which are proof once they are verified, and a name, which is
//! not. They cannot be printed.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// The prefix of agent tokens.
pub const AGENT: &str = "as_agent_";
/// The prefix of session tokens.
pub const SESSION: &str = "as_sess_";
/// The longest token, in bytes.
const MAX_TOKEN_LEN: usize = 256;
/// User names that clients send beside a token where they must send one, and that name no agent.
const USERS_WITHOUT_AGENT: [&str; 3] = ["", "token", "session"];

/// A token, as it was shown.
pub type Token = Arc<Zeroizing<String>>;

/// The credentials of one client. There is no `Debug` that would print a token.
#[derive(Clone, Default)]
pub struct PresentedCredentials {
    /// An agent's token.
    pub agent: Option<Token>,
    /// A session's token.
    pub session: Option<Token>,
    /// The agent that it says it is.
    pub name: Option<String>,
    /// Something is shown that is no token of ours, or two of a kind: it proves nothing, and is not passed
    /// over.
    pub is_bad: bool,
}

impl PresentedCredentials {
    /// Whether there is nothing to be verified.
    pub fn is_empty(&self) -> bool {
        self.agent.is_none() && self.session.is_none() && !self.is_bad
    }

    /// Adds a token, of whichever kind it is.
    pub fn with_token(mut self, text: &str) -> Self {
        let token = || Some(Arc::new(Zeroizing::new(text.to_owned())));
        let place = if text.starts_with(AGENT) {
            &mut self.agent
        } else if text.starts_with(SESSION) {
            &mut self.session
        } else {
            self.is_bad = true;
            return self;
        };
        match place {
            Some(before) if before.as_str() != text => self.is_bad = true,
            _ if text.len() > MAX_TOKEN_LEN => self.is_bad = true,
            _ => *place = token(),
        }
        self
    }

    /// Adds what a `Proxy-Authorization` says: `Bearer TOKEN`, or `Basic` with the token for its password and
    /// the agent's name, or none, for its user.
    pub fn with_authorization(mut self, value: &[u8]) -> Self {
        let said = std::str::from_utf8(value).ok().and_then(|text| text.trim().split_once(' '));
        match said.map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest.trim())) {
            Some((scheme, token)) if scheme == "bearer" => self.with_token(token),
            Some((scheme, login)) if scheme == "basic" => {
                let login = STANDARD.decode(login).ok().map(Zeroizing::new);
                let login = login.as_ref().and_then(|bytes| std::str::from_utf8(bytes).ok());
                let Some((user, password)) = login.and_then(|login| login.split_once(':')) else {
                    self.is_bad = true;
                    return self;
                };
                // Clients that can only send a user send the token there.
                let (user, token) = if password.is_empty() { ("", user) } else { (user, password) };
                let named = if USERS_WITHOUT_AGENT.contains(&user) { self } else { self.with_name(user) };
                named.with_token(token)
            }
            _ => {
                self.is_bad = true;
                self
            }
        }
    }

    /// Adds the name of the agent that it says it is.
    pub fn with_name(mut self, name: &str) -> Self {
        if self.name.as_deref().is_some_and(|before| before != name) {
            self.is_bad = true;
        }
        self.name = Some(name.to_owned());
        self
    }

    /// Adds what the connection showed before this request came by it.
    pub fn and(mut self, other: &Self) -> Self {
        self.is_bad |= other.is_bad;
        for token in [&other.agent, &other.session].into_iter().flatten() {
            self = self.with_token(token);
        }
        match &other.name {
            Some(name) => self.with_name(name),
            None => self,
        }
    }
}

impl std::fmt::Debug for PresentedCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PresentedCredentials").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> (Option<String>, Option<String>, Option<String>, bool) {
        let shown = PresentedCredentials::default().with_authorization(value.as_bytes());
        let text = |token: &Option<Token>| token.as_ref().map(|token| token.to_string());
        (text(&shown.agent), text(&shown.session), shown.name.clone(), shown.is_bad)
    }

    #[test]
    fn proxy_tokens_are_read_in_each_form() {
        let (agent, session) = (Some("as_agent_1".to_owned()), Some("as_sess_1".to_owned()));
        let basic = |login: &str| format!("Basic {}", STANDARD.encode(login));
        assert_eq!(shown("Bearer as_agent_1"), (agent.clone(), None, None, false));
        assert_eq!(shown(&basic("coder:as_agent_1")), (agent.clone(), None, Some("coder".into()), false));
        assert_eq!(shown(&basic("token:as_sess_1")), (None, session.clone(), None, false));
        assert_eq!(shown(&basic("as_sess_1:")), (None, session, None, false));
    }

    #[test]
    fn foreign_token_is_not_ignored() {
        for bad in ["", "Bearer", "Bearer x", "Digest a=b", "Basic %%", "Basic Y29kZXI=", "bearer ghp_1"] {
            assert!(shown(bad).3, "{bad}");
        }
        let two = PresentedCredentials::default().with_token("as_agent_1").with_token("as_agent_2");
        assert!(two.is_bad && !two.is_empty());
        let again = PresentedCredentials::default().with_token("as_agent_1");
        assert!(!again.clone().and(&again).is_bad);
    }

    #[test]
    fn debug_output_hides_tokens() {
        let shown = PresentedCredentials::default().with_token("as_agent_secret");
        assert!(!format!("{shown:?}").contains("secret"));
    }
}
