//! The server an exchange is for. SNI, Host or `:authority`, and the absolute URI must name the same
//! one, or there is no `Target` and nothing happens.

use std::fmt;

use http::Method;
use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;

use crate::host::Host;
use crate::rejection::{ErrorCode, Rejection};

/// The scheme of the target's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP: may be forwarded, never with a secret.
    Http,
    /// HTTP over TLS.
    Https,
}

/// The agreed authority.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Plain or TLS.
    pub scheme: Scheme,
    /// The server's name or address.
    pub host: Host,
    /// The server's port, which is the port the agent connected to.
    pub port: u16,
}

/// The claim of a connection about its server, before any request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It is this one: TLS was terminated under the name, or a proxy was asked for it.
    Named {
        /// Plain or TLS.
        scheme: Scheme,
        /// The name.
        host: Host,
        /// The port that was connected to.
        port: u16,
    },
    /// Plain HTTP: each request names its server.
    Plain {
        /// The port that was connected to.
        port: u16,
    },
    /// Nothing: each request names its server in an absolute URI, port and scheme included.
    Absolute,
}

impl Target {
    /// The authority on which the `claim` of the way in, the URI and the Host header agree.
    pub fn agree(claim: &Claim, parts: &Parts) -> Result<Self, Rejection> {
        if parts.method == Method::CONNECT {
            return Err(bad("a tunnel inside an intercepted connection is refused"));
        }
        let mut hosts = parts.headers.get_all(HOST).iter();
        let header = match (hosts.next(), hosts.next()) {
            (None, _) => None,
            (Some(host), None) => Some(authority(host.as_bytes())?),
            (Some(_), Some(_)) => return Err(bad("more than one Host header")),
        };
        let uri = parts
            .uri
            .authority()
            .map(|authority| self::authority(authority.as_str().as_bytes()))
            .transpose()?;
        let (scheme, port) = match claim {
            Claim::Named { scheme, port, .. } => (*scheme, *port),
            Claim::Plain { port } => (Scheme::Http, *port),
            Claim::Absolute => {
                let scheme = parts.uri.scheme_str().and_then(Scheme::named);
                let scheme = scheme.ok_or_else(|| bad("the URL must begin with https:// or http://"))?;
                let named = uri.as_ref().and_then(|(_, port)| *port);
                (scheme, named.unwrap_or(scheme.default_port()))
            }
        };
        if parts.uri.scheme_str().is_some_and(|named| named != scheme.as_str()) {
            return Err(mismatch("the URI's scheme is not the connection's"));
        }
        let (named, named_port) = match (header, uri) {
            (Some(header), Some(uri)) if header != uri => {
                return Err(mismatch("the Host header and the URI name different servers"));
            }
            (_, Some(named)) | (Some(named), None) => (Some(named.0), named.1),
            (None, None) => (None, None),
        };
        if named_port.is_some_and(|named| named != port) {
            return Err(mismatch("the request names another port than the one it was sent to"));
        }
        let host = match (claim, named) {
            (Claim::Named { host, .. }, Some(named)) if *host != named => {
                return Err(mismatch("the connection and the request name different servers"));
            }
            (Claim::Named { host, .. }, _) => host.clone(),
            (Claim::Plain { .. } | Claim::Absolute, Some(named)) => named,
            (Claim::Plain { .. } | Claim::Absolute, None) => {
                return Err(bad("the request names no server (Host header)"));
            }
        };
        Ok(Self { scheme, host, port })
    }

    /// `host:port` as a Host header says it: the scheme's own port is left out.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

fn authority(bytes: &[u8]) -> Result<(Host, Option<u16>), Rejection> {
    let authority = Authority::try_from(bytes).map_err(|_| bad("the server's name is not valid"))?;
    if authority.as_str().contains('@') {
        return Err(bad("the server's name holds user information"));
    }
    // The library's own `port()` takes a port that is out of range for none.
    let port = match authority.as_str().strip_prefix(authority.host()) {
        Some("") => None,
        Some(rest) => match rest.strip_prefix(':').map(str::parse) {
            Some(Ok(port)) => Some(port),
            _ => return Err(bad("the server's port is not valid")),
        },
        None => return Err(bad("the server's name is not valid")),
    };
    let host = authority.host().parse().map_err(|_| bad("the server's name is not valid"))?;
    Ok((host, port))
}

fn bad(message: &str) -> Rejection {
    Rejection::new(ErrorCode::BadRequest, message)
}

fn mismatch(message: &str) -> Rejection {
    Rejection::new(ErrorCode::TargetMismatch, format!("{message}; open one connection per server"))
}

impl Scheme {
    /// The scheme that a URI calls so.
    fn named(name: &str) -> Option<Self> {
        [Scheme::Http, Scheme::Https].into_iter().find(|scheme| scheme.as_str() == name)
    }

    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port that its URLs leave out.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agree(claim: &Claim, uri: &str, hosts: &[&str]) -> Result<String, ErrorCode> {
        let mut request = http::Request::get(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Target::agree(claim, &parts).map(|target| target.to_string()).map_err(|rejection| rejection.code)
    }

    fn tls(name: &str, port: u16) -> Claim {
        Claim::Named { scheme: Scheme::Https, host: name.parse().unwrap(), port }
    }

    #[test]
    fn agreeing_names_make_a_target() {
        let claim = tls("api.test", 8443);
        for (uri, hosts) in [
            ("/", &["api.test"][..]),
            ("/", &["API.test:8443"]),
            ("/", &[]),
            ("https://api.test:8443/", &[]),
            ("https://api.test:8443/", &["api.test:8443"]),
        ] {
            assert_eq!(agree(&claim, uri, hosts).as_deref(), Ok("https://api.test:8443"), "{uri} {hosts:?}");
        }
        assert_eq!(agree(&Claim::Plain { port: 80 }, "/", &["api.test"]).as_deref(), Ok("http://api.test"));
        assert_eq!(agree(&tls("::1", 443), "/", &["[::1]"]).as_deref(), Ok("https://[::1]"));
    }

    #[test]
    fn absolute_uri_alone_names_the_target() {
        for (uri, hosts, target) in [
            ("https://API.test/a", &[][..], "https://api.test"),
            ("https://api.test:8443/a", &["api.test:8443"], "https://api.test:8443"),
            ("http://api.test/", &["api.test"], "http://api.test"),
            ("http://[::1]:8080/", &[], "http://[::1]:8080"),
        ] {
            assert_eq!(agree(&Claim::Absolute, uri, hosts).as_deref(), Ok(target), "{uri}");
        }
        for (uri, hosts, slug) in [
            ("https://api.test/", &["evil.test"][..], ErrorCode::TargetMismatch),
            ("https://api.test/", &["api.test:444"], ErrorCode::TargetMismatch),
            ("ftp://api.test/", &[], ErrorCode::BadRequest),
            ("/", &["api.test"], ErrorCode::BadRequest),
            ("https://api.test:0x1bb/", &[], ErrorCode::BadRequest),
            ("https://user@api.test/", &[], ErrorCode::BadRequest),
        ] {
            let Ok(uri) = uri.parse::<http::Uri>() else { continue };
            assert_eq!(agree(&Claim::Absolute, &uri.to_string(), hosts), Err(slug), "{uri}");
        }
    }

    #[test]
    fn disagreeing_names_are_refused() {
        let claim = tls("api.test", 443);
        for (uri, hosts, slug) in [
            ("/", &["evil.test"][..], ErrorCode::TargetMismatch),
            ("/", &["api.test:444"], ErrorCode::TargetMismatch),
            ("https://evil.test/", &["api.test"], ErrorCode::TargetMismatch),
            ("http://api.test/", &["api.test"], ErrorCode::TargetMismatch),
            ("https://evil.test/", &[], ErrorCode::TargetMismatch),
            ("/", &["api.test", "api.test"], ErrorCode::BadRequest),
            ("/", &["user@api.test"], ErrorCode::BadRequest),
            ("/", &["api.test:"], ErrorCode::BadRequest),
            ("/", &["api.test:99999"], ErrorCode::BadRequest),
            ("/", &["api test"], ErrorCode::BadRequest),
            ("/", &[""], ErrorCode::BadRequest),
        ] {
            assert_eq!(agree(&claim, uri, hosts), Err(slug), "{uri} {hosts:?}");
        }
        assert_eq!(agree(&Claim::Plain { port: 80 }, "/", &[]), Err(ErrorCode::BadRequest));
    }
}
