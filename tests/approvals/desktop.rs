//! The desktop tells a person that something waits.

use std::collections::HashMap;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use zbus::zvariant::OwnedValue;

use super::*;
use crate::support::keychain::Keychain;

/// A desktop that shows notifications.
struct Shown(Sender<(String, String)>);

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Shown {
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
fn a_notification_says_what_waits_without_values_or_markup() {
    let world = holding("30s", "");
    let session = Keychain::absent();
    let (shown, seen) = channel();
    let address = format!("unix:path={}", session.folder().join("bus").display());
    let _desktop = zbus::blocking::connection::Builder::address(&*address)
        .and_then(|builder| builder.name("org.freedesktop.Notifications"))
        .and_then(|builder| builder.serve_at("/org/freedesktop/Notifications", Shown(shown)))
        .and_then(|builder| builder.build())
        .unwrap();
    let _watch = Watching::of(session.at(world.home.agentsecrets(["approvals", "--watch", "--notify"])));
    let mut agent = Asking::of(&world);
    agent.ask(&format!("'{}'", world.url("/pay/x&amp?card=4242")));
    let (summary, body) = seen.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(summary.contains("coder"), "{summary}");
    assert!(
        body.contains("GET https://api.test") && body.contains("API_KEY") && body.contains("card=…"),
        "{body}"
    );
    assert!(!body.contains("4242") && !body.contains(['<', '>']) && body.contains("&amp;amp"), "{body}");
    let id = body.rsplit(' ').next().unwrap().to_owned();
    person(&world.home, &["deny", &id]).ok();
    assert_eq!(agent.told().0, 403);
}

#[test]
fn without_a_desktop_that_is_said() {
    let world = holding("30s", "");
    let mut watch = world.home.agentsecrets(["approvals", "--watch", "--notify"]);
    let outcome = finish(watch.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus"));
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("no desktop"), "{outcome:?}");
}
