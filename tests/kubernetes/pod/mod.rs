//! A pod without a cluster: the chart's and the webhook's output, started by a real runtime with exactly the
//! mounts, users, capabilities, namespaces and system calls that a kubelet sets.

mod audit_stream;
mod egress;
mod isolation;
mod kubelet;
mod lifecycle;
mod nftables;
mod requests;
mod spec;
mod spiffe;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use kubelet::{Objects, Pod};

use super::{Driver, render};

/// The pod of the chart's agent.
fn chart_pod(driver: Driver) -> Pod {
    chart_pod_with(driver, &json!({}))
}

/// The pod of the chart's agent with further values.
fn chart_pod_with(driver: Driver, more: &Value) -> Pod {
    Pod::new(driver, |values| {
        let mut values = values.clone();
        json_patch::merge(&mut values, more);
        let manifests = render_values(&values);
        let deployment = manifests.iter().find(|it| it["kind"] == "Deployment").unwrap();
        (deployment["spec"]["template"]["spec"].clone(), config_maps(&manifests))
    })
}

/// A pod with these containers, changed by the webhook, with the chart's policy.
fn injected_pod(more: &Value, containers: &Value) -> Pod {
    Pod::new(Driver::Systemd, |values| {
        let mut objects = config_maps(&render_values(values));
        let mut injector = values.clone();
        json_patch::merge(&mut injector, more);
        json_patch::merge(&mut injector, &json!({ "mode": "injector", "agent": null, "policy": null }));
        objects.extend(config_maps(&render_values(&injector)));
        let fragment = &objects["demo-agentsecrets-sidecar"]["sidecar.yaml"];
        let fragment =
            agentsecrets::kubernetes::sidecar_template::SidecarTemplate::parse(fragment, "fragment".as_ref())
                .unwrap();
        let pod = json!({ "metadata": { "name": "coder" }, "spec": containers });
        let pod = serde_json::from_value(pod).unwrap();
        let pod = agentsecrets::kubernetes::inject::inject(pod, &fragment).unwrap();
        (serde_json::to_value(pod.spec).unwrap(), objects)
    })
}

fn render_values(values: &Value) -> Vec<Value> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, values.to_string()).unwrap();
    render(file.path())
}

fn config_maps(manifests: &[Value]) -> Objects {
    let maps = manifests.iter().filter(|it| it["kind"] == "ConfigMap");
    maps.map(|map| {
        let data: BTreeMap<String, String> = serde_json::from_value(map["data"].clone()).unwrap();
        (map["metadata"]["name"].as_str().unwrap().to_owned(), data)
    })
    .collect()
}
