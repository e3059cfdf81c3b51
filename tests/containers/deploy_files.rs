//! The delivered files are valid for Compose and grant the minimum.

use std::fs;

use serde_json::Value;

use super::{Engine, compose, deploy_file, workspace_file};
use crate::support::process::{command, run};

#[test]
fn compose_file_is_valid() {
    let script = "import json, sys, yaml, jsonschema\n\
        jsonschema.validate(yaml.safe_load(open(sys.argv[1])), json.load(open(sys.argv[2])))\n";
    let schema = workspace_file("tests/containers/specs/compose-spec.json");
    run(command("/usr/bin/python3")
        .args(["-W", "ignore", "-c", script])
        .arg(deploy_file("compose.yaml"))
        .arg(schema))
    .ok();
    assert!(run(compose().arg("version").arg("--short")).ok().starts_with("2."));
    let config = || {
        let mut client = compose();
        client
            .arg("-f")
            .arg(deploy_file("compose.yaml"))
            .args(["config", "--format", "json"])
            .env("HOME", "/tmp");
        client
    };
    let shown = run(config().env("AGENT_IMAGE", "example/agent:1")).json();
    assert_eq!(shown["services"]["agent"]["network_mode"], "service:network", "{shown}");
    assert_eq!(shown["services"]["agentsecrets"]["cgroup_parent"], "agentsecrets.slice", "{shown}");
    let unnamed = run(&mut config());
    assert_ne!(unnamed.code, Some(0));
    assert!(unnamed.stderr.contains("name the image of your agent"), "{unnamed:?}");
}

#[test]
fn compose_file_grants_minimum() {
    let engine = Engine::new();
    let [network, service, agent] =
        ["network", "agentsecrets", "agent"].map(|name| &engine.compose.services[name]);
    assert_eq!(service.cap_add, ["BPF", "NET_ADMIN", "PERFMON", "SETGID", "SETUID"]);
    assert!(agent.cap_add.is_empty() && network.cap_add.is_empty());
    for one in [network, service, agent] {
        assert_eq!(one.cap_drop, ["ALL"]);
        assert_eq!(one.security_opt, ["no-new-privileges:true"]);
        assert_eq!(one.cgroup_parent, service.cgroup_parent);
    }
    assert!(service.read_only && network.read_only);
    assert!(network.volumes.is_empty() && network.secrets.is_empty() && agent.secrets.is_empty());
    for one in [service, agent] {
        assert_eq!(one.network_mode.as_deref(), Some("service:network"));
    }
    assert_eq!(agent.depends_on["agentsecrets"].condition, "service_healthy");
    assert_eq!((&*service.restart, &*agent.restart), ("unless-stopped", "no"));
    let check = service.healthcheck.as_ref().unwrap();
    assert_eq!(check.test, ["CMD", "/agentsecrets", "health"]);
    assert!(
        check.retries > 0
            && [&check.interval, &check.timeout, &check.start_period].iter().all(|t| t.ends_with('s'))
    );
    // Of our files, only certificates are in the agent's container.
    let shared: Vec<_> = agent.volumes.iter().filter(|volume| !volume.starts_with("./workspace")).collect();
    assert_eq!(shared, ["public:/run/agentsecrets/public:ro"]);
}

#[test]
fn delivered_policy_and_config_are_valid() {
    let home = tempfile::tempdir().unwrap();
    for name in ["policy.yaml", "config.yaml"] {
        fs::copy(deploy_file("agentsecrets").join(name), home.path().join(name)).unwrap();
    }
    let mut check = command(crate::support::home::AGENTSECRETS);
    run(check.args(["policy", "check"]).env("AGENTSECRETS_HOME", home.path())).ok();
    let mut doctor = command(crate::support::home::AGENTSECRETS);
    let findings = run(doctor.args(["doctor", "--json"]).env("AGENTSECRETS_HOME", home.path()));
    assert!(findings.stdout.contains("the configuration is valid"), "{findings:?}");
}

/// The Dockerfile must match the one description of the image.
#[test]
fn dockerfile_matches_image_description() {
    let image: Value = serde_json::from_str(&fs::read_to_string(deploy_file("image.json")).unwrap()).unwrap();
    let dockerfile = fs::read_to_string(deploy_file("Dockerfile")).unwrap();
    let (_, last) = dockerfile.rsplit_once("\nFROM ").unwrap();
    assert!(last.contains(&format!("USER {}\n", image["User"].as_str().unwrap())));
    assert!(last.contains(&format!("ENTRYPOINT {}\n", image["Entrypoint"])));
    for variable in image["Env"].as_array().unwrap() {
        assert!(last.contains(variable.as_str().unwrap()), "{variable}");
    }
    assert!(!last.contains("\nRUN"), "nothing but files is in the image");
}
