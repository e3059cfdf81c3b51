//! The chart's DaemonSet as a kubelet starts its pod: with exactly its mounts, user, capabilities, system
//! calls and arguments.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use agentsecrets::intercept::ebpf;
use serde_json::{Value, json};

use super::{Cluster, Driver, LABEL, NODE, SECRET, SERVICE_UID};
use crate::containers::bundle::{Bundle, capabilities};
use crate::containers::testbed::{Container, Testbed, new_id};
use crate::support::process::wait_until;

/// The chart's output for the node of `cluster`: the pod spec and the ConfigMap's files.
fn rendered(cluster: &Cluster) -> (Value, Value) {
    let root = ebpf::cgroup2_mount().unwrap();
    let kubepods = cluster.kubepods();
    let allow = json!({ "host": "api.test", "ports": [cluster.server.port()], "private": true, "secrets": ["STRIPE_KEY"] });
    let facts = json!({ "pod": { "namespace": "prod", "service_account": "agent" } });
    let values = json!({
        "mode": "node",
        "audit": { "to": "stdout" },
        "secrets": { "existingSecret": "agent-secrets", "names": ["STRIPE_KEY"] },
        "policy": { "policy": { "version": 1, "agents": [{ "name": "coder", "match": facts, "allow": [allow] }] } },
        "sidecar": { "pins": cluster.pins.parent().unwrap() },
        "node": { "kubepods": kubepods.strip_prefix(&root).unwrap(), "kubelet": cluster.folder.path() },
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, values.to_string()).unwrap();
    let manifests = crate::kubernetes::render(file.path());
    let of = |kind: &str| manifests.iter().find(|it| it["kind"] == kind).unwrap().clone();
    (of("DaemonSet")["spec"]["template"]["spec"].clone(), of("ConfigMap")["data"].clone())
}

fn start<'a>(cluster: &Cluster, site: &'a Testbed, spec: &Value, files: &Value) -> Container<'a> {
    let place = |volume: &Value| -> PathBuf {
        let name = volume["name"].as_str().unwrap();
        let folder = site.path("volumes").join(name);
        let write = |key: &str, text: &str| {
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(key), text).unwrap();
        };
        if let Some(path) = volume["hostPath"]["path"].as_str() {
            return path.into();
        } else if volume.get("configMap").is_some() {
            files.as_object().unwrap().iter().for_each(|(key, text)| write(key, text.as_str().unwrap()));
        } else if volume.get("secret").is_some() {
            write("STRIPE_KEY", SECRET);
        } else {
            assert!(volume.get("emptyDir").is_some(), "{volume}");
            fs::create_dir_all(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        }
        folder
    };
    let container = &spec["containers"][0];
    let volumes = spec["volumes"].as_array().unwrap();
    let mounts = container["volumeMounts"].as_array().unwrap().iter().map(|mount| {
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
        (place(volume), mount["mountPath"].as_str().unwrap().to_owned(), mount["readOnly"] == true)
    });
    // A stand-in for the service account's token.
    let mounts = mounts.chain([(site.path("kubeconfig"), "/test/kubeconfig".to_owned(), true)]).collect();
    let mut environment = site.environment(true);
    assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");
    environment.push(format!("{}={NODE}", container["env"][0]["name"].as_str().unwrap()));
    environment.push("KUBECONFIG=/test/kubeconfig".to_owned());
    let words = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
    // The machine's first process may not be inspected here; this one is in the same network.
    let own = format!("/proc/{}/ns", std::process::id());
    let network = ["--network".to_owned(), format!("{own}/net")];
    let context = &container["securityContext"];
    let [drop, add] = ["drop", "add"].map(|which| words(&context["capabilities"][which]));
    assert_eq!(
        (&context["runAsUser"], &context["seccompProfile"]["type"]),
        (&json!(0), &json!("RuntimeDefault"))
    );
    assert_eq!(spec["hostPID"], true);
    let id = new_id();
    let cgroup = cluster.above.strip_prefix(ebpf::cgroup2_mount().unwrap()).unwrap();
    site.start(Bundle {
        is_ours: true,
        user: (0, 0),
        capabilities: capabilities(&drop, &add),
        no_new_privileges: context["allowPrivilegeEscalation"] == false,
        read_only: context["readOnlyRootFilesystem"] == true,
        working_dir: "/".to_owned(),
        command: ["/agentsecrets".to_owned()]
            .into_iter()
            .chain(words(&container["args"]))
            .chain(network)
            .collect(),
        environment,
        mounts,
        cgroup: format!("/{}/system/{id}", cgroup.display()),
        shared: vec![("network", format!("{own}/net").into()), ("pid", format!("{own}/pid").into())],
        check: words(&container["startupProbe"]["exec"]["command"]),
        id,
    })
}

#[test]
fn chart_daemonset_guards_pods_across_restart() {
    let cluster = Cluster::new(Driver::Systemd);
    let site = Testbed::new(SERVICE_UID);
    site.write("hosts", "127.0.0.1 localhost api.test\n");
    site.write("ca.pem", &fs::read_to_string(cluster.home.bundle()).unwrap());
    site.write("kubeconfig", &cluster.api.kubeconfig());
    let (spec, files) = rendered(&cluster);
    let mut service = start(&cluster, &site, &spec, &files);
    service.wait_until_healthy();
    let pod = cluster.pod("prod", "agent", &[LABEL]);
    let serves = |service: &Container<'_>, count: usize| {
        let status = || service.exec(["/agentsecrets", "kubernetes", "status", "--json"]);
        wait_until("the pod is served", || status().stdout.contains(&format!("\"served\":{count},")));
    };
    serves(&service, 1);
    assert_eq!(pod.status("STRIPE_KEY"), "200", "{}", service.errors());
    assert_eq!(cluster.server.only_request().header("authorization"), format!("Bearer {SECRET}"));
    let record = service.audit().pop().unwrap();
    assert_eq!(record["process"]["pod"], pod.uid.as_str());
    assert!(record["process"]["exe"].as_str().unwrap().ends_with("/curl"), "{record}");

    let streamed =
        [service.read_line(), service.read_line()].map(|line| serde_json::from_str::<Value>(&line).unwrap());
    assert_eq!((&streamed[0]["status"], &streamed[1]["id"]), (&json!("INTENT"), &record["id"]));

    // The process that reads agents' traffic has its own uid and no privilege; the process inspector sees
    // processes but no traffic.
    let mut of_root = 0;
    for status in service.processes() {
        let of =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        if of("Uid:").starts_with("0\t") {
            of_root += 1;
            continue;
        }
        assert_eq!(
            of("Uid:"),
            format!("{SERVICE_UID}\t{SERVICE_UID}\t{SERVICE_UID}\t{SERVICE_UID}"),
            "{status}"
        );
        let sees = format!("{:016x}", 1 << 19);
        for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
            assert!(of(set) == "0000000000000000" || of(set) == sees, "{status}");
        }
        assert_eq!((of("NoNewPrivs:"), of("Seccomp:")), ("1".to_owned(), "2".to_owned()));
    }
    assert_eq!(of_root, 1, "the launcher");

    service.kill();
    assert!(pod.is_offline());
    let service = start(&cluster, &site, &spec, &files);
    service.wait_until_healthy();
    serves(&service, 1);
    assert_eq!(pod.status("STRIPE_KEY"), "200", "{}", service.errors());
    assert_eq!(service.stop(), Some(0));
    assert!(pod.is_offline());
}
