//! A pod without a cluster: what the chart renders and what the webhook makes of a pod, started by a real container
//! runtime with exactly the mounts, users, capabilities, namespaces and system calls that a kubelet would ask for.

mod calls;
mod held;
mod kubelet;
mod lifecycle;
mod nftables;
mod others;
mod spec;
mod spiffe;
mod streaming;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use kubelet::{Objects, Pod};

use super::{Driver, rendered};

/// The pod of the chart's own agent.
fn of_chart(driver: Driver) -> Pod {
    of_values(driver, &json!({}))
}

/// The same with values of one's own beside.
fn of_values(driver: Driver, more: &Value) -> Pod {
    Pod::new(driver, |values| {
        let mut values = values.clone();
        json_patch::merge(&mut values, more);
        let manifests = render(&values);
        let deployment = manifests.iter().find(|it| it["kind"] == "Deployment").unwrap();
        (deployment["spec"]["template"]["spec"].clone(), config_maps(&manifests))
    })
}

/// A pod with these containers, as the webhook of these values changes it, with the policy that the chart writes.
fn injected(more: &Value, containers: &Value) -> Pod {
    Pod::new(Driver::Systemd, |values| {
        let mut objects = config_maps(&render(values));
        let mut injector = values.clone();
        json_patch::merge(&mut injector, more);
        json_patch::merge(&mut injector, &json!({ "mode": "injector", "agent": null, "policy": null }));
        objects.extend(config_maps(&render(&injector)));
        let fragment = &objects["demo-agentsecrets-sidecar"]["sidecar.yaml"];
        let fragment =
            agentsecrets::kubernetes::sidecar_template::Fragment::parse(fragment, "fragment".as_ref())
                .unwrap();
        let pod = json!({ "metadata": { "name": "coder" }, "spec": containers });
        let pod = serde_json::from_value(pod).unwrap();
        let pod = agentsecrets::kubernetes::inject::inject(pod, &fragment).unwrap();
        (serde_json::to_value(pod.spec).unwrap(), objects)
    })
}

fn render(values: &Value) -> Vec<Value> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, values.to_string()).unwrap();
    rendered(file.path())
}

fn config_maps(manifests: &[Value]) -> Objects {
    let maps = manifests.iter().filter(|it| it["kind"] == "ConfigMap");
    maps.map(|map| {
        let data: BTreeMap<String, String> = serde_json::from_value(map["data"].clone()).unwrap();
        (map["metadata"]["name"].as_str().unwrap().to_owned(), data)
    })
    .collect()
}
