//! What agents in guarded pods can and cannot do.

use serde_json::json;

use super::{Cluster, Driver, LABEL, OTHER, SECRET};
use crate::support::process::until;

#[test]
fn an_agent_in_a_labelled_pod_spends_its_secret_and_is_on_record_whatever_the_driver() {
    for driver in [Driver::Systemd, Driver::Cgroupfs] {
        let cluster = Cluster::new(driver);
        let service = cluster.service();
        let pod = cluster.pod("prod", "agent", &[LABEL]);
        service.serves(1);
        assert_eq!(pod.status("STRIPE_KEY"), "200", "{driver:?}");
        let received = cluster.server.only();
        assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
        let record = cluster.audit().pop().unwrap();
        assert_eq!(record["agent_id"], "coder");
        assert_eq!(record["identity_level"], "kernel");
        assert_eq!(record["process"]["pod"], pod.uid.as_str());
        assert_eq!(record["process"]["container"].as_str().unwrap().len(), 64);
        assert_eq!(record["process"]["uid"], 1000);
        // We are in the node's pid namespace, so that programs are proven too.
        assert!(record["process"]["exe"].as_str().unwrap().ends_with("/curl"), "{record}");
        // Names are answered in the pod's own network.
        let port = cluster.server.port().to_string();
        let names = "import socket, sys; print(socket.getaddrinfo('api.test', int(sys.argv[1]))[0][4][0])";
        assert_eq!(pod.run(&["/usr/bin/python3", "-c", names, &port]).ok(), "127.0.0.1\n");
    }
}

#[test]
fn what_the_cluster_says_of_a_pod_decides_and_not_what_its_author_calls_it() {
    let cluster = Cluster::new(Driver::Systemd);
    let prod = cluster.entry("coder", "pod: { namespace: prod, service_account: agent }", "STRIPE_KEY");
    let team = cluster.entry("other", "pod: { namespace: prod, labels: { team: x } }", "OTHER_KEY");
    cluster.policy(&(prod + &team));
    let service = cluster.service();
    let right = cluster.pod("prod", "agent", &[LABEL]);
    let namespace = cluster.pod("test", "agent", &[LABEL, ("team", "x")]);
    let account = cluster.pod("prod", "default", &[LABEL]);
    let labelled = cluster.pod("prod", "default", &[LABEL, ("team", "x")]);
    service.serves(4);
    // From one port of one address, since each has a network of its own.
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
    assert_eq!(spent, [format!("Bearer {SECRET}"), format!("Bearer {OTHER}")]);
    let known: Vec<_> = cluster.audit().iter().map(|record| record["process"]["pod"].clone()).collect();
    let uids = [&right, &right, &namespace, &namespace, &account, &labelled, &labelled];
    assert_eq!(known, uids.map(|pod| json!(pod.uid)));
}

#[test]
fn a_label_that_moves_counts_at_once_and_a_pod_that_was_guarded_stays_so() {
    let cluster = Cluster::new(Driver::Systemd);
    let team = |secret| cluster.entry("coder", "pod: { namespace: prod, labels: { team: x } }", secret);
    cluster.policy(&team("STRIPE_KEY"));
    let service = cluster.service();
    let pod = cluster.pod("prod", "agent", &[]);
    service.until("the pod is known", |status| status.known == 1);
    assert_eq!((service.now().guarded, cluster.hooked().len()), (0, 0), "it is nobody's agent");

    let say = |labels: &[(&str, &str)]| {
        cluster.api.put(super::object(&pod.uid, "prod", "agent", labels, super::NODE))
    };
    say(&[LABEL]);
    service.serves(1);
    // It ran before, so that it may have sockets which nothing holds.
    assert_eq!(service.now().late, [pod.uid.as_str()]);
    assert_eq!(pod.status("STRIPE_KEY"), "403");
    say(&[LABEL, ("team", "x")]);
    until("its label counts", || pod.status("STRIPE_KEY") == "200");
    say(&[("team", "y")]);
    until("its label counts no longer", || pod.status("STRIPE_KEY") == "403");
    // Without the label that made it ours it is guarded still, also by who comes after this service.
    assert_eq!(service.now().served, 1);
    service.kill();
    assert!(pod.is_offline());
    let service = cluster.service();
    service.serves(1);
    assert_eq!(pod.status("STRIPE_KEY"), "403");
    assert_eq!(cluster.hooked(), [pod.uid.as_str()]);
}

#[test]
fn a_pod_that_opens_all_the_connections_it_can_leaves_others_served() {
    let cluster = Cluster::new(Driver::Systemd);
    let service = cluster.service();
    let (greedy, other) = (cluster.pod("prod", "agent", &[LABEL]), cluster.pod("prod", "agent", &[LABEL]));
    service.serves(2);
    // A connection that is broken off can be read to its end.
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
    let mut program = greedy.program(&greedy.container(), &["/usr/bin/python3", "-c", takes]);
    let mut child =
        program.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    let held: usize = line.trim_end().parse().unwrap();
    assert!((500..3000).contains(&held), "{held}");
    assert_eq!(other.status("STRIPE_KEY"), "200");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What one entry opens is not open in other pods.
#[test]
fn others_reach_the_ports_that_a_pods_own_entry_opens_and_no_others() {
    let cluster = Cluster::new(Driver::Systemd);
    let open = cluster.entry("coder", "pod: { namespace: prod }", "STRIPE_KEY")
        + "    inbound: [8123]\n"
        + &cluster.entry("other", "pod: { namespace: test }", "OTHER_KEY");
    cluster.policy(&open);
    let service = cluster.service();
    let [prod, test] =
        ["prod", "test"].map(|namespace| super::held::Wired::new(&cluster, namespace, &[LABEL]));
    service.serves(2);
    let serve = "import socket, sys; s = socket.create_server(('0.0.0.0', int(sys.argv[1]))); print('up', flush=True)\n\
        while True: c = s.accept()[0]; c.sendall(b'hello'); c.close()";
    let ask = |wired: &super::held::Wired<'_>, port: &str| {
        let mut server = wired.pod.program(&wired.pod.container(), &["/usr/bin/python3", "-c", serve, port]);
        let mut server = server.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(server.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        assert_eq!(line, "up\n");
        let address = (wired.netns.there4(), port.parse::<u16>().unwrap());
        let timeout = std::time::Duration::from_millis(1500);
        let stream = std::net::TcpStream::connect_timeout(&address.into(), timeout);
        server.kill().unwrap();
        server.wait().unwrap();
        stream.is_ok()
    };
    assert!(ask(&prod, "8123"));
    assert!(!ask(&prod, "8124") && !ask(&test, "8123"));
    // A new policy counts for pods that are there.
    cluster.policy(&open.replace("    inbound: [8123]\n", ""));
    until("the port is closed", || !ask(&prod, "8123"));
}
