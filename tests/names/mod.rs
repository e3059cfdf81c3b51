//! Names whole: every kind of resolver that agents bring asks ours, which asks the system's servers about
//! allowed names and nobody about others.

mod clients;
mod keeping;

use crate::spine::{SECRET, World};
use crate::support::nameserver::{Data, Entry, Nameserver};
use crate::support::netns::Netns;
use crate::support::process::{Outcome, command, finish};
use crate::support::upstream::{Options, Upstream};

/// A world in whose second network stands the system's name server. Policy allows `*.up.test`.
struct Names {
    world: World,
    netns: Netns,
    server: Nameserver,
}

impl Names {
    fn new(more: &[Entry]) -> Self {
        Self::inside(Netns::new(), more, "")
    }

    /// `configuration` is what else stands in `/etc/resolv.conf`.
    fn inside(netns: Netns, more: &[Entry], configuration: &str) -> Self {
        let mut world = World::new();
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
        world.home.resolv_conf(&format!("nameserver {}\n{configuration}", netns.there4()));
        world.rules(&[("'*.up.test'", world.api.port(), "secrets: [API_KEY]")]);
        Self { world, netns, server }
    }

    /// Runs a Python program as an agent, and gives the lines that it prints.
    #[track_caller]
    fn python(&self, program: &str) -> Vec<String> {
        let mut python = self.world.home.run_agent(["/usr/bin/python3", "-c", program]);
        lines(finish(&mut python))
    }
}

#[track_caller]
fn lines(outcome: Outcome) -> Vec<String> {
    outcome.ok().lines().map(str::to_owned).collect()
}
