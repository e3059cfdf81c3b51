//! Search domains, the hosts file, how long answers are kept, and servers that do not answer.

use super::*;

#[test]
fn search_domains_do_not_lead_away_from_an_allowed_name() {
    let names = Names::inside(Netns::new(), &[], "search svc.test corp.test\noptions ndots:5\n");
    let found = names.python(
        "import socket\n\
         for name in ['four.up.test', 'nothing.test']: print(socket.getaddrinfo(name, 443)[0][4][0])",
    );
    assert_eq!(found[0], "192.0.2.4");
    assert!(found[1].starts_with("198.18.0.") || found[1].starts_with("fd61:"), "{found:?}");
    let asked = names.server.asked();
    assert!(
        !asked.iter().any(|asked| asked.contains("svc.test") || asked.contains("corp.test")),
        "{asked:?}"
    );
}

#[test]
fn the_hosts_file_is_asked_first_also_for_those_who_do_not_read_it() {
    let mut names = Names::new(&[("both.up.test", 60, Data::Text("beside the hosts file".into()))]);
    names.world.home.host("both.up.test", [192, 0, 2, 77]);
    names.world.home.host("listed.up.test", [192, 0, 2, 78]);
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
fn an_answer_is_kept_as_long_as_it_holds_and_no_longer() {
    let names = Names::new(&[
        ("never.up.test", 0, Data::Ip([192, 0, 2, 20].into())),
        ("short.up.test", 1, Data::Ip([192, 0, 2, 21].into())),
    ]);
    // The third name is asked for beyond the second for which its answer holds.
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
    assert_eq!(names.server.times("four.up.test. A"), 1);
    assert_eq!(names.server.times("never.up.test. A"), 2);
    assert_eq!(names.server.times("short.up.test. A"), 2);
}

#[test]
fn a_server_that_is_silent_about_a_name_holds_up_that_name_alone() {
    let names = Names::new(&[("silent.up.test", 60, Data::Silence)]);
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
fn the_next_server_is_asked_when_the_first_is_not_there() {
    let mut names = Names::new(&[]);
    // At its other address nobody answers on port 53.
    let (dead, good) = (names.netns.there6(), names.netns.there4());
    names.world.home.resolv_conf(&format!("nameserver {dead}\nnameserver {good}\n"));
    let found = names.python("import socket; print(socket.getaddrinfo('four.up.test', 443)[0][4][0])");
    assert_eq!(found, ["192.0.2.4"]);
}

#[test]
fn names_that_no_rule_allows_have_addresses_that_never_collide() {
    let names = Names::new(&[]);
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
    assert!(names.server.asked().is_empty());
}

/// A name that leads to a public address while it is looked at, and to this machine when it is dialled.
#[test]
fn a_name_that_is_bound_anew_after_it_was_looked_at_leads_nowhere_private() {
    let public = [192, 0, 2, 4].into();
    for private in [false, true] {
        let names = Names::new(&[("rebind.up.test", 0, Data::Rebinds(public, [127, 0, 0, 1].into()))]);
        let port = names.world.api.port();
        let rule = format!("{{ host: rebind.up.test, ports: [{port}], private: {private} }}");
        names.world.home.policy(&format!("version: 1\nagents:\n  - {{ name: coder, allow: [{rule}] }}\n"));
        // The name is looked up by the agent, which then connects, and by us, who then dial.
        let url = format!("https://rebind.up.test:{port}/");
        let mut curl = names.world.home.run_agent(["curl", "-4sS", "-o", "/dev/null", "-w", "%{http_code}"]);
        let said = finish(curl.arg(url));
        assert!(names.server.times("rebind.up.test. A") >= 2, "{:?}", names.server.asked());
        let reason = names.world.home.audit().pop().unwrap()["reason"].to_string();
        if private {
            // It was dialled, and is not who it says.
            assert!(reason.contains("upstream_untrusted"), "{reason} {said:?}");
        } else {
            assert_eq!((said.stdout.as_str(), reason.as_str()), ("403", "\"ssrf_protection_blocked\""));
        }
    }
}
