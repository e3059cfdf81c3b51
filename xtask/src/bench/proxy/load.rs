//! One round of measurements with wrk: its results, and the CPU time of the measured processes.

use anyhow::{Context, Result, bail};

use super::driver::Driver;

/// The duration of each load.
const SECONDS: u32 = 4;

/// The results of one round, or the medians of several.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Figures {
    /// Requests per second on 64 connections.
    pub(super) requests: f64,
    /// Microseconds.
    pub(super) cpu_per_request: f64,
    /// Latency on one connection, in microseconds.
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// Microseconds for a connection of one request.
    pub(super) cpu_per_connection: f64,
    /// Milliseconds.
    pub(super) cpu_per_100_mib: f64,
}

impl Figures {
    /// The median of each figure.
    pub(super) fn median(rounds: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| {
            let mut found: Vec<f64> = rounds.iter().map(figure).collect();
            found.sort_by(f64::total_cmp);
            found.get(found.len() / 2).copied().unwrap_or_default()
        };
        Self {
            requests: of(|it| it.requests),
            cpu_per_request: of(|it| it.cpu_per_request),
            p50: of(|it| it.p50),
            p99: of(|it| it.p99),
            cpu_per_connection: of(|it| it.cpu_per_connection),
            cpu_per_100_mib: of(|it| it.cpu_per_100_mib),
        }
    }
}

/// Runs one round against `host`.
pub(super) fn measure(driver: &mut Driver, host: &str) -> Result<Figures> {
    load(driver, host, "1k", 64, "")?;
    let many = load(driver, host, "1k", 64, "")?;
    let one = load(driver, host, "1k", 1, "")?;
    let new = load(driver, host, "1k", 16, "-H 'Connection: close'")?;
    let large = load(driver, host, "large", 1, "")?;
    Ok(Figures {
        requests: many.requests / many.seconds,
        cpu_per_request: many.cpu / many.requests / 1e3,
        p50: one.p50,
        p99: one.p99,
        cpu_per_connection: new.cpu / new.requests / 1e3,
        cpu_per_100_mib: large.cpu / 1e6 / (large.bytes / f64::from(100 << 20)),
    })
}

/// The results of one load.
struct Load {
    requests: f64,
    seconds: f64,
    bytes: f64,
    p50: f64,
    p99: f64,
    /// Nanoseconds.
    cpu: f64,
}

fn load(driver: &mut Driver, host: &str, path: &str, connections: u32, more: &str) -> Result<Load> {
    let before = driver.cpu();
    let line = format!(
        "wrk -t1 -c{connections} -d{SECONDS}s --latency -H 'Host: api.demo' -H \"Authorization: Bearer $API_KEY\" {more} https://{host}/{path} 2>&1"
    );
    let output = driver.run_line(&line)?;
    let cpu = driver.cpu().saturating_sub(before) as f64;
    if output.contains("Non-2xx") || output.contains("Socket errors") {
        bail!("`{line}` had errors:\n{output}");
    }
    read(&output, cpu).with_context(|| format!("`{line}` printed unexpected output:\n{output}"))
}

/// Parses the output of wrk.
fn read(output: &str, cpu: f64) -> Option<Load> {
    let after = |label: &str| output.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
    let total = output.lines().find(|line| line.contains(" requests in "))?;
    let mut words = total.split_whitespace();
    let requests = words.next()?.parse().ok()?;
    let seconds = scaled(words.nth(2)?.trim_end_matches(','))? / 1e6;
    let bytes = scaled(words.next()?)?;
    Some(Load { requests, seconds, bytes, p50: scaled(after("50%")?)?, p99: scaled(after("99%")?)?, cpu })
}

/// A time in microseconds, or a size in bytes.
fn scaled(text: &str) -> Option<f64> {
    let units = [
        ("us", 1.0),
        ("ms", 1e3),
        ("GB", f64::from(1 << 30)),
        ("MB", f64::from(1 << 20)),
        ("KB", f64::from(1 << 10)),
        ("B", 1.0),
        ("m", 6e7),
        ("s", 1e6),
    ];
    let (number, unit) = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    Some(number.parse::<f64>().ok()? * unit)
}
