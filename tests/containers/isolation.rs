//! Several agents behind one service in one network.

use super::Engine;
use super::testbed::{OTHER_SECRET, SECRET};

/// Two agents, each with its own user and secret.
fn policy(engine: &Engine) {
    engine.write("secrets/OTHER_KEY", OTHER_SECRET);
    let entry = |name: &str, uid: u32, secret: &str| {
        format!(
            "  - name: {name}\n    match: {{ uid: {uid} }}\n    allow:\n{}",
            engine.allow(&format!("secrets: [{secret}]"))
        )
    };
    engine.policy(&(entry("one", 1000, "STRIPE_KEY") + &entry("two", 1001, "OTHER_KEY")));
}

#[test]
fn two_agents_use_own_secrets_and_records() {
    let mut engine = Engine::new();
    policy(&engine);
    engine.add_secret("OTHER_KEY");
    let (service, one) = (engine.start_service(), engine.start_agent());
    let mut second = engine.compose.services["agent"].clone();
    second.user = "1001:1001".to_owned();
    let two = engine.start_agent_as(&second, None);
    // Both use the same source port and address in turn; the first record is not used for the second.
    let from = ["--local-port", "40123"];
    for turn in 0..6 {
        let (agent, secret, value) =
            if turn % 2 == 0 { (&one, "STRIPE_KEY", SECRET) } else { (&two, "OTHER_KEY", OTHER_SECRET) };
        let header = format!("Authorization: Bearer AS_SECRET_{secret}");
        let mut words = vec!["curl", "-sS", "-m", "20", "-H", &header];
        words.extend(from);
        let url = engine.url(&format!("/echo?turn={turn}"));
        agent.exec(words.into_iter().chain([&*url])).ok();
        let received = engine.api.received().pop().unwrap();
        assert_eq!(received.header("authorization"), format!("Bearer {value}"));
    }
    assert_eq!(two.status(&engine.url("/echo")), "403", "the other's placeholder");
    let records = service.audit();
    assert_eq!(records.len(), 7);
    for (record, agent) in records.iter().zip([&one, &two, &one, &two, &one, &two, &two]) {
        assert_eq!(record["process"]["container"], agent.id.as_str());
        assert_eq!(record["agent_id"], if agent.id == one.id { "one" } else { "two" });
    }
}

/// A loopback listener belongs to its agent although the containers share the device.
#[test]
fn agent_loopback_is_private() {
    let engine = Engine::new();
    let (_service, one, two) = (engine.start_service(), engine.start_agent(), engine.start_agent());
    let serve = "import socket; s = socket.create_server(('127.0.0.1', 8123)); print('up', flush=True)\n\
        while True: c = s.accept()[0]; c.sendall(b'mine'); c.close()";
    let mut server = one
        .exec_command(&["/usr/bin/python3", "-c", serve])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(server.stdout.as_mut().unwrap()), &mut output)
        .unwrap();
    assert_eq!(output, "up\n");
    let read = "import socket; s = socket.create_connection(('127.0.0.1', 8123), 5); s.settimeout(5)\n\
        s.sendall(b'GET / HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n'); print(s.recv(99))";
    let read = ["/usr/bin/python3", "-c", read];
    assert!(one.exec(read).stdout.contains("mine"));
    let other = two.exec(read);
    assert!(other.stdout.contains("403 Forbidden"), "{other:?}");
    server.kill().unwrap();
    server.wait().unwrap();
}

/// Two copies of the file on one machine, in two networks with the same loopback addresses.
#[test]
fn two_deployments_are_isolated() {
    let engines = [Engine::new(), Engine::new()];
    engines[1].write("secrets/STRIPE_KEY", OTHER_SECRET);
    // Each may reach both servers; only the caller's identity separates them.
    let ports = engines.each_ref().map(|engine| engine.api.port());
    for engine in &engines {
        engine.policy(&format!(
            "  - name: coder\n    allow:\n      - host: api.test\n        ports: {ports:?}\n        private: true\n        secrets: [STRIPE_KEY]\n"
        ));
    }
    let services = engines.each_ref().map(Engine::start_service);
    let agents = engines.each_ref().map(Engine::start_agent);
    for (engine, value) in engines.iter().zip([SECRET, OTHER_SECRET]) {
        for (agent, of) in agents.iter().zip(&engines) {
            let allowed = std::ptr::eq(of, engine);
            let there = format!("api.test:{}:{}", engine.api.port(), engine.netns.local4());
            let more = ["--local-port", "40321", "-k", "--resolve", &there];
            let outcome = agent.curl(&more, &engine.url("/echo"));
            let received = engine.api.received();
            if allowed {
                assert_eq!(received.last().unwrap().header("authorization"), format!("Bearer {value}"));
            } else {
                assert!(outcome.code != Some(0) || outcome.stdout.contains("\"error\""), "{outcome:?}");
            }
        }
        assert_eq!(engine.api.received().len(), 1);
    }
    for (service, agent) in services.iter().zip(&agents) {
        let records = service.audit();
        assert!(!records.is_empty());
        for record in records {
            assert_eq!(record["process"]["container"], agent.id.as_str());
        }
    }
}
