//! What the cluster says of a node's pods: its API server is asked for the list once, and then tells of each
//! change. When it no longer knows what we have heard, the list is asked for anew.

use std::fmt;
use std::str::FromStr;

use futures_util::{Stream, StreamExt, future};
use k8s_openapi::api::core::v1::Pod as Object;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, ResourceExt};

use crate::identity::pod::Pod;
use crate::kubernetes::pod_validation;
use crate::kubernetes::sidecar_template::{Fragment, Given};

/// Which pods are guarded.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    /// A label of theirs.
    label: Label,
    /// The namespaces whose pods are looked at; all, if there are none here.
    namespaces: Vec<String>,
    /// What is ours, and no agent's.
    ours: Fragment,
}

/// A label and its value.
#[derive(Debug, Clone)]
pub struct Label(String, String);

/// What is said of one pod.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) pod: Pod,
    /// Whether it is to be guarded.
    pub(super) is_ours: bool,
    /// Why it is not to be served, if it could get around us.
    pub(super) unfit: Option<String>,
}

/// What is said.
#[derive(Debug)]
pub(super) enum News {
    /// A list begins.
    Listing,
    /// A pod is so.
    Is(Box<Told>),
    /// There is no pod with this uid any more.
    Gone(String),
    /// The list is complete: what was not in it is not there.
    Listed,
}

/// Follows the pods of the node `name`. The stream never ends; what goes wrong is tried again, ever later.
pub(super) fn follow(client: Client, name: &str, selection: Selection) -> impl Stream<Item = News> {
    let pods: Api<Object> = Api::all(client);
    let config = Config::default().fields(&format!("spec.nodeName={name}"));
    watcher(pods, config).default_backoff().filter_map(move |event| {
        future::ready(match event {
            Ok(Event::Init) => Some(News::Listing),
            Ok(Event::InitApply(pod) | Event::Apply(pod)) => {
                told(&pod, &selection).map(|told| News::Is(Box::new(told)))
            }
            Ok(Event::Delete(pod)) => pod.metadata.uid.map(News::Gone),
            Ok(Event::InitDone) => Some(News::Listed),
            Err(error) => {
                tracing::warn!(%error, "the API server does not tell of the node's pods");
                None
            }
        })
    })
}

fn told(object: &Object, selection: &Selection) -> Option<Told> {
    let account = object.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    let pod = Pod {
        uid: object.uid()?,
        name: object.name_any(),
        namespace: object.namespace()?,
        service_account: account.unwrap_or_else(|| "default".to_owned()),
        labels: object.labels().clone(),
    };
    let reasons = pod_validation::of_unchanged(object, &selection.ours);
    let unfit = (!reasons.is_empty()).then(|| reasons.join("; "));
    Some(Told { is_ours: selection.holds(&pod), pod, unfit })
}

impl Selection {
    /// Pods with `label` in these `namespaces`, none of which may run as the user `serves`.
    pub(super) fn new(label: Label, namespaces: Vec<String>, serves: u32) -> Self {
        let container = Given { env: Vec::new(), volume_mounts: Vec::new() };
        let (init_containers, volumes, secrets) = Default::default();
        let uids = vec![i64::from(serves)];
        let explicit_users = false;
        let ours = Fragment { init_containers, volumes, container, secrets, uids, explicit_users };
        Self { label, namespaces, ours }
    }

    fn holds(&self, pod: &Pod) -> bool {
        let Label(name, value) = &self.label;
        let here = self.namespaces.is_empty() || self.namespaces.contains(&pod.namespace);
        here && pod.labels.get(name) == Some(value)
    }
}

impl fmt::Display for Selection {
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
    fn a_pod_is_ours_by_its_label_in_the_namespaces_that_are_looked_at() {
        let selection = |namespaces: &[&str]| {
            let namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
            Selection::new("agentsecrets.dev/guard=true".parse().unwrap(), namespaces, 64646)
        };
        let label = r#""agentsecrets.dev/guard":"true""#;
        for (namespace, labels, among, is_ours) in [
            ("prod", label, &[][..], true),
            ("prod", label, &["prod", "test"], true),
            ("prod", label, &["test"], false),
            ("prod", "", &[], false),
            ("prod", r#""agentsecrets.dev/guard":"false""#, &[], false),
        ] {
            let told = told(&object(namespace, labels), &selection(among)).unwrap();
            assert_eq!(told.is_ours, is_ours, "{namespace} {labels} {among:?}");
            assert_eq!(told.pod.service_account, "default");
        }
        assert!("guard".parse::<Label>().is_err() && "=true".parse::<Label>().is_err());
    }
}
