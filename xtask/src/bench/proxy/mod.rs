//! The cost of a request through AgentSecrets, compared with haproxy in TCP mode, and with haproxy and nginx with TLS on
//! both legs. The proxy has one core; client and server share the other. Rounds of the proxies alternate, and the
//! medians are compared within one run.

mod driver;
mod load;
mod peers;

use anstream::println;
use anyhow::{Result, bail};

use self::driver::Driver;
use self::load::{Figures, measure};
use self::peers::{Peer, Upstream};
use crate::demo::test_home::TestHome;
use crate::digest::random_hex;
use crate::{tools, workspace};

/// The name of this benchmark.
pub(super) const NAME: &str = "proxy";
/// The number of measurements of each proxy.
const ROUNDS: usize = 3;
/// The number of open connections while memory is read.
const HELD: u32 = 1000;

const POLICY: &str = "\
version: 1
agents:
  - name: coder
    allow:
      - { host: api.demo, secrets: [API_KEY], private: true }
";

/// A proxy, or the server itself, with its client.
struct Subject {
    name: &'static str,
    driver: Driver,
    /// The host in the client's URLs.
    host: &'static str,
    rounds: Vec<Figures>,
}

/// Runs the benchmark, and prints a table.
pub(super) fn run() -> Result<()> {
    if !workspace::is_root() {
        bail!("this needs root:\n\n    {}", workspace::as_root("bench proxy"));
    }
    tools::install(tools::FOR_BENCH)?;
    let home = TestHome::released()?;
    home.policy(POLICY)?;
    let secret = format!("sk_bench_{}", random_hex::<12>()?);
    home.agentsecrets(&["secrets", "set", "API_KEY"], &secret)?.expect("secrets set")?;
    let upstream = Upstream::start()?;
    home.set_upstream(&[peers::NAME], peers::ADDRESS, upstream.authority())?;

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
        driver: Driver::inside(&home)?,
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
