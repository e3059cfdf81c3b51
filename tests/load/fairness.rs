//! One agent that takes all it can get, and another that wants little.

use super::*;

/// The 99th percentile of `said`, in seconds.
fn p99(said: &serde_json::Value) -> f64 {
    let seconds: Vec<f64> = said["seconds"].as_array().unwrap().iter().filter_map(|s| s.as_f64()).collect();
    seconds[seconds.len() * 99 / 100]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Rounds of idle and loaded, one after the other, so that a busy machine is busy for both.
fn ratio(rounds: usize, quiet: &mut Driven, mut load: impl FnMut(bool)) -> f64 {
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let idle = p99(&quiet.does("times 300"));
        load(true);
        let loaded = p99(&quiet.does("times 300"));
        load(false);
        ratios.push(loaded / idle);
    }
    eprintln!("p99, loaded to idle: {ratios:.2?}");
    median(ratios)
}

#[test]
#[ignore = "long: several rounds, and a machine that does nothing else"]
fn an_agent_that_saturates_its_interceptor_leaves_another_agent_alone() {
    let (busy_world, world) = (World::new(), World::new());
    let (mut busy, mut quiet) = (Driven::start(&busy_world), Driven::start(&world));
    quiet.does("times 300");
    let ratio = ratio(7, &mut quiet, |on| {
        busy.does(if on { "saturate 1" } else { "rest" });
    });
    assert!(ratio <= 2.0, "{ratio}");
}
