//! Desktop notifications about pending requests.

use std::collections::HashMap;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use zbus::zvariant::OwnedValue;

use super::*;
use crate::support::keychain::Keychain;

/// A D-Bus notification service.
struct NotificationServer(Sender<(String, String)>);

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl NotificationServer {
    #[expect(clippy::too_many_arguments, reason = "the specification's")]
    fn notify(
        &self,
        _application: &str,
        _replaces: u32,
        _icon: &str,
        summary: &str,
        body: &str,
        _actions: Vec<String>,
        _hints: HashMap<String, OwnedValue>,
        _expires: i32,
    ) -> u32 {
        self.0.send((summary.to_owned(), body.to_owned())).unwrap();
        7
    }
}

#[test]
fn desktop_notification_has_no_values_or_markup() {
    let fixture = fixture_with_approval("30s", "");
    let session = Keychain::absent();
    let (shown, seen) = channel();
    let address = format!("unix:path={}", session.folder().join("bus").display());
    let _desktop = zbus::blocking::connection::Builder::address(&*address)
        .and_then(|builder| builder.name("org.freedesktop.Notifications"))
        .and_then(|builder| builder.serve_at("/org/freedesktop/Notifications", NotificationServer(shown)))
        .and_then(|builder| builder.build())
        .unwrap();
    let _watch = ApprovalWatcher::start_program(session.with_session(fixture.home.agentsecrets([
        "approvals",
        "--watch",
        "--notify",
    ])));
    let mut agent = RequestingAgent::start(&fixture);
    agent.send(&format!("'{}'", fixture.url("/pay/x&amp?card=4242")));
    let (summary, body) = seen.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(summary.contains("coder"), "{summary}");
    assert!(
        body.contains("GET https://api.test") && body.contains("API_KEY") && body.contains("card=…"),
        "{body}"
    );
    assert!(!body.contains("4242") && !body.contains(['<', '>']) && body.contains("&amp;amp"), "{body}");
    let id = body.rsplit(' ').next().unwrap().to_owned();
    operator(&fixture.home, &["deny", &id]).ok();
    assert_eq!(agent.response().0, 403);
}

#[test]
fn missing_desktop_is_reported() {
    let fixture = fixture_with_approval("30s", "");
    let mut watch = fixture.home.agentsecrets(["approvals", "--watch", "--notify"]);
    let outcome = run(watch.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus"));
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("no desktop"), "{outcome:?}");
}
