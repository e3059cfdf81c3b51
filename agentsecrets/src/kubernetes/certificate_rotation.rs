//! Keeps the webhook's certificates: the authority in a Secret that all replicas share, the authority's
//! certificate in the webhook's configuration, where the API server looks for it, and a certificate under it in
//! each replica. A new authority is trusted before anything that it signed is shown, and the old one until
//! nothing that it signed is valid any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::authority::{Authority, NoCertificate};

/// How often everything is looked at.
const LOOK: Duration = Duration::from_secs(30);
/// How soon again, when the API server said no: another replica may have been faster.
const SOON: Duration = Duration::from_secs(1);

const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";
const PREVIOUS: &str = "previous.crt";

/// Where what is kept belongs.
#[derive(Debug, Clone)]
pub struct Places {
    /// Our namespace.
    pub namespace: String,
    /// The Secret of the authority; it exists, perhaps empty.
    pub secret: String,
    /// The webhook's configuration.
    pub configuration: String,
    /// The names by which the API server calls us.
    pub names: Vec<String>,
}

/// Why the certificates are not in order.
#[derive(Debug, thiserror::Error)]
pub enum NotKept {
    /// The API server says no, or nothing.
    #[error("the API server: {0}")]
    Api(#[from] kube::Error),
    /// There is no certificate.
    #[error(transparent)]
    Certificate(#[from] NoCertificate),
}

/// What is trusted, and what signs.
struct Kept {
    authority: Authority,
    bundle: String,
}

/// Keeps the certificates in order, and shows in `shown` the one to serve with. Never ends.
pub async fn keep(
    client: Client,
    places: Places,
    provider: Arc<rustls::crypto::CryptoProvider>,
    shown: watch::Sender<Option<Arc<CertifiedKey>>>,
) {
    let (mut signed_by, mut renewed) = (String::new(), OffsetDateTime::UNIX_EPOCH);
    let mut wait = Duration::ZERO;
    loop {
        tokio::time::sleep(wait).await;
        let now = OffsetDateTime::now_utc();
        let kept = match settle(&client, &places, now).await {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(%error, "the webhook's certificates cannot be looked after");
                wait = (wait * 2).clamp(SOON, LOOK);
                continue;
            }
        };
        wait = LOOK;
        if kept.authority.certificate == signed_by && now < renewed {
            continue;
        }
        match kept.authority.sign(&places.names, now, &provider) {
            Ok((certified, next)) => {
                (signed_by, renewed) = (kept.authority.certificate, next);
                shown.send_replace(Some(Arc::new(certified)));
            }
            Err(error) => tracing::error!(%error, "the webhook has no new certificate"),
        }
    }
}

/// The authority that signs now, once the API server trusts it.
async fn settle(client: &Client, places: &Places, now: OffsetDateTime) -> Result<Kept, NotKept> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &places.namespace);
    let secret = secrets.get(&places.secret).await?;
    let kept = match read(&secret) {
        Some(kept) if !kept.authority.is_due(now) => kept,
        old => {
            let (secret, kept) = renew(secret, old, now)?;
            // Of several replicas one wins; the others find a newer version, and look again.
            secrets.replace(&places.secret, &PostParams::default(), &secret).await?;
            kept
        }
    };
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let mut configuration = configurations.get(&places.configuration).await?;
    let bundle = ByteString(kept.bundle.clone().into_bytes());
    let mut changed = false;
    for webhook in configuration.webhooks.iter_mut().flatten() {
        if webhook.client_config.ca_bundle.as_ref() != Some(&bundle) {
            webhook.client_config.ca_bundle = Some(bundle.clone());
            changed = true;
        }
    }
    if changed {
        configurations.replace(&places.configuration, &PostParams::default(), &configuration).await?;
    }
    Ok(kept)
}

fn read(secret: &Secret) -> Option<Kept> {
    let text = |key: &str| {
        let bytes = secret.data.as_ref()?.get(key)?;
        String::from_utf8(bytes.0.clone()).ok()
    };
    let (certificate, key) = (text(CERTIFICATE)?, text(KEY)?);
    let authority = Authority::read(&certificate, &key);
    let authority =
        authority.inspect_err(|error| tracing::warn!(%error, "the kept authority cannot be read"));
    Some(Kept { authority: authority.ok()?, bundle: certificate + &text(PREVIOUS).unwrap_or_default() })
}

fn renew(mut secret: Secret, old: Option<Kept>, now: OffsetDateTime) -> Result<(Secret, Kept), NotKept> {
    let authority = Authority::generate(now)?;
    let previous = old.map(|old| old.authority.certificate).unwrap_or_default();
    let bundle = authority.certificate.clone() + &previous;
    let data = [(CERTIFICATE, &authority.certificate), (KEY, &authority.key), (PREVIOUS, &previous)];
    let data = data.map(|(name, text)| (name.to_owned(), ByteString(text.clone().into_bytes())));
    secret.data = Some(BTreeMap::from(data));
    Ok((secret, Kept { authority, bundle }))
}
