//! `cargo xtask demo`: shows agents that use a secret they never hold. It needs no internet and no set-up: it starts
//! an HTTPS API, makes a temporary home with a new secret, and runs programs as agents. Everything that it prints was
//! measured in that run.

mod agents;
pub(crate) mod api;
mod show;
pub(crate) mod test_home;

use std::time::Instant;

use anstream::println;
use anyhow::{Result, bail};
use serde_json::Value;

use crate::digest::{random_hex, sha256};
use crate::{tools, workspace};
use agents::{AGENTS, API, KEY};
use api::Api;
use show::{Cell, Tone, cell, chapter, command, line, masked, short, table, title};
use test_home::TestHome;

/// A host that the policy allows, but not with the secret.
const NOTES: &str = "notes.demo";
/// A host that the policy does not name.
const ELSEWHERE: &str = "elsewhere.demo";

const POLICY: &str = "\
version: 1
agents:
  - name: coder
    allow:
      - host: api.demo
        ports: [443]
        methods: [GET]
        paths: [\"/v1/**\"]
        secrets: [API_KEY]
        private: true            # the demo's API is on loopback
      - { host: notes.demo, private: true }
";

/// Requests that the policy denies: a description, the arguments of curl, and those of `policy explain`.
const TRIES: &[(&str, &[&str], &[&str])] = &[
    (
        "a host that no rule names",
        &["https://elsewhere.demo/v1/me"],
        &["GET", "https://elsewhere.demo/v1/me"],
    ),
    (
        "a method that no rule allows",
        &["-X", "DELETE", "https://api.demo/v1/me"],
        &["DELETE", "https://api.demo/v1/me"],
    ),
    ("a path that no rule allows", &["https://api.demo/admin"], &["GET", "https://api.demo/admin"]),
    ("the secret toward another host", &["https://notes.demo/v1/me"], &["GET", "https://notes.demo/v1/me"]),
    ("the secret over plain HTTP", &["http://api.demo/v1/me"], &["GET", "http://api.demo/v1/me"]),
];

/// Runs the demo.
pub(crate) fn run() -> Result<()> {
    let root = workspace::is_root();
    if root {
        tools::install(tools::FOR_DEMO)?;
    }
    let home = TestHome::new()?;
    let started = Instant::now();
    title("agents spend a credential that they never hold");
    let secret = format!("sk_demo_{}", random_hex::<12>()?);
    prepare(&home, &secret)?;
    if !root {
        return explain_only(&home);
    }
    let api = Api::start(&[API, NOTES, ELSEWHERE])?;
    home.set_upstream(&[API, NOTES, ELSEWHERE], api.address(), api.authority())?;
    spend(&home, &api, &secret)?;
    try_denied_requests(&home, &api)?;
    review(&home, &secret)?;
    println!();
    line(&format!("{:.1} s, on this machine alone", started.elapsed().as_secs_f32()), Tone::Dim);
    Ok(())
}

/// Stores a secret and writes a policy.
fn prepare(home: &TestHome, secret: &str) -> Result<()> {
    chapter(1, "A person stores a secret, and says where it may be spent");
    home.policy(POLICY)?;
    home.agentsecrets(&["secrets", "set", KEY], secret)?.expect("secrets set")?;
    home.agentsecrets(&["policy", "check"], "")?.expect("policy check")?;
    command(&format!("agentsecrets secrets set {KEY}"));
    line(
        &format!("{}   sha256 {}…   encrypted in the vault", masked(secret), fingerprint(secret)),
        Tone::Hot,
    );
    println!();
    command("cat policy.yaml");
    POLICY.lines().for_each(|text| line(text, Tone::Plain));
    Ok(())
}

/// Runs programs as agents, and compares the values of the agent, the API and the response.
fn spend(home: &TestHome, api: &Api, secret: &str) -> Result<()> {
    chapter(2, "Programs that know nothing of this run as agents, and call a real HTTPS API");
    let mut rows = Vec::new();
    let mut printed = String::new();
    for agent in AGENTS {
        command(&format!("agentsecrets run -- {}", agent.shown));
        let before = api.received().len();
        let output = agent.run(home)?;
        let received = api.received().get(before).cloned().unwrap_or_default();
        if received != secret {
            bail!("the API did not receive the secret from {}, but {}", agent.name, masked(&received));
        }
        rows.push(vec![
            cell(agent.name, Tone::Plain),
            cell(output.variable, Tone::Safe),
            cell(masked(&received), Tone::Hot),
            cell(output.echo, Tone::Safe),
        ]);
        printed.push_str(&output.all);
    }
    table(&["agent", "its API_KEY", "the API received", "the API's echo came back as"], &rows);
    if printed.contains(secret) {
        bail!("an agent printed the secret");
    }
    line(
        &format!("what the API received has sha256 {}…, {1} of {1} times", fingerprint(secret), rows.len()),
        Tone::Plain,
    );
    line("the agents' whole environments and answers were searched for it: found 0 times", Tone::Plain);
    Ok(())
}

/// Sends the requests that the policy denies.
fn try_denied_requests(home: &TestHome, api: &Api) -> Result<()> {
    chapter(3, "The same agent tries more, each time with its placeholder as a bearer token");
    let before = api.received().len();
    let mut script = String::new();
    for (_, arguments, _) in TRIES {
        let arguments = arguments.join(" ");
        script.push_str(&format!(
            "curl -s -w '\\n%{{http_code}}\\n' -H \"Authorization: Bearer ${KEY}\" {arguments}\n"
        ));
    }
    let outcome = home.run(&["/bin/sh", "-c", &script])?;
    let lines: Vec<&str> = outcome.stdout.lines().filter(|line| !line.is_empty()).collect();
    let mut rows = Vec::new();
    for ((tried, _, _), answer) in TRIES.iter().zip(lines.chunks(2)) {
        let [body, status] = answer else { bail!("curl said too little: {}", outcome.stdout) };
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
        rows.push(refused(tried, status, &text("error"), &text("rule")));
    }
    if rows.len() != TRIES.len() {
        bail!("curl said too little: {} {}", outcome.stdout, outcome.stderr);
    }
    table(&["tried", "", "refused with", "by"], &rows);
    line(&format!("requests of these that reached the API: {}", api.received().len() - before), Tone::Plain);
    Ok(())
}

fn refused(tried: &str, status: &str, error: &str, rule: &str) -> Vec<Cell> {
    let rule = if rule == "-" { "no rule" } else { rule };
    vec![
        cell(tried, Tone::Plain),
        cell(status, Tone::Refused),
        cell(error, Tone::Refused),
        cell(short(rule, 28), Tone::Dim),
    ]
}

/// Shows and verifies the audit log.
fn review(home: &TestHome, secret: &str) -> Result<()> {
    chapter(4, "Every attempt is on record, without values, in a log whose edits show");
    command("agentsecrets audit list");
    let records = home.audit()?;
    let rows: Vec<Vec<Cell>> = records.iter().map(record).collect();
    table(&["outcome", "request", "by the program", "which"], &rows);
    let verified = home.agentsecrets(&["audit", "verify"], "")?.expect("audit verify")?;
    command("agentsecrets audit verify");
    for text in verified.stdout.lines().chain(verified.stderr.lines()).filter(|text| !text.is_empty()) {
        line(text, Tone::Plain);
    }
    let all = serde_json::to_string(&records)?;
    if all.contains(secret) {
        bail!("the audit log holds the secret");
    }
    Ok(())
}

fn record(record: &Value) -> Vec<Cell> {
    let text = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or_default();
    let status = record.get("status_code").and_then(Value::as_u64).unwrap_or_default();
    let secrets = record.get("secret_keys").and_then(Value::as_array).into_iter().flatten();
    let secrets: Vec<&str> = secrets.filter_map(Value::as_str).collect();
    let exe = record.get("process").and_then(|process| process.get("exe")).and_then(Value::as_str);
    let (tone, which) = match text("status") {
        "OK" => (Tone::Safe, format!("spent {}", secrets.join(", "))),
        _ => (Tone::Refused, text("reason").to_owned()),
    };
    vec![
        cell(format!("{} {status}", text("status")), tone),
        cell(format!("{} {}", text("method"), text("target_url").replace("https://", "")), Tone::Plain),
        cell(exe.unwrap_or("-"), Tone::Plain),
        cell(short(&which, 24), if tone == Tone::Safe { Tone::Hot } else { Tone::Dim }),
    ]
}

/// The part for a user without root: `policy explain` evaluates each request under the real policy.
fn explain_only(home: &TestHome) -> Result<()> {
    chapter(2, "What an agent would be allowed, as the policy says");
    let allowed: (&str, &[&str], &[&str]) = ("what it is for", &[], &["GET", "https://api.demo/v1/me"]);
    let mut rows = Vec::new();
    for (tried, _, request) in std::iter::once(&allowed).chain(TRIES) {
        let arguments = [&["--json", "policy", "explain", "--secret", KEY], *request].concat();
        let answer: Value = serde_json::from_str(&home.agentsecrets(&arguments, "")?.stdout)?;
        let agent = answer.get("agents").and_then(|agents| agents.get(0)).cloned().unwrap_or_default();
        let text = |name: &str| agent.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
        if agent.get("allowed") == Some(&Value::Bool(true)) {
            rows.push(vec![
                cell(*tried, Tone::Plain),
                cell("yes", Tone::Safe),
                cell(format!("spends {KEY}"), Tone::Safe),
                cell(short(&text("rule"), 28), Tone::Dim),
            ]);
        } else {
            rows.push(refused(tried, "no", &text("error"), &text("rule")));
        }
    }
    command(&format!("agentsecrets policy explain --secret {KEY} METHOD URL"));
    table(&["the agent tries", "", "", "by"], &rows);
    println!("\n     To watch it happen (cgroup, namespaces and kernel hooks need root):\n");
    command(&workspace::as_root("demo"));
    Ok(())
}

/// The first 16 digits of the SHA-256 of `value`, to compare values that are not printed.
fn fingerprint(value: &str) -> String {
    let mut digits = sha256(value.as_bytes());
    digits.truncate(16);
    digits
}
