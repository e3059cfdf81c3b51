//! glibc, musl, c-ares, and queries as Go and dnspython send them.

use super::*;

#[test]
fn glibc_resolves_allowed_and_sinkholes_rest() {
    let names = DnsFixture::new(&[]);
    let found = names.python(
        r#"
import socket
for name in ['both.up.test', 'four.up.test', 'www.up.test', 'BOTH.up.Test', 'none.up.test', 'secret.evil.test']:
    try: print(*sorted({entry[4][0] for entry in socket.getaddrinfo(name, 443)}))
    except socket.gaierror as error: print(error.errno == socket.EAI_NONAME)"#,
    );
    let both = "192.0.2.1 2001:db8::1";
    let ours = "198.18.0.1 fd61:6765:6e74::1";
    assert_eq!(found, [both, "192.0.2.4", both, both, "True", ours]);
    assert!(
        !names.server.queries().iter().any(|query| query.contains("evil")),
        "{:?}",
        names.server.queries()
    );
}

#[test]
fn dns_only_server_gets_credential() {
    let netns = Netns::new();
    let there = netns.peer4();
    let names = DnsFixture::new_in(netns, &[("api.up.test", 60, Data::Ip(there.into()))], "");
    let options = Options::https(&names.fixture.authority, &["api.up.test"]).at((there, 0));
    let api = Upstream::start(options.in_netns(&names.netns));
    names.fixture.rules(&[("'*.up.test'", api.port(), "secrets: [API_KEY]")]);
    names.fixture.curl_at(&[], &format!("https://api.up.test:{}/echo", api.port())).ok();
    assert_eq!(api.only_request().header("authorization"), format!("Bearer {SECRET}"));
}

#[test]
fn musl_resolves_names() {
    let names = DnsFixture::new(&[]);
    let folder = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let (source, program) = (folder.path().join("find.c"), folder.path().join("find"));
    std::fs::write(
        &source,
        r#"
#include <netdb.h>
#include <stdio.h>
#include <arpa/inet.h>
int main(int count, char **names) {
    for (int i = 1; i < count; i++) {
        struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *all, *one;
        int error = getaddrinfo(names[i], 0, &hints, &all);
        if (error) { printf("%s\n", error == EAI_NONAME ? "no name" : gai_strerror(error)); continue; }
        for (one = all; one; one = one->ai_next) {
            char text[64];
            getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
            printf("%s ", text);
        }
        printf("\n");
    }
}"#,
    )
    .unwrap();
    run(command("musl-gcc").args(["-static", "-o"]).args([&program, &source])).ok();
    let mut find = names.fixture.home.run_agent([&program]);
    let found = run(find.args(["both.up.test", "four.up.test", "none.up.test", "secret.evil.test"])).lines();
    let sorted = |line: &String| {
        let mut words: Vec<_> = line.split_whitespace().collect();
        words.sort();
        words.join(" ")
    };
    let found: Vec<String> = found.iter().map(sorted).collect();
    let ours = "198.18.0.1 fd61:6765:6e74::1";
    assert_eq!(found, ["192.0.2.1 2001:db8::1", "192.0.2.4", "name no", ours]);
}

#[test]
fn c_ares_gets_every_record_type() {
    let names = DnsFixture::new(&[]);
    let program = r#"
const dns = require('dns').promises;
const show = async (what) => console.log(JSON.stringify(await what.catch(error => error.code)));
(async () => {
  await show(dns.resolve4('both.up.test'));
  await show(dns.resolve6('both.up.test'));
  await show(dns.resolve6('four.up.test'));
  await show(dns.resolve4('www.up.test'));
  await show(dns.resolveCname('www.up.test'));
  await show(dns.resolveMx('zone.up.test'));
  await show(dns.resolveNs('zone.up.test'));
  await show(dns.resolveTxt('zone.up.test'));
  await show(dns.resolveTxt('long.up.test').then(text => text[0].join('').length));
  await show(dns.resolveSrv('_api._tcp.up.test'));
  await show(dns.resolve4('none.up.test'));
  await show(dns.resolve4('secret.evil.test'));
  await show(dns.resolveTxt('secret.evil.test'));
  await show(dns.lookup('four.up.test').then(found => found.address));
})();"#;
    let found = run(&mut names.fixture.home.run_agent(["node", "-e", program])).lines();
    let expected = [
        r#"["192.0.2.1"]"#,
        r#"["2001:db8::1"]"#,
        r#""ENODATA""#,
        r#"["192.0.2.1"]"#,
        r#"["both.up.test"]"#,
        r#"[{"exchange":"mail.up.test","priority":10}]"#,
        r#"["ns.up.test"]"#,
        r#"[["v=1 some text"]]"#,
        "3000",
        r#"[{"name":"four.up.test","port":443,"priority":1,"weight":2}]"#,
        r#""ENOTFOUND""#,
        r#"["198.18.0.1"]"#,
        r#""ENODATA""#,
        r#""192.0.2.4""#,
    ];
    assert_eq!(found, expected);
    assert!(!names.server.queries().iter().any(|query| query.contains("evil")));
}

#[test]
fn udp_tcp_edns_and_truncation_work() {
    let names = DnsFixture::new(&[]);
    let found = names.python(
        r#"
import dns.message, dns.query, dns.rdatatype, dns.flags, dns.resolver, dns.rcode
server = dns.resolver.Resolver().nameservers[0]
def ask(name, kind, edns=None, how=dns.query.udp):
    question = dns.message.make_query(name, kind, use_edns=edns is not None, payload=edns or 0)
    return how(question, server, timeout=8)
def show(answer):
    print(dns.rcode.to_text(answer.rcode()), len(answer.answer), bool(answer.flags & dns.flags.TC), answer.edns)
show(ask('both.up.test', 'A'))
show(ask('both.up.test', 'A', 1232))
show(ask('both.up.test', 'A', how=dns.query.tcp))
show(ask('long.up.test', 'TXT'))
show(ask('long.up.test', 'TXT', 4096))
show(ask('long.up.test', 'TXT', 4096, dns.query.tcp))
show(ask('both.up.test', 'HTTPS', 1232))
show(ask('both.up.test', 'SVCB', 1232))
show(ask('both.up.test', 'ANY', 1232))
show(ask('www.up.test', 'TXT', 1232))
show(ask('both.up.test', 'AXFR', 1232, dns.query.tcp))
answer, tcp = dns.query.udp_with_fallback(dns.message.make_query('long.up.test', 'TXT'), server, timeout=8)
print(tcp, len(answer.answer[0][0].strings))
print(dns.resolver.resolve('four.up.test', 'A')[0], dns.resolver.resolve('out.up.test', 'A')[0])"#,
    );
    let expected = [
        "NOERROR 1 False -1",
        "NOERROR 1 False 0",
        "NOERROR 1 False -1",
        "NOERROR 0 True -1",
        "NOERROR 0 True 0",
        "NOERROR 1 False 0",
        "NOERROR 0 False 0",
        "NOERROR 0 False 0",
        "NOERROR 0 False 0",
        "NOERROR 0 False 0",
        "REFUSED 0 False 0",
        "True 12",
        "192.0.2.4 192.0.2.9",
    ];
    assert_eq!(found, expected);
}

#[test]
fn concurrent_queries_from_one_socket_are_answered() {
    let names = DnsFixture::new(&[]);
    let found = names.python(
        r#"
import dns.message, dns.resolver, dns.flags, socket
server = dns.resolver.Resolver().nameservers[0]
for connected in [True, False]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(8)
    if connected: sock.connect((server, 53))
    questions = [dns.message.make_query('both.up.test', kind, use_edns=0, payload=1232) for kind in ['A', 'AAAA']]
    for question in questions:
        sock.send(question.to_wire()) if connected else sock.sendto(question.to_wire(), (server, 53))
    for _ in questions:
        data, peer = sock.recvfrom(4096)
        answer = dns.message.from_wire(data)
        asked = next(question for question in questions if question.is_response(answer))
        questions.index(asked)
        print(peer[0] == server, bool(answer.flags & dns.flags.RA), len(answer.answer))"#,
    );
    assert_eq!(found, ["True True 1"; 4]);
}
