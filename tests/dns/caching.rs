//! Search domains, the hosts file, caching, and name servers that do not answer.

use super::*;

#[test]
fn search_domains_do_not_divert_allowed_name() {
    let names = DnsFixture::new_in(Netns::new(), &[], "search svc.test corp.test\noptions ndots:5\n");
    let found = names.python(
        "import socket\n\
         for name in ['four.up.test', 'nothing.test']: print(socket.getaddrinfo(name, 443)[0][4][0])",
    );
    assert_eq!(found[0], "192.0.2.4");
    assert!(found[1].starts_with("198.18.0.") || found[1].starts_with("fd61:"), "{found:?}");
    let queries = names.server.queries();
    assert!(
        !queries.iter().any(|queries| queries.contains("svc.test") || queries.contains("corp.test")),
        "{queries:?}"
    );
}

#[test]
fn hosts_file_comes_first() {
    let mut names = DnsFixture::new(&[("both.up.test", 60, Data::Text("beside the hosts file".into()))]);
    names.fixture.home.add_host("both.up.test", [192, 0, 2, 77]);
    names.fixture.home.add_host("listed.up.test", [192, 0, 2, 78]);
    let found = names.python(
        "import dns.resolver\n\
         print(dns.resolver.resolve('both.up.test', 'A')[0], dns.resolver.resolve('both.up.test', 'TXT')[0])\n\
         for name in ['both.up.test', 'listed.up.test']:\n  \
             print(dns.resolver.resolve(name, 'AAAA', raise_on_no_answer=False).rrset)\n\
         print(dns.resolver.resolve('listed.up.test', 'TXT', raise_on_no_answer=False).rrset)",
    );
    assert_eq!(found, ["192.0.2.77 \"beside the hosts file\"", "None", "None", "None"]);
}

#[test]
fn dns_answers_are_cached_for_their_ttl() {
    let names = DnsFixture::new(&[
        ("never.up.test", 0, Data::Ip([192, 0, 2, 20].into())),
        ("short.up.test", 1, Data::Ip([192, 0, 2, 21].into())),
    ]);
    // The third query comes after the TTL of the second answer.
    let found = names.python(
        r#"
import dns.resolver, time
def ask(name):
    return dns.resolver.resolve(name, 'A').rrset.ttl
first = ask('four.up.test')
print(first, ask('four.up.test') <= first, ask('never.up.test'), ask('never.up.test'))
ask('short.up.test')
end = time.monotonic() + 1.5
while time.monotonic() < end:
    assert ask('short.up.test') <= 1
    time.sleep(0.05)  # within the budget of questions below a wildcard"#,
    );
    assert_eq!(found, ["60 True 0 0"]);
    assert_eq!(names.server.count("four.up.test. A"), 1);
    assert_eq!(names.server.count("never.up.test. A"), 2);
    assert_eq!(names.server.count("short.up.test. A"), 2);
}

#[test]
fn silent_name_server_delays_that_name_only() {
    let names = DnsFixture::new(&[("silent.up.test", 60, Data::Silence)]);
    let found = names.python(
        r#"
import dns.message, dns.query, dns.rcode, dns.resolver, threading, time
server = dns.resolver.Resolver().nameservers[0]
started = time.monotonic()
def silent():
    answer = dns.query.udp(dns.message.make_query('silent.up.test', 'A'), server, timeout=8)
    took = time.monotonic() - started
    print(dns.rcode.to_text(answer.rcode()), took < 5)
thread = threading.Thread(target=silent)
thread.start()
for _ in range(20): dns.resolver.resolve('four.up.test', 'A')
print(time.monotonic() - started < 2)
thread.join()"#,
    );
    assert_eq!(found, ["True", "SERVFAIL True"]);
}

#[test]
fn unreachable_name_server_fails_over() {
    let mut names = DnsFixture::new(&[]);
    // The second name server's other address has no listener on port 53.
    let (dead, good) = (names.netns.peer6(), names.netns.peer4());
    names.fixture.home.resolv_conf(&format!("nameserver {dead}\nnameserver {good}\n"));
    let found = names.python("import socket; print(socket.getaddrinfo('four.up.test', 443)[0][4][0])");
    assert_eq!(found, ["192.0.2.4"]);
}

#[test]
fn sinkhole_addresses_are_unique() {
    let names = DnsFixture::new(&[]);
    let found = names.python(
        r#"
import dns.resolver
seen = {}
for number in range(500):
    name = 'n%d.evil.test' % number
    for kind in ['A', 'AAAA']:
        address = str(dns.resolver.resolve(name, kind)[0])
        assert seen.setdefault(address, name) == name
print(len(seen))"#,
    );
    assert_eq!(found, ["1000"]);
    assert!(names.server.queries().is_empty());
}

/// A name that resolves to a public address first and to this machine when dialled.
#[test]
fn dns_rebinding_is_blocked() {
    let public = [192, 0, 2, 4].into();
    for private in [false, true] {
        let names = DnsFixture::new(&[("rebind.up.test", 0, Data::Rebinding(public, [127, 0, 0, 1].into()))]);
        let port = names.fixture.api.port();
        let rule = format!("{{ host: rebind.up.test, ports: [{port}], private: {private} }}");
        names
            .fixture
            .home
            .write_policy(&format!("version: 1\nagents:\n  - {{ name: coder, allow: [{rule}] }}\n"));
        // The agent resolves the name before it connects; the interceptor resolves it before it dials.
        let url = format!("https://rebind.up.test:{port}/");
        let mut curl =
            names.fixture.home.run_agent(["curl", "-4sS", "-o", "/dev/null", "-w", "%{http_code}"]);
        let output = run(curl.arg(url));
        assert!(names.server.count("rebind.up.test. A") >= 2, "{:?}", names.server.queries());
        let reason = names.fixture.home.audit().pop().unwrap()["reason"].to_string();
        if private {
            // It was dialled, but the certificate does not match.
            assert!(reason.contains("upstream_untrusted"), "{reason} {output:?}");
        } else {
            assert_eq!((output.stdout.as_str(), reason.as_str()), ("403", "\"ssrf_protection_blocked\""));
        }
    }
}
