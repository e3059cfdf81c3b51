//! Desktop notifications for pending requests, over the D-Bus session bus. They contain no value, and text
//! from an agent is escaped so that it is never markup.

use std::collections::HashMap;

use anstream::eprintln;
use zbus::blocking::Connection;
use zbus::zvariant::Value;

use super::show::{mask_query, secrets_summary};
use crate::approval::files::StoredRequest;
use crate::audit::visible;
use crate::types::failure::{ErrorContext, Failure};

/// The bus name of the freedesktop notification service.
const SERVICE: &str = "org.freedesktop.Notifications";
const PATH: &str = "/org/freedesktop/Notifications";
const MAX_TEXT_CHARS: usize = 200;

/// A connection to the session bus.
pub(super) struct Desktop(Connection);

impl Desktop {
    /// Connects to the session bus.
    pub(super) fn connect() -> Result<Self, Failure> {
        Connection::session()
            .map(Self)
            .context("there is no desktop to notify")
            .map_err(|failure| failure.hint("run it in the session of your desktop, or without --notify"))
    }

    /// Shows a notification for `question`. A failure is printed and ignored.
    pub(super) fn notify(&self, question: &StoredRequest) {
        let (summary, body) = notification_text(question);
        let hints = HashMap::from([("urgency", Value::U8(2))]);
        let actions: &[&str] = &[];
        let notification = ("AgentSecrets", 0u32, "dialog-password", summary, body, actions, hints, -1i32);
        if let Err(error) = self.0.call_method(Some(SERVICE), PATH, Some(SERVICE), "Notify", &notification) {
            eprintln!("agentsecrets: the desktop shows no notification: {error}");
        }
    }
}

fn notification_text(question: &StoredRequest) -> (String, String) {
    let summary = format!("Agent {} asks for your approval", question.agent);
    let body = format!(
        "{} {}\n{}\nagentsecrets approve {}",
        plain_text(&question.method),
        plain_text(&mask_query(&question.url)),
        secrets_summary(&question.secrets),
        question.id
    );
    (summary, body)
}

/// Text from an agent, shortened, with deceptive characters and markup escaped.
fn plain_text(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_TEXT_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    visible(&short).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::plain_text;

    #[test]
    fn agent_text_is_escaped_and_shortened() {
        assert_eq!(plain_text("/<b>a</b>&amp;\u{202e}\n"), "/&lt;b&gt;a&lt;/b&gt;&amp;amp;\\u{202e}\\u{a}");
        assert_eq!(plain_text(&"a".repeat(1000)).chars().count(), 201);
    }
}
