//! Compiles the options of upstream connections that rules and minted credentials share.

use std::sync::Arc;

use ipnet::IpNet;
use serde_yaml::Spanned;

use super::diagnostics::Diagnostics;
use super::schema::{self, Text};
use crate::policy::private_addresses::PrivateAddresses;
use crate::tls::verify::CustomRoots;
use crate::types::printable::excerpt;

impl Diagnostics {
    pub(super) fn roots(&mut self, text: &Text) -> Option<Arc<CustomRoots>> {
        let path = self.folder.join(&text.value);
        let roots = self.referenced_files.read(path, CustomRoots::read);
        self.check(text, roots).map(Arc::new)
    }

    pub(super) fn private(&mut self, spanned: &Spanned<schema::Private>) -> PrivateAddresses {
        let networks = match &spanned.value {
            schema::Private::Plain(true) => return PrivateAddresses::Any,
            schema::Private::Plain(false) => return PrivateAddresses::None,
            schema::Private::Within(networks) => networks,
        };
        if networks.is_empty() {
            self.error(
                spanned,
                "'private' lists no network: name some, such as 10.2.0.0/16, or leave it out",
            );
        }
        let networks = networks.iter().filter_map(|text| self.check(spanned, parse_network(text)));
        PrivateAddresses::Within(networks.collect::<Vec<_>>().into())
    }
}

pub(super) fn parse_port(port: u16) -> Result<u16, &'static str> {
    if port == 0 { Err("a port is a number from 1 to 65535") } else { Ok(port) }
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<std::net::IpAddr>().map(IpNet::from);
    let error = |_| format!("'{}' is not a network; write it as 10.2.0.0/16, or true for any", excerpt(text));
    text.parse::<IpNet>().or(address).map(|network| network.trunc()).map_err(error)
}
