//! What a request costs through us, beside what it costs through proxies that do less: haproxy that only passes bytes on,
//! and haproxy and nginx that end TLS on both legs. One core is the proxy's, the other the client's and the server's; the
//! rounds take turns, and what counts is the median, best read as a ratio within one run.

mod driver;
mod load;
mod peers;

use anstream::println;
use anyhow::{Result, bail};

use self::driver::Driver;
use self::load::{Figures, measure};
use self::peers::{Peer, Upstream};
use crate::demo::stage::{Stage, random_hex};
use crate::{tools, workspace};

/// What it is asked for by.
pub(super) const NAME: &str = "proxy";
/// How often each is measured.
const ROUNDS: usize = 3;
/// How many connections are held while memory is read.
const HELD: u32 = 1000;

const POLICY: &str = "\
version: 1
agents:
  - name: coder
    allow:
      - { host: api.demo, secrets: [API_KEY], private: true }
";

/// Whom the client speaks to, and by what.
struct Subject {
    name: &'static str,
    driver: Driver,
    /// What stands in the client's URLs.
    host: &'static str,
    rounds: Vec<Figures>,
}

/// Measures, and prints a table.
pub(super) fn run() -> Result<()> {
    if !workspace::is_root() {
        bail!("this takes root:\n\n    {}", workspace::as_root("bench proxy"));
    }
    tools::install(tools::FOR_BENCH)?;
    let stage = Stage::released()?;
    stage.policy(POLICY)?;
    let secret = format!("sk_bench_{}", random_hex::<12>()?);
    stage.agentsecrets(&["secrets", "set", "API_KEY"], &secret)?.expect("secrets set")?;
    let upstream = Upstream::start()?;
    stage.world(&[peers::NAME], peers::ADDRESS, upstream.authority())?;

    let mut subjects = vec![Subject {
        name: "nothing between",
        driver: Driver::without(&secret)?,
        host: peers::UPSTREAM,
        rounds: Vec::new(),
    }];
    for peer in Peer::ALL {
        let running = upstream.start_peer(peer)?;
        subjects.push(Subject {
            name: peer.name(),
            driver: Driver::beside(running, &secret)?,
            host: peer.host(),
            rounds: Vec::new(),
        });
    }
    subjects.push(Subject {
        name: "agentsecrets run",
        driver: Driver::inside(&stage)?,
        host: peers::NAME,
        rounds: Vec::new(),
    });
    for _ in 0..ROUNDS {
        for subject in &mut subjects {
            let figures = measure(&mut subject.driver, subject.host)?;
            subject.rounds.push(figures);
        }
    }
    let mut memory = Vec::new();
    for subject in &mut subjects {
        memory.push(subject.driver.memory(subject.host, HELD)?);
    }
    show(&subjects, &memory);
    Ok(())
}

fn show(subjects: &[Subject], memory: &[(u64, u64)]) {
    println!(
        "{:<28} {:>9} {:>11} {:>17} {:>13} {:>12} {:>17}",
        "", "req/s", "CPU µs/req", "added µs p50/p99", "CPU µs/conn.", "ms/100 MiB", "MiB idle/1,000"
    );
    let medians: Vec<Figures> = subjects.iter().map(|subject| Figures::median(&subject.rounds)).collect();
    let direct = medians.first().copied().unwrap_or_default();
    for ((subject, figures), (idle, held)) in subjects.iter().zip(&medians).zip(memory) {
        let mib = |kib: &u64| *kib as f64 / 1024.0;
        println!(
            "{:<28} {:>9.0} {:>11.1} {:>8.0}/{:<8.0} {:>13.0} {:>12.0} {:>8.1}/{:<8.1}",
            subject.name,
            figures.requests,
            figures.cpu_per_request,
            figures.p50 - direct.p50,
            figures.p99 - direct.p99,
            figures.cpu_per_connection,
            figures.cpu_per_100_mib,
            mib(idle),
            mib(held)
        );
    }
    let Some((ours, peers)) = medians.split_last() else { return };
    println!("\nagentsecrets run, as a multiple of");
    for (subject, peer) in subjects.iter().zip(peers).skip(1) {
        println!(
            "{:<28} {:>9.2} {:>11.2} {:>8.2}/{:<8.2} {:>13.2} {:>12.2}",
            subject.name,
            ours.requests / peer.requests,
            ours.cpu_per_request / peer.cpu_per_request,
            (ours.p50 - direct.p50) / (peer.p50 - direct.p50),
            (ours.p99 - direct.p99) / (peer.p99 - direct.p99),
            ours.cpu_per_connection / peer.cpu_per_connection,
            ours.cpu_per_100_mib / peer.cpu_per_100_mib
        );
    }
}
