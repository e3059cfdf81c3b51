//! A secret file changes while agents work.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::Engine;
use super::testbed::SECRET;
use crate::support::process::wait_until;

const NEW_SECRET: &str = "sk_live_N3xtV4lu3ThatT0okItsPl4ce00";

#[test]
fn rotated_secret_is_used_and_old_value_stays_redacted() {
    let engine = Engine::new();
    let (service, agent) = (engine.start_service(), engine.start_agent());
    // One connection over the whole test: each line is a request on it.
    let script = "import http.client, ssl, sys\n\
        c = http.client.HTTPSConnection('api.test', int(sys.argv[1]))\n\
        for line in sys.stdin:\n\
        \x20   c.request('POST', '/echo', line.strip(), {'Authorization': 'Bearer AS_SECRET_STRIPE_KEY'})\n\
        \x20   print(c.getresponse().read().decode().replace('\\n', ' '), flush=True)\n";
    let port = engine.api.port().to_string();
    let mut client = agent
        .exec_command(&["/usr/bin/python3", "-c", script, &port])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, mut output) =
        (client.stdin.take().unwrap(), BufReader::new(client.stdout.take().unwrap()));
    let mut ask = |text: &str| {
        use std::io::Write;
        writeln!(input, "{text}").unwrap();
        let mut answer = String::new();
        output.read_line(&mut answer).unwrap();
        assert!(!answer.is_empty(), "the connection broke");
        let spent = engine.api.received().pop().unwrap().header("authorization").to_owned();
        (answer, spent)
    };
    assert_eq!(ask("first").1, format!("Bearer {SECRET}"));

    engine.write("secrets/STRIPE_KEY", NEW_SECRET);
    wait_until("the new value is spent", || {
        ask("still the old one, or refused for a moment").1 == format!("Bearer {NEW_SECRET}")
    });
    // The server now echoes the stored old value. The agent's own body is not searched, but the echo is.
    let (answer, spent) = ask(&format!("the server remembers {SECRET}"));
    assert_eq!(spent, format!("Bearer {NEW_SECRET}"));
    assert!(answer.contains("the server remembers") && !answer.contains(SECRET), "{answer}");
    assert!(!answer.contains(NEW_SECRET), "{answer}");
    drop(input);
    client.wait().unwrap();
    // After a third value the first one is still redacted.
    engine.write("secrets/STRIPE_KEY", "sk_live_Th1rdV4lueAfterTw0Others0000");
    wait_until("the third value is spent", || {
        agent.curl(&[], &engine.url("/echo"));
        engine.api.received().pop().unwrap().header("authorization").contains("Th1rd")
    });
    let answer = agent.curl(&["-d", &format!("{SECRET} {NEW_SECRET}")], &engine.url("/echo")).ok();
    assert!(!answer.contains(SECRET) && !answer.contains(NEW_SECRET), "{answer}");
    assert!(!service.errors().contains(SECRET));
}
