//! Mistakes in policy files, and the lines of their messages.

use std::path::Path;

use crate::policy::Policy;

/// The lines and messages of the mistakes in `text`.
fn refused(text: &str) -> Vec<(u64, String)> {
    let error = Policy::parse(text, Path::new("policy.yaml")).expect_err(text);
    error.problems().iter().map(|problem| (problem.line, problem.message.clone())).collect()
}

/// A policy with one rule for `api.x.com` on line 5 and these lines from line 6.
fn rule(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("        {line}\n")).collect();
    format!("version: 1\nagents:\n  - name: a\n    allow:\n      - host: api.x.com\n{lines}")
}

#[test]
fn every_documented_key_is_accepted() {
    let text = r#"
version: 1
agents:
  - name: coder
    match:
      exe: /usr/bin/python3.11
      sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      uid: 1000
      cgroup: /agents.slice/**
      image: ghcr.io/acme/agent:1
      pod: { namespace: prod, service_account: agent, labels: { app: agent } }
      spiffe: spiffe://example.org/ns/prod/sa/*
      session: true
      token: true
    env: false
    inbound: [8080]
    allow:
      - host: api.stripe.com
        ports: [443]
        methods: [GET, POST]
        paths: ["/v1/**"]
        encoded_slashes: allow
        secrets: [STRIPE_KEY]
        inject: { bearer: STRIPE_KEY }
        places: [auth, query, header, cookie, path, json, form, websocket, "json:a.client_secret"]
        approve: { wait: 60s }
        rate: 60/m
        max_body: 10MiB
      - host: pinned.example.org
        tls: passthrough
      - host: build.internal
        private: true
      - host: "*.build.internal"
        private: [10.2.0.0/16]
      - host: 10.1.2.3
        ports: [8443]
        private: true
        inject: { header: { X-Api-Key: OTHER }, query: { key: THIRD } }
"#;
    let policy = Policy::parse(text, Path::new("/etc/policy.yaml")).unwrap();
    let agent = &policy.agents()[0];
    let secrets: Vec<_> = agent.secrets().map(|name| name.as_str()).collect();
    assert_eq!(secrets, ["OTHER", "STRIPE_KEY", "THIRD"]);
    assert_eq!((agent.inbound_ports(), agent.allows_env(), agent.rule_count()), (&[8080][..], false, 5));
    assert_eq!(&*agent.rules[0].id, "coder/1 (policy.yaml:18)");
    assert_eq!(agent.rules[0].max_body, Some(10 << 20));
}

#[test]
fn invalid_image_is_refused() {
    for (image, expected) in [("python", "names no version"), ("'Acme/a:1'", "is no name"), ("", "")] {
        let text = format!("version: 1\nagents:\n  - name: a\n    match:\n      image: {image}\n");
        let problems = refused(&text);
        assert!(problems[0].0 == 5 && problems[0].1.contains(expected), "{image}: {problems:?}");
    }
}

#[test]
fn invalid_spiffe_id_is_refused_and_pod_with_spiffe_warned() {
    let text = |facts: &str| format!("version: 1\nagents:\n  - name: a\n    match:\n      {facts}\n");
    for (identity, expected) in
        [("example.org/a", "does not begin with"), ("spiffe://*/a", "always written out"), ("", "")]
    {
        let problems = refused(&text(&format!("spiffe: {identity}")));
        assert!(problems[0].0 == 5 && problems[0].1.contains(expected), "{identity}: {problems:?}");
    }
    let both = text("{ pod: { namespace: prod }, spiffe: 'spiffe://example.org/a' }");
    let policy = Policy::parse(&both, Path::new("p")).unwrap();
    assert!(policy.warnings().iter().any(|problem| problem.message.contains("never holds")));
}

#[test]
fn path_that_never_matches_is_warned() {
    let warned = |lines: &str| {
        let policy = Policy::parse(&rule(lines), Path::new("p")).unwrap();
        policy.warnings().iter().map(|warning| warning.message.clone()).collect::<String>()
    };
    assert!(warned("paths: ['/a%20b']").contains("without '%'"));
    assert!(warned("paths: ['/@a%2F*']").contains("encoded_slashes: allow"));
    assert!(warned("paths: ['/@a%2F*']\nencoded_slashes: refuse").contains("encoded_slashes: allow"));
    assert_eq!(warned("paths: ['/@a%2F*', '/@a/*']\nencoded_slashes: allow"), "");
    let literal = "inject: { path: { '{token}': A } }\nports: [443]\npaths: ['/bot{token}/*']";
    assert!(warned(literal).contains("write '*' in the place of '{token}'"));
}

#[test]
fn missing_file_denies_everything() {
    let policy = Policy::load(Path::new("/nonexistent/policy.yaml")).unwrap();
    assert!(policy.agents().is_empty());
    assert!(policy.warnings()[0].message.contains("everything is denied"));
}

#[test]
fn mistakes_outside_rules_have_their_line() {
    let corpus: &[(&str, u64, &str)] = &[
        ("version: 2\n", 1, "version 1"),
        ("version: 1\nagent: []\n", 2, "agents"),
        ("version: 1\nversion: 1\n", 2, "version"),
        ("version: 1\nagents:\n  - name: a\n  - name: a\n", 4, "another agent 'a'"),
        ("version: 1\nagents:\n  - name: a\n    allows: []\n", 4, "allow"),
        ("version: 1\nagents:\n  - name: 'a b'\n", 3, "agent name"),
        ("version: 1\nagents:\n  - name: a\n    env: yes\n", 4, "true or false"),
        ("version: 1\nagents:\n  - name: a\n    env:\n", 4, ""),
        ("version: 1\nagents:\n  - name: a\n    inbound: [0]\n", 4, "1 to 65535"),
        ("version: 1\nagents:\n  - name: a\n    inbound: [70000]\n", 4, "1 to 65535"),
        ("version: 1\nagents:\n  - name: a\n    match: {}\n", 4, "asks for no fact"),
        ("version: 1\nagents:\n  - name: a\n    match:\n      session: false\n", 5, "asks for no fact"),
        ("version: 1\nagents:\n  - name: a\n    match:\n      uid:\n", 5, ""),
        ("version: 1\nagents:\n  - name: a\n    match:\n", 4, ""),
        ("version: 1\nagents:\n  - name: a\n    match: { exe: python3 }\n", 4, "must start with '/'"),
        ("version: 1\nagents:\n  - name: a\n    match: { exe: '/usr/[a' }\n", 4, "allowed are"),
        ("version: 1\nagents:\n  - name: a\n    match: { exe: '/usr/{a' }\n", 4, "not a usable pattern"),
        ("version: 1\nagents:\n  - name: a\n    match: { sha256: abc }\n", 4, "64 hexadecimal"),
        ("version: 1\nagents:\n  - name: a\n    match: { uid: -1 }\n", 4, ""),
        ("version: 1\nagents:\n  - name: a\n    match: { pod: { name: x } }\n", 4, "namespace"),
        ("version: 1\nagents:\n  - name: a\n    allow:\n      - ports: [443]\n", 5, "host"),
        ("version: 1\nagents: [\n", 0, ""),
        ("version: 1\nagents:\n  - name: a\n    allow:\n      - host: *.x.com\n", 5, "must be quoted"),
        ("", 1, "begins with 'version: 1'"),
    ];
    for (text, line, says) in corpus {
        let problems = refused(text);
        let fits = |(at, message): &(u64, String)| (*line == 0 || at == line) && message.contains(says);
        assert!(problems.iter().any(fits), "{text:?}: line {line} {says:?}, got {problems:?}");
    }
}

#[test]
fn mistakes_in_rules_have_their_line() {
    let corpus: &[(&str, u64, &str)] = &[
        ("method: [GET]", 6, "methods"),
        ("host: b.com", 6, "host"),
        ("ports: [443]\nports: [80]", 7, "'ports' stands twice"),
        ("ports: []", 6, "'ports' is empty"),
        ("ports:", 6, "a list belongs here"),
        ("ports: ['https']", 6, "1 to 65535"),
        ("ports:\n  - 443\n  - 443", 8, "twice"),
        ("methods: []", 6, "'methods' is empty"),
        ("methods:\n  - GET\n  - get", 8, "'get' is not a method"),
        ("methods: [CONNECT]", 6, "tunnels"),
        ("paths:", 6, "a list belongs here"),
        ("paths: []", 6, "'paths' is empty"),
        ("paths: [v1/*]", 6, "must start with '/'"),
        ("paths: [/v1/**x]", 6, "whole segment"),
        ("paths: ['/v1/[!a]']", 6, "allowed are"),
        ("paths: ['/v1/{a']", 6, "not a usable pattern"),
        ("paths: ['/v1/../x']", 6, "'..'"),
        ("secrets: [A-B]", 6, "secret name"),
        ("secrets:\n  - A\n  - A", 8, "twice"),
        ("inject: {}", 6, "puts nothing in"),
        ("inject: { json: { a: A, a.b: B } }", 6, "one value of the JSON body"),
        ("inject: { json: { 'a[0].b': A } }", 6, "leads through an array"),
        ("inject: { json: { 'a..b': A } }", 6, "not a path in a JSON document"),
        ("inject: { json: { a: A }, form: { f: B } }", 6, "JSON or a form"),
        ("inject: { path: { token: A } }", 6, "write it as {token}"),
        ("inject: { path: { '{a/b}': A } }", 6, "write it as {token}"),
        ("inject: { cookie: { 'a;b': A } }", 6, "not a cookie's name"),
        ("inject: { cookie: { a: A }, header: { Cookie: B } }", 6, "two secrets"),
        ("inject: { form: { '': A } }", 6, "needs a name"),
        ("places: ['header:Cookie']", 6, "cookie:session"),
        ("places: ['json:a', 'json:a']", 6, "twice"),
        ("inject: { bearer: A, basic: B }", 6, "two secrets"),
        ("inject: { bearer: A, header: { Authorization: B } }", 6, "two secrets"),
        ("inject: { header: { Host: A } }", 6, "cannot carry"),
        ("inject: { header: { 'X Y': A } }", 6, "not a header name"),
        ("inject: { token: A }", 6, "bearer"),
        ("inject:\n  header:\n    X-A: A\n    X-A: B", 9, "X-A"),
        ("places: [body]", 6, "not a place"),
        ("places: ['json:']", 6, "not a place"),
        ("approve: sometimes", 6, "wait: 60s"),
        ("approve: { wait: soon }", 6, "not a time"),
        ("approve:", 6, ""),
        ("approve: { wait: 2h }", 6, "at most 1h"),
        ("approve: { wait: 1m, by: me }", 6, ""),
        ("rate: fast", 6, "60/m"),
        ("rate: 0/m", 6, "60/m"),
        ("max_body: big", 6, "10MiB"),
        ("tls: off", 6, "passthrough"),
        ("tls: passthrough\nsecrets: [A]", 6, "not opened"),
        ("tls: passthrough\nencoded_slashes: allow", 6, "not opened"),
        ("encoded_slashes: true", 6, ""),
        ("tls: passthrough\nclient_cert: A", 6, "not opened"),
        ("roots: /nonexistent/roots.pem", 6, "/nonexistent/roots.pem"),
        ("roots: []", 6, ""),
        ("client_cert: 'a b'", 6, "secret name"),
        ("private: [all]", 6, "not a network"),
        ("private: []", 6, "no network"),
        ("private: maybe", 6, "list of networks"),
        ("private: no", 6, "list of networks"),
    ];
    for (lines, line, says) in corpus {
        let problems = refused(&rule(lines));
        let fits = |(at, message): &(u64, String)| at == line && message.contains(says);
        assert!(problems.iter().any(fits), "{lines:?}: line {line} {says:?}, got {problems:?}");
    }
}

#[test]
fn host_is_name_address_or_wildcard() {
    for bad in [
        "*",
        "*.com",
        "*.*.com",
        "a.*.com",
        "*a.com",
        "api*.x.com",
        "https://x.com",
        "x.com/v1",
        "x.com:443",
        "*.",
        "*.10.0.0.1",
        "*.1.2.3.4",
        "**.x.com",
        "",
        "x..com",
        "127.1",
    ] {
        let problems =
            refused(&format!("version: 1\nagents:\n  - name: a\n    allow:\n      - host: '{bad}'\n"));
        assert_eq!(problems[0].0, 5, "{bad}");
        assert!(problems[0].1.contains("allowed are"), "{bad}");
    }
    for good in ["x.com", "X.com.", "*.x.com", "10.0.0.1", "::1", "[::1]", "localhost"] {
        let text = format!("version: 1\nagents:\n  - name: a\n    allow:\n      - host: '{good}'\n");
        assert!(Policy::parse(&text, Path::new("p")).is_ok(), "{good}");
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let text = rule("rate: x\nmax_body: y");
    let error = Policy::parse(&text, Path::new("/etc/as/policy.yaml")).unwrap_err().to_string();
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0].starts_with("/etc/as/policy.yaml:6: ") && lines[1].starts_with("/etc/as/policy.yaml:7: ")
    );
}

#[test]
fn message_has_no_control_characters() {
    for text in ["version: 1\n\"a\\e[31mgents\": []\n", &rule("rate: \"\\e[31m\""), &rule("\"\\e[2J\": 1")] {
        for (_, message) in refused(text) {
            assert!(!message.contains(char::is_control), "{message:?}");
        }
    }
}

#[test]
fn secrets_for_shared_domains_are_refused() {
    let rules = |host: &str, lines: &str| {
        let lines: String = lines.lines().map(|line| format!("        {line}\n")).collect();
        format!("version: 1\nagents:\n  - name: a\n    allow:\n      - host: \"{host}\"\n{lines}")
    };
    for host in ["*.co.uk", "*.github.io", "*.herokuapp.com", "*.workers.dev", "*.amazonaws.com"] {
        for spends in ["secrets: [A]", "inject: { bearer: A }"] {
            let problems = refused(&rules(host, spends));
            assert!(problems[0].1.contains("anybody may register"), "{host}: {problems:?}");
            assert_eq!(problems[0].0, 5);
        }
        let policy = Policy::parse(&rules(host, "methods: [GET]"), Path::new("p")).unwrap();
        assert!(policy.warnings()[0].message.contains("anybody"), "{host}");
    }
    let tenant = rules("mine.workers.dev", "ports: [443]\nsecrets: [A]");
    let policy = Policy::parse(&tenant, Path::new("p")).unwrap();
    assert!(policy.warnings()[0].message.contains("stays yours"), "{:?}", policy.warnings());
    let own = rules("*.example.com", "ports: [443]\nsecrets: [A]");
    assert!(Policy::parse(&own, Path::new("p")).unwrap().warnings().is_empty());
}

#[test]
fn passthrough_host_with_secrets_is_refused() {
    for (one, other) in [
        ("x.example.com", "x.example.com"),
        ("*.example.com", "x.example.com"),
        ("x.example.com", "*.example.com"),
        ("*.example.com", "*.x.example.com"),
    ] {
        let text = format!(
            "version: 1\nagents:\n  - name: a\n    allow:\n      - {{ host: \"{one}\", tls: passthrough }}\n      \
             - {{ host: \"{other}\", secrets: [A] }}\n"
        );
        let problems = refused(&text);
        assert!(
            problems.iter().any(|(line, what)| *line == 5 && what.contains("is not opened")),
            "{problems:?}"
        );
    }
    let apart = "version: 1\nagents:\n  - name: a\n    allow:\n      - { host: a.example.com, tls: passthrough }\n      \
                 - { host: b.example.com, secrets: [A] }\n";
    assert!(Policy::parse(apart, Path::new("p")).is_ok());
}
