//! Watches a node's pods at the API server: one list, then each change. The list is requested again when the
//! server no longer knows our position.

use std::fmt;
use std::str::FromStr;

use futures_util::{Stream, StreamExt, future};
use k8s_openapi::api::core::v1::Pod as Object;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, ResourceExt};

use crate::identity::pod::Pod;
use crate::kubernetes::pod_validation;
use crate::kubernetes::sidecar_template::{ContainerTemplate, SidecarTemplate};

/// The pods that are guarded.
#[derive(Debug, Clone)]
pub(super) struct PodSelector {
    label: Label,
    /// Namespaces to watch; empty for all.
    namespaces: Vec<String>,
    /// A template with our own user id only, for validating pods.
    template: SidecarTemplate,
}

/// A label and its value.
#[derive(Debug, Clone)]
pub(crate) struct Label(String, String);

/// The cluster's state of one pod.
#[derive(Debug)]
pub(super) struct PodState {
    pub(super) pod: Pod,
    /// Whether the pod is to be guarded.
    pub(super) is_selected: bool,
    /// The reason not to serve it, if it could bypass us.
    pub(super) violation: Option<String>,
}

#[derive(Debug)]
pub(super) enum ClusterEvent {
    ListStarted,
    Applied(Box<PodState>),
    /// The pod with this uid is gone.
    Deleted(String),
    /// The list is complete: a pod that was not in it is gone.
    ListCompleted,
}

/// Watches the pods of the node `name`. The stream never ends; errors are retried with backoff.
pub(super) fn watch_pods(
    client: Client,
    name: &str,
    selector: PodSelector,
) -> impl Stream<Item = ClusterEvent> {
    let pods: Api<Object> = Api::all(client);
    let config = Config::default().fields(&format!("spec.nodeName={name}"));
    watcher(pods, config).default_backoff().filter_map(move |event| {
        future::ready(match event {
            Ok(Event::Init) => Some(ClusterEvent::ListStarted),
            Ok(Event::InitApply(pod) | Event::Apply(pod)) => {
                pod_state(&pod, &selector).map(|state| ClusterEvent::Applied(Box::new(state)))
            }
            Ok(Event::Delete(pod)) => pod.metadata.uid.map(ClusterEvent::Deleted),
            Ok(Event::InitDone) => Some(ClusterEvent::ListCompleted),
            Err(error) => {
                tracing::warn!(%error, "the node's pods cannot be watched");
                None
            }
        })
    })
}

fn pod_state(object: &Object, selector: &PodSelector) -> Option<PodState> {
    let account = object.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    let pod = Pod {
        uid: object.uid()?,
        name: object.name_any(),
        namespace: object.namespace()?,
        service_account: account.unwrap_or_else(|| "default".to_owned()),
        labels: object.labels().clone(),
    };
    let reasons = pod_validation::validate_unmodified_pod(object, &selector.template);
    let unfit = (!reasons.is_empty()).then(|| reasons.join("; "));
    Some(PodState { is_selected: selector.matches(&pod), pod, violation: unfit })
}

impl PodSelector {
    /// Selects pods with `label` in `namespaces`, none of which may run as the user `serves`.
    pub(super) fn new(label: Label, namespaces: Vec<String>, serves: u32) -> Self {
        let container = ContainerTemplate { env: Vec::new(), volume_mounts: Vec::new() };
        let (init_containers, volumes, secrets) = Default::default();
        let uids = vec![i64::from(serves)];
        let explicit_users = false;
        let template = SidecarTemplate { init_containers, volumes, container, secrets, uids, explicit_users };
        Self { label, namespaces, template }
    }

    fn matches(&self, pod: &Pod) -> bool {
        let Label(name, value) = &self.label;
        let here = self.namespaces.is_empty() || self.namespaces.contains(&pod.namespace);
        here && pod.labels.get(name) == Some(value)
    }
}

impl fmt::Display for PodSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Label(name, value) = &self.label;
        write!(f, "{name}={value}")?;
        if !self.namespaces.is_empty() {
            write!(f, " in {}", self.namespaces.join(", "))?;
        }
        Ok(())
    }
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                Ok(Self(name.to_owned(), value.to_owned()))
            }
            _ => Err(format!("'{text}' is no label such as agentsecrets.dev/guard=true")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(namespace: &str, labels: &str) -> Object {
        serde_json::from_str(&format!(
            r#"{{"metadata":{{"uid":"u","name":"n","namespace":"{namespace}","labels":{{{labels}}}}},"spec":{{"containers":[]}}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn pod_is_selected_by_label_and_namespace() {
        let selector = |namespaces: &[&str]| {
            let namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
            PodSelector::new("agentsecrets.dev/guard=true".parse().unwrap(), namespaces, 64646)
        };
        let label = r#""agentsecrets.dev/guard":"true""#;
        for (namespace, labels, among, is_ours) in [
            ("prod", label, &[][..], true),
            ("prod", label, &["prod", "test"], true),
            ("prod", label, &["test"], false),
            ("prod", "", &[], false),
            ("prod", r#""agentsecrets.dev/guard":"false""#, &[], false),
        ] {
            let state = pod_state(&object(namespace, labels), &selector(among)).unwrap();
            assert_eq!(state.is_selected, is_ours, "{namespace} {labels} {among:?}");
            assert_eq!(state.pod.service_account, "default");
        }
        assert!("guard".parse::<Label>().is_err() && "=true".parse::<Label>().is_err());
    }
}
