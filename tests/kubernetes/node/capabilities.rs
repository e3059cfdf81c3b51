//! The service with exactly the capabilities that the chart grants, and with each one missing.

use std::process::Command;
use std::time::{Duration, Instant};

use super::{Cluster, Driver, LABEL};
use crate::support::process::wait_until;

pub(crate) const GRANTED: [&str; 4] = ["setgid", "setuid", "sys_admin", "sys_ptrace"];

/// The service with only these capabilities.
fn command_with(cluster: &Cluster, capabilities: &[&str]) -> Command {
    let service = cluster.command();
    let mut bound = Command::new("setpriv");
    let set: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
    bound.arg(format!("--bounding-set=-all{set}")).arg(service.get_program()).args(service.get_args());
    bound.env_clear();
    for (name, value) in service.get_envs() {
        if let Some(value) = value {
            bound.env(name, value);
        }
    }
    bound.current_dir("/tmp");
    bound
}

#[test]
fn granted_capabilities_are_sufficient_and_needed() {
    for missing in [None].into_iter().chain(GRANTED.map(Some)) {
        let cluster = Cluster::new(Driver::Systemd);
        let granted: Vec<_> = GRANTED.into_iter().filter(|name| Some(*name) != missing).collect();
        let mut service = cluster.start(command_with(&cluster, &granted));
        let pod = cluster.pod("prod", "agent", &[LABEL]);
        let (mut ended, mut known) = (false, None);
        wait_until("it serves or does not", || {
            ended = service.child.try_wait().unwrap().is_some();
            let now = service.read_status();
            // With all of them it serves within a fraction of this time.
            let since = known.get_or_insert_with(Instant::now);
            if !now.listed {
                *since = Instant::now();
            }
            ended || now.served == 1 || (missing.is_some() && since.elapsed() > Duration::from_secs(3))
        });
        let serves = !ended && service.read_status().served == 1 && pod.status("STRIPE_KEY") == "200";
        assert_eq!(serves, missing.is_none(), "without {missing:?}: {}", cluster.errors());
    }
}
