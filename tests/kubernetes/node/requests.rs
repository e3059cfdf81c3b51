//! Requests of agents in guarded pods.

use serde_json::json;

use super::{Cluster, Driver, LABEL, OTHER_SECRET, SECRET};
use crate::support::process::wait_until;

#[test]
fn labelled_pod_gets_credential_and_record() {
    for driver in [Driver::Systemd, Driver::Cgroupfs] {
        let cluster = Cluster::new(driver);
        let service = cluster.start_service();
        let pod = cluster.pod("prod", "agent", &[LABEL]);
        service.wait_until_served(1);
        assert_eq!(pod.status("STRIPE_KEY"), "200", "{driver:?}");
        let received = cluster.server.only_request();
        assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
        let record = cluster.audit().pop().unwrap();
        assert_eq!(record["agent_id"], "coder");
        assert_eq!(record["identity_level"], "kernel");
        assert_eq!(record["process"]["pod"], pod.uid.as_str());
        assert_eq!(record["process"]["container"].as_str().unwrap().len(), 64);
        assert_eq!(record["process"]["uid"], 1000);
        // The test is in the node's pid namespace, so executables are proven too.
        assert!(record["process"]["exe"].as_str().unwrap().ends_with("/curl"), "{record}");
        // DNS is answered in the pod's own network.
        let port = cluster.server.port().to_string();
        let names = "import socket, sys; print(socket.getaddrinfo('api.test', int(sys.argv[1]))[0][4][0])";
        assert_eq!(pod.run(&["/usr/bin/python3", "-c", names, &port]).ok(), "127.0.0.1\n");
    }
}

#[test]
fn pod_identity_comes_from_cluster() {
    let cluster = Cluster::new(Driver::Systemd);
    let prod = cluster.agent_entry("coder", "pod: { namespace: prod, service_account: agent }", "STRIPE_KEY");
    let team = cluster.agent_entry("other", "pod: { namespace: prod, labels: { team: x } }", "OTHER_KEY");
    cluster.policy(&(prod + &team));
    let service = cluster.start_service();
    let right = cluster.pod("prod", "agent", &[LABEL]);
    let namespace = cluster.pod("test", "agent", &[LABEL, ("team", "x")]);
    let account = cluster.pod("prod", "default", &[LABEL]);
    let labelled = cluster.pod("prod", "default", &[LABEL, ("team", "x")]);
    service.wait_until_served(4);
    // Both use the same source address and port, since each has its own network.
    let from = ["--local-port", "40123", "-o", "/dev/null", "-w", "%{http_code}"];
    for (pod, secret, code) in [
        (&right, "STRIPE_KEY", "200"),
        (&right, "OTHER_KEY", "403"),
        (&namespace, "STRIPE_KEY", "403"),
        (&namespace, "OTHER_KEY", "403"),
        (&account, "STRIPE_KEY", "403"),
        (&labelled, "OTHER_KEY", "200"),
        (&labelled, "STRIPE_KEY", "403"),
    ] {
        assert_eq!(pod.curl(secret, &from, "/echo").ok(), code, "{secret}");
    }
    let spent: Vec<_> = cluster
        .server
        .received()
        .iter()
        .map(|received| received.header("authorization").to_owned())
        .collect();
    assert_eq!(spent, [format!("Bearer {SECRET}"), format!("Bearer {OTHER_SECRET}")]);
    let known: Vec<_> = cluster.audit().iter().map(|record| record["process"]["pod"].clone()).collect();
    let uids = [&right, &right, &namespace, &namespace, &account, &labelled, &labelled];
    assert_eq!(known, uids.map(|pod| json!(pod.uid)));
}

#[test]
fn label_change_applies_and_guarded_pod_stays_guarded() {
    let cluster = Cluster::new(Driver::Systemd);
    let team = |secret| cluster.agent_entry("coder", "pod: { namespace: prod, labels: { team: x } }", secret);
    cluster.policy(&team("STRIPE_KEY"));
    let service = cluster.start_service();
    let pod = cluster.pod("prod", "agent", &[]);
    service.wait_until("the pod is known", |status| status.known == 1);
    assert_eq!((service.read_status().guarded, cluster.hooked().len()), (0, 0), "it is nobody's agent");

    let say = |labels: &[(&str, &str)]| {
        cluster.api.put_pod(super::pod_object(&pod.uid, "prod", "agent", labels, super::NODE))
    };
    say(&[LABEL]);
    service.wait_until_served(1);
    // It ran before, so it may have sockets that no hook saw.
    assert_eq!(service.read_status().late, [pod.uid.as_str()]);
    assert_eq!(pod.status("STRIPE_KEY"), "403");
    say(&[LABEL, ("team", "x")]);
    wait_until("its label counts", || pod.status("STRIPE_KEY") == "200");
    say(&[("team", "y")]);
    wait_until("its label counts no longer", || pod.status("STRIPE_KEY") == "403");
    // Without the label it stays guarded, also by the next service.
    assert_eq!(service.read_status().served, 1);
    service.kill();
    assert!(pod.is_offline());
    let service = cluster.start_service();
    service.wait_until_served(1);
    assert_eq!(pod.status("STRIPE_KEY"), "403");
    assert_eq!(cluster.hooked(), [pod.uid.as_str()]);
}

#[test]
fn connection_flood_of_one_pod_leaves_others_served() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.start_service();
    let (greedy, other) = (cluster.pod("prod", "agent", &[LABEL]), cluster.pod("prod", "agent", &[LABEL]));
    service.wait_until_served(2);
    // A reset connection can be read to its end.
    let takes = "import resource, select, socket, sys, time\n\
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)); held = []\n\
        for _ in range(3500):\n\
        \x20   s = socket.socket(); s.settimeout(10)\n\
        \x20   try: s.connect(('198.51.100.7', 443)); held.append(s)\n\
        \x20   except OSError: pass\n\
        poll = select.poll(); left = len(held); end = time.time() + 30\n\
        for s in held: poll.register(s, select.POLLIN)\n\
        while left > 3000 and time.time() < end: time.sleep(0.1); left = len(held) - len(poll.poll(0))\n\
        print(left, flush=True); sys.stdin.read()";
    let mut program = greedy.container_command(&greedy.new_container(), &["/usr/bin/python3", "-c", takes]);
    let mut child =
        program.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    let open: usize = line.trim_end().parse().unwrap();
    assert!((500..3000).contains(&open), "{open}");
    assert_eq!(other.status("STRIPE_KEY"), "200");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A port that one entry opens stays closed in other pods.
#[test]
fn inbound_ports_follow_pod_entry() {
    let cluster = Cluster::new(Driver::Systemd);
    let open = cluster.agent_entry("coder", "pod: { namespace: prod }", "STRIPE_KEY")
        + "    inbound: [8123]\n"
        + &cluster.agent_entry("other", "pod: { namespace: test }", "OTHER_KEY");
    cluster.policy(&open);
    let service = cluster.start_service();
    let [prod, test] =
        ["prod", "test"].map(|namespace| super::egress::WiredPod::new(&cluster, namespace, &[LABEL]));
    service.wait_until_served(2);
    let serve = "import socket, sys; s = socket.create_server(('0.0.0.0', int(sys.argv[1]))); print('up', flush=True)\n\
        while True: c = s.accept()[0]; c.sendall(b'hello'); c.close()";
    let ask = |wired: &super::egress::WiredPod<'_>, port: &str| {
        let mut server =
            wired.pod.container_command(&wired.pod.new_container(), &["/usr/bin/python3", "-c", serve, port]);
        let mut server = server.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(server.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        assert_eq!(line, "up\n");
        let address = (wired.netns.peer4(), port.parse::<u16>().unwrap());
        let timeout = std::time::Duration::from_millis(1500);
        let stream = std::net::TcpStream::connect_timeout(&address.into(), timeout);
        server.kill().unwrap();
        server.wait().unwrap();
        stream.is_ok()
    };
    assert!(ask(&prod, "8123"));
    assert!(!ask(&prod, "8124") && !ask(&test, "8123"));
    // A new policy applies to existing pods.
    cluster.policy(&open.replace("    inbound: [8123]\n", ""));
    wait_until("the port is closed", || !ask(&prod, "8123"));
}
