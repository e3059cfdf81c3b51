//! One saturating agent, and another that needs little.

use super::*;

/// The 99th percentile in seconds.
fn p99(output: &serde_json::Value) -> f64 {
    let seconds: Vec<f64> = output["seconds"].as_array().unwrap().iter().filter_map(|s| s.as_f64()).collect();
    seconds[seconds.len() * 99 / 100]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Alternates idle and loaded rounds, so that a busy machine affects both.
fn loaded_to_idle_ratio(rounds: usize, quiet: &mut DrivenAgent, mut load: impl FnMut(bool)) -> f64 {
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let idle = p99(&quiet.request("times 300"));
        load(true);
        let loaded = p99(&quiet.request("times 300"));
        load(false);
        ratios.push(loaded / idle);
    }
    eprintln!("p99, loaded to idle: {ratios:.2?}");
    median(ratios)
}

#[test]
#[ignore = "long: several rounds, and a machine that does nothing else"]
fn saturating_agent_does_not_slow_another() {
    let (busy_fixture, fixture) = (Fixture::new(), Fixture::new());
    let (mut busy, mut quiet) = (DrivenAgent::start(&busy_fixture), DrivenAgent::start(&fixture));
    quiet.request("times 300");
    let ratio = loaded_to_idle_ratio(7, &mut quiet, |on| {
        busy.request(if on { "saturate 1" } else { "rest" });
    });
    assert!(ratio <= 2.0, "{ratio}");
}
