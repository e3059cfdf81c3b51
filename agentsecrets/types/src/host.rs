//! The name of a server: one normal form, so that policy, certificate, dialling and record compare
//! the same thing. A `Host` exists only when valid.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A DNS name in lower case without a final dot, or an IP address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A DNS name: lower-case ASCII labels.
    Name(std::sync::Arc<str>),
    /// An IP address; IPv4-mapped IPv6 addresses are kept as IPv4.
    Ip(IpAddr),
}

/// Why text is no host.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a valid host name")]
pub struct InvalidHost;

impl Host {
    /// The IP address, where the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Host::Ip(ip) => Some(*ip),
            Host::Name(_) => None,
        }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Host::Ip(ip.to_canonical())
    }
}

impl FromStr for Host {
    type Err = InvalidHost;

    /// Reads a name, an IPv4 address, or an IPv6 address with or without brackets. Internationalised
    /// names must come in their ASCII form, as they do on the wire.
    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        if let Ok(ip) = bare.unwrap_or(text).parse::<IpAddr>() {
            return Ok(ip.into());
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() || name.len() > 253 || !name.split('.').all(is_label) {
            return Err(InvalidHost);
        }
        // A last label of digits would be read as an IPv4 address by some programs ("127.1", "2130706433").
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|b| b.is_ascii_digit()) || looks_hexadecimal(last) {
            return Err(InvalidHost);
        }
        Ok(Host::Name(name.to_ascii_lowercase().into()))
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn looks_hexadecimal(label: &str) -> bool {
    label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"))
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Option<String> {
        text.parse::<Host>().ok().map(|host| host.to_string())
    }

    #[test]
    fn names_are_normalized() {
        assert_eq!(host("API.Stripe.com.").as_deref(), Some("api.stripe.com"));
        assert_eq!(host("[::FFFF:127.0.0.1]").as_deref(), Some("127.0.0.1"));
        assert_eq!(host("::1").as_deref(), Some("[::1]"));
    }

    #[test]
    fn disguised_address_or_invalid_name_is_refused() {
        for bad in [
            "",
            ".",
            "a..b",
            "-a.com",
            "a_b c",
            "127.1",
            "2130706433",
            "0x7f000001",
            "a.0x1",
            "a/b",
            "a@b",
            "a:80",
            "é.com",
        ] {
            assert_eq!(host(bad), None, "{bad}");
        }
    }
}
