//! The sidecar exports its records and serves metrics to Prometheus as the chart's values say.

use serde_json::{Value, json};

use super::{Driver, chart_pod_with};
use crate::containers::testbed::SECRET;
use crate::support::process::wait_until;

#[test]
fn audit_stream_and_metrics_are_not_visible_to_agent() {
    let more = json!({ "audit": { "to": "stdout" }, "metrics": { "port": 9464 } });
    let pod = chart_pod_with(Driver::Systemd, &more);
    let sandbox = pod.start_sandbox();
    let [mut sidecar, agent] = sandbox.start().try_into().ok().unwrap();
    agent.curl(&[], &pod.url("/echo")).ok();
    let records = [sidecar.read_line(), sidecar.read_line()];
    assert!(records.iter().all(|line| !line.contains(SECRET)));
    let records = records.map(|line| serde_json::from_str::<Value>(&line).unwrap());
    let statuses: Vec<_> = records.iter().map(|record| &record["status"]).collect();
    assert_eq!(statuses, ["INTENT", "OK"]);
    assert_eq!(records[1]["process"]["container"], agent.id.as_str());

    // Prometheus connects from outside the pod.
    let url = format!("http://{}:9464/metrics", pod.netns.peer4());
    let scrape =
        || std::process::Command::new("curl").args(["-sS", "-m", "5", &url]).output().unwrap().stdout;
    let spent = "agentsecrets_secret_uses_total{agent=\"coder\",secret=\"STRIPE_KEY\"} 1";
    wait_until("it is counted", || String::from_utf8_lossy(&scrape()).contains(spent));
    // For the agent it is an unlisted host.
    let refused = agent.curl(&["-m", "5"], &url);
    assert!(refused.stdout.contains("domain_not_in_allowlist"), "{refused:?}");
    // The exporter has no more privileges than the server.
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
    // It ends on SIGTERM while it streams.
    assert_eq!(sidecar.stop(), Some(0));
}
