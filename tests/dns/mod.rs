//! DNS: every kind of resolver that agents use asks ours, which asks the system's servers for allowed names
//! only.

mod caching;
mod resolvers;

use crate::end_to_end::{Fixture, SECRET};
use crate::support::nameserver::{Data, Entry, Nameserver};
use crate::support::netns::Netns;
use crate::support::process::{command, run};
use crate::support::upstream::{Options, Upstream};

/// A fixture with the system's name server in a second network. The policy allows `*.up.test`.
struct DnsFixture {
    fixture: Fixture,
    netns: Netns,
    server: Nameserver,
}

impl DnsFixture {
    fn new(more: &[Entry]) -> Self {
        Self::new_in(Netns::new(), more, "")
    }

    /// `configuration` is appended to `/etc/resolv.conf`.
    fn new_in(netns: Netns, more: &[Entry], configuration: &str) -> Self {
        let mut fixture = Fixture::new();
        let entries: Vec<Entry> = [
            ("four.up.test", 3600, Data::Ip([192, 0, 2, 4].into())),
            ("both.up.test", 3600, Data::Ip([192, 0, 2, 1].into())),
            ("both.up.test", 3600, Data::Ip("2001:db8::1".parse().unwrap())),
            ("www.up.test", 3600, Data::Alias("both.up.test")),
            ("out.up.test", 3600, Data::Alias("elsewhere.test")),
            ("elsewhere.test", 3600, Data::Ip([192, 0, 2, 9].into())),
            ("zone.up.test", 3600, Data::Mail("mail.up.test")),
            ("zone.up.test", 3600, Data::Server("ns.up.test")),
            ("zone.up.test", 3600, Data::Text("v=1 some text".into())),
            ("_api._tcp.up.test", 3600, Data::Service("four.up.test")),
            ("long.up.test", 3600, Data::Text("x".repeat(3000))),
            ("secret.evil.test", 3600, Data::Ip([192, 0, 2, 66].into())),
        ]
        .into_iter()
        .chain(more.iter().cloned())
        .collect();
        let server = Nameserver::start(&netns, &entries);
        fixture.home.resolv_conf(&format!("nameserver {}\n{configuration}", netns.peer4()));
        fixture.rules(&[("'*.up.test'", fixture.api.port(), "secrets: [API_KEY]")]);
        Self { fixture, netns, server }
    }

    /// Runs a Python program as an agent; returns its output lines.
    #[track_caller]
    fn python(&self, program: &str) -> Vec<String> {
        let mut python = self.fixture.home.run_agent(["/usr/bin/python3", "-c", program]);
        run(&mut python).lines()
    }
}
