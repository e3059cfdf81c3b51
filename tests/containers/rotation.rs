//! A secret's file changes while agents work.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::Engine;
use super::site::SECRET;
use crate::support::process::until;

const NEXT: &str = "sk_live_N3xtV4lu3ThatT0okItsPl4ce00";

#[test]
fn a_new_value_is_spent_without_a_restart_and_the_old_one_stays_out_of_answers() {
    let engine = Engine::new();
    let (service, agent) = (engine.service(), engine.agent());
    // One connection, from before to long after: each line is a request on it.
    let script = "import http.client, ssl, sys\n\
        c = http.client.HTTPSConnection('api.test', int(sys.argv[1]))\n\
        for line in sys.stdin:\n\
        \x20   c.request('POST', '/echo', line.strip(), {'Authorization': 'Bearer AS_SECRET_STRIPE_KEY'})\n\
        \x20   print(c.getresponse().read().decode().replace('\\n', ' '), flush=True)\n";
    let port = engine.api.port().to_string();
    let mut client = agent
        .beside(&["/usr/bin/python3", "-c", script, &port])
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

    engine.write("secrets/STRIPE_KEY", NEXT);
    until("the new value is spent", || {
        ask("still the old one, or refused for a moment").1 == format!("Bearer {NEXT}")
    });
    // Whoever stored the old value says it now: the agent's own words are not searched, but the echo is.
    let (answer, spent) = ask(&format!("the server remembers {SECRET}"));
    assert_eq!(spent, format!("Bearer {NEXT}"));
    assert!(answer.contains("the server remembers") && !answer.contains(SECRET), "{answer}");
    assert!(!answer.contains(NEXT), "{answer}");
    drop(input);
    client.wait().unwrap();
    // A third value: the first is still not said.
    engine.write("secrets/STRIPE_KEY", "sk_live_Th1rdV4lueAfterTw0Others0000");
    until("the third value is spent", || {
        agent.curl(&[], &engine.url("/echo"));
        engine.api.received().pop().unwrap().header("authorization").contains("Th1rd")
    });
    let answer = agent.curl(&["-d", &format!("{SECRET} {NEXT}")], &engine.url("/echo")).ok();
    assert!(!answer.contains(SECRET) && !answer.contains(NEXT), "{answer}");
    assert!(!service.errors().contains(SECRET));
}
