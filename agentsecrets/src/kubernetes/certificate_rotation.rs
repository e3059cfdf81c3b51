//! Rotates the webhook's certificates. The authority is in a Secret that all replicas share; its certificate
//! is in the webhook's configuration; each replica has a certificate signed by it. A new authority is trusted
//! before its first certificate is served, and the old one until its last certificate has expired.

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

use super::authority::{CertificateError, WebhookAuthority};

const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// First delay after an error: another replica may have been faster.
const RETRY_DELAY: Duration = Duration::from_secs(1);

const CERTIFICATE_KEY: &str = "ca.crt";
const PRIVATE_KEY_KEY: &str = "ca.key";
const PREVIOUS_CERTIFICATE_KEY: &str = "previous.crt";

/// The objects that hold certificates.
#[derive(Debug, Clone)]
pub struct CertificateTargets {
    /// Our own namespace.
    pub namespace: String,
    /// The authority's Secret; it must exist and may be empty.
    pub secret: String,
    /// The MutatingWebhookConfiguration.
    pub configuration: String,
    /// The names by which the API server calls us.
    pub dns_names: Vec<String>,
}

/// Reasons that a rotation fails.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// A request to the API server failed.
    #[error("the API server: {0}")]
    Api(#[from] kube::Error),
    /// No certificate could be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// The signing authority, and the bundle of all trusted ones.
struct TrustState {
    authority: WebhookAuthority,
    bundle: String,
}

/// Rotates the certificates and sends the current one to `sender`. Never returns.
pub async fn run(
    client: Client,
    targets: CertificateTargets,
    provider: Arc<rustls::crypto::CryptoProvider>,
    sender: watch::Sender<Option<Arc<CertifiedKey>>>,
) {
    let (mut signed_by, mut renewed) = (String::new(), OffsetDateTime::UNIX_EPOCH);
    let mut wait = Duration::ZERO;
    loop {
        tokio::time::sleep(wait).await;
        let now = OffsetDateTime::now_utc();
        let state = match reconcile(&client, &targets, now).await {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(%error, "the webhook's certificates cannot be rotated");
                wait = (wait * 2).clamp(RETRY_DELAY, POLL_INTERVAL);
                continue;
            }
        };
        wait = POLL_INTERVAL;
        if state.authority.certificate_pem == signed_by && now < renewed {
            continue;
        }
        match state.authority.sign(&targets.dns_names, now, &provider) {
            Ok((certified, next)) => {
                (signed_by, renewed) = (state.authority.certificate_pem, next);
                sender.send_replace(Some(Arc::new(certified)));
            }
            Err(error) => tracing::error!(%error, "the webhook has no new certificate"),
        }
    }
}

/// Returns the signing authority once the API server trusts it.
async fn reconcile(
    client: &Client,
    targets: &CertificateTargets,
    now: OffsetDateTime,
) -> Result<TrustState, RotationError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &targets.namespace);
    let secret = secrets.get(&targets.secret).await?;
    let state = match read_secret(&secret) {
        Some(state) if !state.authority.is_due_for_renewal(now) => state,
        old => {
            let (secret, state) = rotate_authority(secret, old, now)?;
            // One of several replicas wins; the others get a conflict and read again.
            secrets.replace(&targets.secret, &PostParams::default(), &secret).await?;
            state
        }
    };
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let mut configuration = configurations.get(&targets.configuration).await?;
    let bundle = ByteString(state.bundle.clone().into_bytes());
    let mut changed = false;
    for webhook in configuration.webhooks.iter_mut().flatten() {
        if webhook.client_config.ca_bundle.as_ref() != Some(&bundle) {
            webhook.client_config.ca_bundle = Some(bundle.clone());
            changed = true;
        }
    }
    if changed {
        configurations.replace(&targets.configuration, &PostParams::default(), &configuration).await?;
    }
    Ok(state)
}

fn read_secret(secret: &Secret) -> Option<TrustState> {
    let text = |key: &str| {
        let bytes = secret.data.as_ref()?.get(key)?;
        String::from_utf8(bytes.0.clone()).ok()
    };
    let (certificate, key) = (text(CERTIFICATE_KEY)?, text(PRIVATE_KEY_KEY)?);
    let authority = WebhookAuthority::from_pem(&certificate, &key);
    let authority =
        authority.inspect_err(|error| tracing::warn!(%error, "the stored authority cannot be read"));
    Some(TrustState {
        authority: authority.ok()?,
        bundle: certificate + &text(PREVIOUS_CERTIFICATE_KEY).unwrap_or_default(),
    })
}

fn rotate_authority(
    mut secret: Secret,
    old: Option<TrustState>,
    now: OffsetDateTime,
) -> Result<(Secret, TrustState), RotationError> {
    let authority = WebhookAuthority::generate(now)?;
    let previous = old.map(|old| old.authority.certificate_pem).unwrap_or_default();
    let bundle = authority.certificate_pem.clone() + &previous;
    let data = [
        (CERTIFICATE_KEY, &authority.certificate_pem),
        (PRIVATE_KEY_KEY, &authority.key_pem),
        (PREVIOUS_CERTIFICATE_KEY, &previous),
    ];
    let data = data.map(|(name, text)| (name.to_owned(), ByteString(text.clone().into_bytes())));
    secret.data = Some(BTreeMap::from(data));
    Ok((secret, TrustState { authority, bundle }))
}
