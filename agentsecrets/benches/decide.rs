//! What it costs to let a caller in and to decide one request, with one session and token and with ten thousand of
//! each. Run it with `cargo xtask bench decide`.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use agentsecrets::authz::agents::{Agents, Issued, Registered};
use agentsecrets::authz::sessions::{Holder, Session, Sessions};
use agentsecrets::authz::{Capabilities, token};
use agentsecrets::identity::ancestry::start_of;
use agentsecrets::identity::{Caller, CallerAttributes, IdentityError, Process};
use agentsecrets::policy::Policy;
use agentsecrets::policy::access_request::AccessRequest;
use agentsecrets::policy::evaluate::evaluate;
use agentsecrets::sys::home::Home;
use agentsecrets::types::presented::{self, PresentedCredentials};
use agentsecrets::types::target::{Scheme, Target};
use http::Method;
use jiff::Timestamp;

/// How many decisions a round has, and how many rounds there are, of which the best counts.
const ROUND: u32 = 20_000;
const ROUNDS: usize = 7;

const POLICY: &str = "version: 1
agents:
  - name: agent-0
    allow: [ { host: api.test, secrets: [A], inject: { bearer: A } } ]
";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let policy = Policy::parse(POLICY, Path::new("policy.yaml"))?;
    println!("a request is decided in      by its cgroup    by its process    by a token");
    let mut costs = Vec::new();
    for count in [1_u32, 10_000] {
        let (by_cgroup, _) = files(count, &|n| Holder::Cgroup { path: format!("/agents.slice/agent-{n}") })?;
        // One of the trees is this process's own: the others are of processes that there are not.
        let (pid, start_time) = (std::process::id(), start_of(std::process::id()).unwrap_or_default());
        let tree = move |n| Holder::Tree { pid: pid + n, start_time, container: None };
        let (by_process, _) = files(count, &tree)?;
        let (by_token, token) = files(count, &|n| Holder::Cgroup { path: format!("/other.slice/{n}") })?;
        let nothing = PresentedCredentials::default();
        let cost = [
            cost(&policy, &by_cgroup, &nothing),
            cost(&policy, &by_process, &nothing),
            cost(&policy, &by_token, &PresentedCredentials::default().with_token(&token)),
        ];
        println!(
            "{count:>6} sessions and tokens    {:>8.2} us       {:>8.2} us   {:>8.2} us",
            cost[0], cost[1], cost[2]
        );
        costs.push(cost);
    }
    if let [one, many] = &costs[..] {
        let ratio = |at: usize| many[at] / one[at];
        println!(
            "             that is times     {:>8.2}          {:>8.2}      {:>8.2}",
            ratio(0),
            ratio(1),
            ratio(2)
        );
    }
    Ok(())
}

/// So many sessions, each for what `who` says, and as many agents with a token; that of the first is given too.
fn files(
    count: u32,
    who: &dyn Fn(u32) -> Holder,
) -> Result<(Capabilities, String), Box<dyn std::error::Error>> {
    let (mut agents, mut sessions, mut text) = (Agents::default(), Sessions::default(), String::new());
    for n in 0..count {
        let minted = token::mint(presented::AGENT)?;
        if n == 0 {
            text = minted.text.to_string();
        }
        let issued = Timestamp::now();
        let token = Issued {
            id: minted.id,
            sha256: minted.digest,
            issued,
            expires: None,
            project: None,
            environment: None,
            revoked: None,
        };
        let (name, tokens) = (format!("agent-{n}").parse()?, vec![token]);
        agents.agents.push(Registered { name, registered: issued, allow: None, deny: Vec::new(), tokens });
        sessions.sessions.push(Session {
            secrets: Some(vec!["A".parse()?]),
            ..Session::begin(token::new_id()?, who(n), None, Some(std::time::Duration::from_secs(3600)))
        });
    }
    Ok((Capabilities::fixed(&Home::at(Path::new("/nowhere")), agents, sessions)?, text))
}

/// Microseconds for one decision.
fn cost(policy: &Policy, capabilities: &Capabilities, shown: &PresentedCredentials) -> f64 {
    let pid = std::process::id();
    let process = Process {
        pid,
        start_time: start_of(pid).unwrap_or_default(),
        cgroup: "/agents.slice/agent-0/run".into(),
        ..(*Caller::issued().process).clone()
    };
    let known: Result<Caller, IdentityError> = Ok(Caller {
        process: Arc::new(process),
        agent: None,
        session: "".into(),
        is_ours: true,
        attributes: CallerAttributes::default(),
    });
    let Ok(host) = "api.test".parse() else { return f64::NAN };
    let target = Target { scheme: Scheme::Https, host, port: 443 };
    let ask = AccessRequest {
        target: &target,
        method: &Method::GET,
        path: "/v1",
        websocket: false,
        references: &[],
    };
    let round = || {
        let started = Instant::now();
        for _ in 0..ROUND {
            let Ok(admitted) = capabilities.admit(&known, shown) else { return f64::NAN };
            black_box(evaluate(policy, capabilities, &admitted.caller, &ask));
        }
        started.elapsed().as_secs_f64() * 1e6 / f64::from(ROUND)
    };
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}
