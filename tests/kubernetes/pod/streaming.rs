//! The sidecar sends its records on, and counts them for Prometheus, as the chart's values say.

use serde_json::{Value, json};

use super::{Driver, of_values};
use crate::containers::site::SECRET;
use crate::support::process::until;

#[test]
fn records_come_to_the_containers_log_and_counts_to_prometheus_but_not_to_the_agent() {
    let more = json!({ "audit": { "to": "stdout" }, "metrics": { "port": 9464 } });
    let pod = of_values(Driver::Systemd, &more);
    let sandbox = pod.sandbox();
    let [mut sidecar, agent] = sandbox.start().try_into().ok().unwrap();
    agent.curl(&[], &pod.url("/echo")).ok();
    let records = [sidecar.line(), sidecar.line()];
    assert!(records.iter().all(|line| !line.contains(SECRET)));
    let records = records.map(|line| serde_json::from_str::<Value>(&line).unwrap());
    let statuses: Vec<_> = records.iter().map(|record| &record["status"]).collect();
    assert_eq!(statuses, ["INTENT", "OK"]);
    assert_eq!(records[1]["process"]["container"], agent.id.as_str());

    // Prometheus asks from outside of the pod.
    let url = format!("http://{}:9464/metrics", pod.netns.there4());
    let scrape =
        || std::process::Command::new("curl").args(["-sS", "-m", "5", &url]).output().unwrap().stdout;
    let spent = "agentsecrets_secret_uses_total{agent=\"coder\",secret=\"STRIPE_KEY\"} 1";
    until("it is counted", || String::from_utf8_lossy(&scrape()).contains(spent));
    // To the agent it is a host that no rule names.
    let refused = agent.curl(&["-m", "5"], &url);
    assert!(refused.stdout.contains("domain_not_in_allowlist"), "{refused:?}");
    // What streams has no more rights than what serves.
    let processes = sidecar.processes();
    assert!(processes.len() >= 3, "who loads, who serves, who streams: {processes:?}");
    for status in processes {
        let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        assert_eq!(
            (of("Uid:"), of("CapPrm:")),
            ("64646\t64646\t64646\t64646", "0000000000000000"),
            "{status}"
        );
    }
    // It ends when it is told to, though it streams.
    assert_eq!(sidecar.stop(), Some(0));
}
