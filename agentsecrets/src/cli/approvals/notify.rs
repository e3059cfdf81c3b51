//! A notification of the desktop for each request that waits, by the session's bus. It names no value, and what
//! an agent said of the request cannot be markup.

use std::collections::HashMap;

use anstream::eprintln;
use zbus::blocking::Connection;
use zbus::zvariant::Value;

use super::show::{masked, secrets};
use crate::approval::entry::Question;
use crate::audit::visible;
use crate::cli::{Exit, Failure};

/// The service, by the freedesktop specification.
const SERVICE: &str = "org.freedesktop.Notifications";
const PATH: &str = "/org/freedesktop/Notifications";
/// How much of one text is shown, in characters.
const MOST: usize = 200;

/// The person's desktop.
pub(super) struct Desktop(Connection);

impl Desktop {
    /// The desktop of this session.
    pub(super) fn find() -> Result<Self, Failure> {
        Connection::session().map(Self).map_err(|error| {
            Failure::new(Exit::Failure, format!("there is no desktop to notify: {error}"))
                .hint("run it in the session of your desktop, or without --notify")
        })
    }

    /// Tells of `question`. Where nobody shows notifications that is said, and not the end.
    pub(super) fn tell(&self, question: &Question) {
        let (summary, body) = words(question);
        let hints = HashMap::from([("urgency", Value::U8(2))]);
        let actions: &[&str] = &[];
        let notification = ("AgentSecrets", 0u32, "dialog-password", summary, body, actions, hints, -1i32);
        if let Err(error) = self.0.call_method(Some(SERVICE), PATH, Some(SERVICE), "Notify", &notification) {
            eprintln!("agentsecrets: the desktop shows no notification: {error}");
        }
    }
}

fn words(question: &Question) -> (String, String) {
    let summary = format!("Agent {} asks for your approval", question.agent);
    let body = format!(
        "{} {}\n{}\nagentsecrets approve {}",
        shown(&question.method),
        shown(&masked(&question.url)),
        secrets(&question.secrets),
        question.id
    );
    (summary, body)
}

/// Text from an agent, bounded, without characters that deceive or mean something in markup.
fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(MOST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    visible(&short).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn what_an_agent_says_is_no_markup_and_not_long() {
        assert_eq!(shown("/<b>a</b>&amp;\u{202e}\n"), "/&lt;b&gt;a&lt;/b&gt;&amp;amp;\\u{202e}\\u{a}");
        assert_eq!(shown(&"a".repeat(1000)).chars().count(), 201);
    }
}
