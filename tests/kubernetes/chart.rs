//! What the chart makes of values: manifests that every newer release takes, or a refusal that helps.

use serde_json::Value;

use super::{file, helm, rendered};

#[test]
fn every_file_of_values_is_linted_and_its_manifests_are_valid_in_the_three_newest_releases() {
    let said = helm(&["check"]).ok();
    assert_eq!(said.lines().count(), 12, "{said}");
}

#[test]
fn values_that_cannot_be_meant_are_refused_with_where_and_why() {
    for (values, why) in [
        ("mode: daemon", "mode"),
        ("moed: sidecar", "moed"),
        ("secrets: { values: { K: v } }", "values"),
        ("secrets: { existingSecret: Not_A_Name }", "existingSecret"),
        ("secrets: { names: [\"A B\"] }", "names"),
        ("agent: { image: a, runAsUser: 0 }", "runAsUser"),
        ("agent: { image: a, runAsUser: 64646 }", "runAsUser"),
        ("agent: { image: a, runAsUser: 7 }\nsidecar: { user: '7:7' }", "give the agent another"),
        ("agent: { image: a, hostNetwork: true }", "hostNetwork"),
        ("agent: { image: a, securityContext: { privileged: true } }", "securityContext"),
        ("sidecar: { user: root }", "user"),
        ("sidecar: { user: '0:0' }", "user"),
        ("sidecar: { pins: /tmp }", "pins"),
        ("mode: injector\ninjector: { failurePolicy: fail }", "failurePolicy"),
        ("mode: injector\ninjector: { namespaceSelector: null }", "namespaceSelector"),
        ("mode: injector\ninjector: { replicas: 0 }", "replicas"),
        ("image: { digest: latest }", "digest"),
        ("policy: { policy: { version: 2 } }", "version"),
    ] {
        let values_file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&values_file, values).unwrap();
        let said = helm(&["refuse", values_file.path().to_str().unwrap()]).ok();
        assert!(said.contains(why), "{values}: {said}");
    }
}

#[test]
fn the_agents_container_holds_no_value_no_privilege_and_nothing_of_the_sidecars() {
    let manifests = rendered(&file("helm/agentsecrets/ci/sidecar.yaml"));
    let pod = &of_kind(&manifests, "Deployment")["spec"]["template"]["spec"];
    let agent = &pod["containers"][0];
    assert_eq!(agent["securityContext"]["capabilities"]["drop"], serde_json::json!(["ALL"]));
    assert_eq!(pod["automountServiceAccountToken"], false);
    let mounts: Vec<_> =
        agent["volumeMounts"].as_array().unwrap().iter().map(|mount| &mount["name"]).collect();
    assert_eq!(mounts, ["agentsecrets-public"]);
    let env = agent["env"].as_array().unwrap();
    assert!(env.iter().all(|variable| variable.get("valueFrom").is_none()), "{env:?}");
    let of = |name: &str| env.iter().find(|variable| variable["name"] == name).map(|it| &it["value"]);
    assert_eq!(of("STRIPE_KEY").unwrap(), "AS_SECRET_STRIPE_KEY");
    // Whatever `run` sets so that clients trust our certificates is set here too.
    use agentsecrets::tls::bundle::{ADDED_ROOTS, ROOTS};
    for name in ROOTS {
        assert_eq!(of(name).unwrap(), "/run/agentsecrets/public/bundle.pem", "{name}");
    }
    for name in ADDED_ROOTS {
        assert_eq!(of(name).unwrap(), "/run/agentsecrets/public/ca.pem", "{name}");
    }
}

#[test]
fn no_manifest_holds_a_secrets_value_and_the_webhooks_rights_are_over_its_own_objects_alone() {
    for entry in std::fs::read_dir(file("helm/agentsecrets/ci")).unwrap() {
        for manifest in rendered(&entry.unwrap().path()) {
            let holds = manifest["kind"] == "Secret"
                && (manifest.get("data").is_some() || manifest.get("stringData").is_some());
            assert!(!holds, "{manifest}");
            let kind = manifest["kind"].as_str().unwrap();
            for rule in manifest["rules"].as_array().into_iter().flatten().filter(|_| kind.ends_with("Role"))
            {
                assert!(rule["resourceNames"].as_array().is_some_and(|names| names.len() == 1), "{manifest}");
                assert_eq!(rule["verbs"], serde_json::json!(["get", "update"]), "{manifest}");
            }
        }
    }
}

#[test]
fn the_policy_that_the_chart_writes_is_one() {
    let manifests = rendered(&file("helm/agentsecrets/ci/sidecar.yaml"));
    let data = &of_kind(&manifests, "ConfigMap")["data"];
    let folder = tempfile::tempdir().unwrap();
    for name in ["policy.yaml", "config.yaml"] {
        std::fs::write(folder.path().join(name), data[name].as_str().unwrap()).unwrap();
    }
    let policy = agentsecrets::policy::Policy::load(&folder.path().join("policy.yaml")).unwrap();
    assert_eq!(policy.agents()[0].name().as_str(), "coder");
    agentsecrets::app::config::Config::load(&folder.path().join("config.yaml")).unwrap();
}

fn of_kind<'a>(manifests: &'a [Value], kind: &str) -> &'a Value {
    manifests.iter().find(|manifest| manifest["kind"] == kind).unwrap()
}
