//! Both versions of TLS on both sides, chains in any order, and servers that are addresses.

use super::*;

#[test]
fn either_version_is_spoken_with_the_agent_and_with_the_server() {
    for old in [false, true] {
        let world = World::with(|authority| {
            let mut options = Options::https(authority, &["api.test"]);
            options.tls.as_mut().unwrap().old = old;
            Upstream::start(options)
        });
        for client in [&["--tls-max", "1.2"][..], &["--tlsv1.3"], &["--no-alpn"], &["--http1.0"]] {
            world.curl(client, "/echo").ok();
        }
        for received in world.api.received() {
            assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
            let version = if old { "TLSv1_2" } else { "TLSv1_3" };
            assert_eq!(received.peer.version.as_deref(), Some(version));
        }
        assert_eq!(world.api.received().len(), 4);
    }
}

#[test]
fn a_server_may_send_its_chain_in_any_order() {
    let world = World::with(|authority| {
        let mut options = Options::https(authority, &["api.test"]);
        options.tls.as_mut().unwrap().below = true;
        Upstream::start(options)
    });
    world.curl(&[], "/echo").ok();
    assert_eq!(world.api.only().header("authorization"), format!("Bearer {SECRET}"));
}

#[test]
fn a_server_that_is_an_address_has_it_in_both_certificates() {
    for address in ["127.0.0.1", "[::1]"] {
        let bare = address.trim_matches(['[', ']']);
        let world = World::with(|authority| {
            let at = std::net::SocketAddr::new(bare.parse().unwrap(), 0);
            Upstream::start(Options::https(authority, &[bare]).at(at))
        });
        let port = world.api.port();
        world.rules(&[(&format!("'{address}'"), port, "secrets: [API_KEY]")]);
        let url = format!("https://{address}:{port}/echo");
        world.curl_at(&[], &url).ok();
        assert_eq!(world.api.only().header("authorization"), format!("Bearer {SECRET}"));
        assert_eq!(world.api.only().peer.sni, None);
        // The name decides: the same server under a name that no rule has is another one.
        let (code, refusal) = world.refused(&["-k"], &format!("https://localhost:{port}/"));
        assert_eq!((code.as_str(), &refusal["error"]), ("403", &"domain_not_in_allowlist".into()));
    }
}
