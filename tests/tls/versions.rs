//! TLS 1.2 and 1.3 on both sides, chains in any order, and servers with IP addresses.

use super::*;

#[test]
fn tls12_and_tls13_work_on_both_sides() {
    for old in [false, true] {
        let fixture = Fixture::with(|authority| {
            let mut options = Options::https(authority, &["api.test"]);
            options.tls.as_mut().unwrap().is_tls12_only = old;
            Upstream::start(options)
        });
        for client in [&["--tls-max", "1.2"][..], &["--tlsv1.3"], &["--no-alpn"], &["--http1.0"]] {
            fixture.curl(client, "/echo").ok();
        }
        for received in fixture.api.received() {
            assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
            let version = if old { "TLSv1_2" } else { "TLSv1_3" };
            assert_eq!(received.peer.version.as_deref(), Some(version));
        }
        assert_eq!(fixture.api.received().len(), 4);
    }
}

#[test]
fn server_chain_order_does_not_matter() {
    let fixture = Fixture::with(|authority| {
        let mut options = Options::https(authority, &["api.test"]);
        options.tls.as_mut().unwrap().has_intermediate = true;
        Upstream::start(options)
    });
    fixture.curl(&[], "/echo").ok();
    assert_eq!(fixture.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
}

#[test]
fn ip_address_server_is_verified() {
    for address in ["127.0.0.1", "[::1]"] {
        let bare = address.trim_matches(['[', ']']);
        let fixture = Fixture::with(|authority| {
            let at = std::net::SocketAddr::new(bare.parse().unwrap(), 0);
            Upstream::start(Options::https(authority, &[bare]).at(at))
        });
        let port = fixture.api.port();
        fixture.rules(&[(&format!("'{address}'"), port, "secrets: [API_KEY]")]);
        let url = format!("https://{address}:{port}/echo");
        fixture.curl_at(&[], &url).ok();
        assert_eq!(fixture.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
        assert_eq!(fixture.api.only_request().peer.sni, None);
        // The name decides: under an unlisted name the same server is not allowed.
        let (code, rejection) = fixture.rejected(&["-k"], &format!("https://localhost:{port}/"));
        assert_eq!((code.as_str(), &rejection["error"]), ("403", &"domain_not_in_allowlist".into()));
    }
}
