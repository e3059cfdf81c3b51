//! Several agents behind one service, in one network: each is itself.

use super::Engine;
use super::site::{OTHER, SECRET};

/// Two agents, each with a user and a secret of its own.
fn policy(engine: &Engine) {
    engine.write("secrets/OTHER_KEY", OTHER);
    let entry = |name: &str, uid: u32, secret: &str| {
        format!(
            "  - name: {name}\n    match: {{ uid: {uid} }}\n    allow:\n{}",
            engine.allow(&format!("secrets: [{secret}]"))
        )
    };
    engine.policy(&(entry("one", 1000, "STRIPE_KEY") + &entry("two", 1001, "OTHER_KEY")));
}

#[test]
fn each_spends_its_own_secret_and_has_its_own_records() {
    let mut engine = Engine::new();
    policy(&engine);
    engine.add_secret("OTHER_KEY");
    let (service, one) = (engine.service(), engine.agent());
    let mut second = engine.compose.services["agent"].clone();
    second.user = "1001:1001".to_owned();
    let two = engine.agent_as(&second, None);
    // From one port of one address, one after the other: nothing of the first is taken for the second.
    let from = ["--local-port", "40123"];
    for turn in 0..6 {
        let (agent, secret, value) =
            if turn % 2 == 0 { (&one, "STRIPE_KEY", SECRET) } else { (&two, "OTHER_KEY", OTHER) };
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

/// What listens on loopback in one container is that agent's alone, though both share the device.
#[test]
fn one_agents_loopback_is_not_anothers() {
    let engine = Engine::new();
    let (_service, one, two) = (engine.service(), engine.agent(), engine.agent());
    let serve = "import socket; s = socket.create_server(('127.0.0.1', 8123)); print('up', flush=True)\n\
        while True: c = s.accept()[0]; c.sendall(b'mine'); c.close()";
    let mut server =
        one.beside(&["/usr/bin/python3", "-c", serve]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(server.stdout.as_mut().unwrap()), &mut said)
        .unwrap();
    assert_eq!(said, "up\n");
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
fn two_deployments_do_not_see_each_others_agents() {
    let engines = [Engine::new(), Engine::new()];
    engines[1].write("secrets/STRIPE_KEY", OTHER);
    // To both, either's server is allowed and within reach: what parts them is whose agent asks.
    let ports = engines.each_ref().map(|engine| engine.api.port());
    for engine in &engines {
        engine.policy(&format!(
            "  - name: coder\n    allow:\n      - host: api.test\n        ports: {ports:?}\n        private: true\n        secrets: [STRIPE_KEY]\n"
        ));
    }
    let services = engines.each_ref().map(Engine::service);
    let agents = engines.each_ref().map(Engine::agent);
    for (engine, value) in engines.iter().zip([SECRET, OTHER]) {
        for (agent, of) in agents.iter().zip(&engines) {
            let allowed = std::ptr::eq(of, engine);
            let there = format!("api.test:{}:{}", engine.api.port(), engine.netns.here4());
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
