//! Makes the credentials that are made from others, and keeps them: each is fetched once for all who wait,
//! renewed before it ends, and not asked for again at once where that failed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use tokio::sync::OwnedMutexGuard;
use zeroize::Zeroizing;

use super::oauth::{self, GrantedToken};
use super::{Values, jwt, missing};
use crate::credentials::token_request::{TokenFetch, TokenRequest};
use crate::policy::grant::Grant;
use crate::policy::minted_credentials::{MintMethod, MintedCredential};
use crate::store::refresh_tokens::{RefreshTokenStore, RotationLock};
use crate::store::{Key, StoreError};
use crate::types::name::{Environment, Project, SecretName};
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::secret::Secret;
use crate::types::sync::MutexExt;

/// Time limit for another process's exchange of the same refresh token.
const ROTATION_LOCK_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Longest pause after failures of an endpoint.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// A token that was doubted is made anew only if it is at least this old.
const MIN_RENEWAL_AGE: Duration = Duration::from_secs(10);

/// Makes and keeps credentials.
pub struct Minter {
    rotated: RefreshTokenStore,
    project: Project,
    environment: Environment,
    slots: Mutex<HashMap<SecretName, Arc<Slot>>>,
}

/// A credential that was made.
#[derive(Clone)]
pub struct Minted {
    /// Its value.
    pub value: Arc<Secret>,
    /// When it is no longer good.
    pub expires: Instant,
    /// The refresh token that came with it.
    pub refresh: Option<Arc<Secret>>,
}

/// The state of one credential.
#[derive(Default)]
struct Slot {
    ready: ArcSwapOption<Ready>,
    turn: Arc<tokio::sync::Mutex<Attempts>>,
}

struct Ready {
    made: Made,
    minted: Minted,
    since: Instant,
    renew: Instant,
}

/// The inputs of a credential: other inputs make another credential.
#[derive(Clone)]
struct Made {
    derived: Arc<MintedCredential>,
    sources: Vec<Arc<Secret>>,
}

/// The attempts since the last success.
#[derive(Default)]
struct Attempts {
    failed: Option<Failed>,
    /// A refresh token that came and could not be saved.
    unsaved: Option<Arc<Secret>>,
}

struct Failed {
    made: Made,
    rejection: Rejection,
    times: u32,
    until: Instant,
}

impl PartialEq for Made {
    fn eq(&self, other: &Self) -> bool {
        self.derived.method == other.derived.method && self.sources == other.sources
    }
}

impl Minter {
    /// Makes credentials of a project and environment; what replaces a stored secret is kept in `rotated`.
    pub fn new(rotated: RefreshTokenStore, project: Project, environment: Environment) -> Self {
        Self { rotated, project, environment, slots: Mutex::default() }
    }

    /// The credential that `derived` describes, from the stored `values`.
    pub async fn obtain(
        self: &Arc<Self>,
        derived: &Arc<MintedCredential>,
        values: &Values,
        fetch: &Arc<dyn TokenFetch>,
    ) -> Result<Minted, Rejection> {
        let sources =
            derived.source_secrets().into_iter().map(|name| values.get(name).ok_or_else(|| missing(name)));
        let made = Made { derived: derived.clone(), sources: sources.collect::<Result<_, _>>()? };
        let slot = self.slot(&derived.name);
        let mut old = None;
        if let Some(ready) = slot.of(&made) {
            let now = Instant::now();
            if now < ready.renew {
                return Ok(ready.minted.clone());
            }
            old = Some(ready.minted.clone()).filter(|minted| now < minted.expires);
        }
        let turn = match (slot.turn.clone().try_lock_owned(), &old) {
            (Ok(turn), _) => turn,
            // Somebody renews it already, and it is still good.
            (Err(_), Some(old)) => return Ok(old.clone()),
            (Err(_), None) => slot.turn.clone().lock_owned().await,
        };
        if let Some(ready) = slot.of(&made).filter(|ready| Instant::now() < ready.renew) {
            return Ok(ready.minted.clone());
        }
        if let Some(failed) = turn.failed.as_ref().filter(|failed| failed.holds(&made)) {
            return old.ok_or_else(|| failed.again());
        }
        // In a task of its own: who asked may go away, and what the endpoint gave must be kept all the same.
        let (minter, fetch) = (self.clone(), fetch.clone());
        let minting = tokio::spawn(async move { minter.renew(&slot, turn, made, &*fetch).await });
        let minted = minting.await.unwrap_or_else(|_| Err(mint_failed(derived, "it was broken off")));
        minted.or_else(|rejection| old.ok_or(rejection))
    }

    /// Notes that a server refused what was `made` for `grant`: the next request gets it anew.
    pub fn invalidate(&self, grant: &Grant, made: &[(SecretName, Arc<Secret>)]) {
        for (name, value) in made
            .iter()
            .filter(|(name, _)| grant.minted_credentials().iter().any(|derived| derived.name == *name))
        {
            let slot = self.slot(name);
            let doubted = |ready: &Arc<Ready>| {
                *ready.minted.value == **value && ready.since.elapsed() >= MIN_RENEWAL_AGE
            };
            if slot.ready.load().as_ref().is_some_and(doubted) {
                slot.ready.store(None);
            }
        }
    }

    fn slot(&self, name: &SecretName) -> Arc<Slot> {
        let mut slots = self.slots.lock_ignoring_poison();
        slots.entry(name.clone()).or_default().clone()
    }

    async fn renew(
        &self,
        slot: &Slot,
        mut turn: OwnedMutexGuard<Attempts>,
        made: Made,
        fetch: &dyn TokenFetch,
    ) -> Result<Minted, Rejection> {
        let granted = match self.make(&made, &mut turn, fetch).await {
            Ok(granted) => granted,
            Err(rejection) => {
                tracing::warn!(credential = %made.derived.name, "a credential could not be made");
                let times = turn
                    .failed
                    .as_ref()
                    .filter(|failed| failed.made == made)
                    .map_or(0, |failed| failed.times);
                let pause = Duration::from_secs(1 << times.min(6)).min(MAX_BACKOFF);
                let until = Instant::now() + pause;
                turn.failed = Some(Failed { made, rejection: rejection.clone(), times: times + 1, until });
                return Err(rejection);
            }
        };
        turn.failed = None;
        let now = Instant::now();
        let minted = Minted {
            value: Arc::new(granted.token),
            expires: now + granted.lifetime,
            refresh: granted.refresh.map(Arc::new),
        };
        let renew = minted.expires - (granted.lifetime / 10).min(Duration::from_secs(60));
        slot.ready.store(Some(Arc::new(Ready { made, minted: minted.clone(), since: now, renew })));
        Ok(minted)
    }

    async fn make(
        &self,
        made: &Made,
        turn: &mut Attempts,
        fetch: &dyn TokenFetch,
    ) -> Result<GrantedToken, Rejection> {
        let derived = &made.derived;
        let wrong = |reason: String| mint_failed(derived, &reason);
        let first = made.sources.first();
        let spends = derived.source_secrets().into_iter().cloned().collect();
        let ask = |authorization, content_type, body| {
            fetch.ask(TokenRequest { derived: derived.clone(), spends, authorization, content_type, body })
        };
        let key = || first.map(|key| &**key).ok_or_else(|| mint_failed(derived, "it is made from nothing"));
        match &derived.method {
            MintMethod::Jwt(how) => jwt::sign(how, key()?).map_err(wrong),
            MintMethod::GithubApp(app) => {
                let proof =
                    Zeroizing::new(format!("Bearer {}", *jwt::for_github(app, key()?).map_err(wrong)?));
                let mut proof = HeaderValue::from_str(&proof)
                    .map_err(|_| mint_failed(derived, "its proof is damaged"))?;
                proof.set_sensitive(true);
                let reply = ask(Some(proof), "application/json", jwt::github_body(app)).await;
                jwt::read_github(&reply.map_err(|rejection| endpoint_unreachable(derived, rejection))?)
                    .map_err(wrong)
            }
            MintMethod::Google(google) => {
                let body = jwt::for_google(google, key()?).map_err(wrong)?;
                let reply = ask(None, oauth::FORM, body)
                    .await
                    .map_err(|rejection| endpoint_unreachable(derived, rejection))?;
                oauth::read(&reply).map_err(wrong)
            }
            MintMethod::OAuth(how) => {
                let secret = how.client_secret.as_ref().and(first).map(|secret| &**secret);
                let Some(name) = &how.refresh_token else {
                    let (body, authorization) = oauth::request(how, secret, None).map_err(wrong)?;
                    let reply = ask(authorization, oauth::FORM, body).await;
                    return oauth::read(
                        &reply.map_err(|rejection| endpoint_unreachable(derived, rejection))?,
                    )
                    .map_err(wrong);
                };
                let stored =
                    made.sources.last().ok_or_else(|| mint_failed(derived, "it is made from nothing"))?;
                let (project, environment) = (self.project.clone(), self.environment.clone());
                let at = Key { project, environment, name: name.clone() };
                let unkept =
                    |error: StoreError| Rejection::new(ErrorCode::StoreUnavailable, error.to_string());
                let _turn = self.turn(&at).await.map_err(unkept)?.ok_or_else(|| {
                    mint_failed(
                        derived,
                        "another process is exchanging its refresh token, and does not come to an end",
                    )
                })?;
                if let Some(unsaved) = turn.unsaved.take() {
                    self.rotated
                        .set(&at, stored, &unsaved)
                        .inspect_err(|_| turn.unsaved = Some(unsaved))
                        .map_err(unkept)?;
                }
                let rotated = self.rotated.get(&at, stored).map_err(unkept)?;
                let current = rotated.as_ref().unwrap_or(stored);
                let (body, authorization) = oauth::request(how, secret, Some(current)).map_err(wrong)?;
                let reply = ask(authorization, oauth::FORM, body).await;
                let granted =
                    oauth::read(&reply.map_err(|rejection| endpoint_unreachable(derived, rejection))?)
                        .map_err(wrong)?;
                // Kept before anything is spent: the one before may be good no more.
                if let Some(next) = granted.refresh.as_ref().filter(|next| **next != *current)
                    && let Err(error) = self.rotated.set(&at, stored, next)
                {
                    turn.unsaved = granted.refresh.map(Arc::new);
                    return Err(unkept(error));
                }
                Ok(granted)
            }
        }
    }

    /// A turn at exchanging a refresh token, which every process of ours may want.
    async fn turn(&self, key: &Key) -> Result<Option<RotationLock>, StoreError> {
        let end = Instant::now() + ROTATION_LOCK_TIMEOUT;
        loop {
            match self.rotated.lock(key)? {
                None if Instant::now() < end => tokio::time::sleep(POLL_INTERVAL).await,
                turn => return Ok(turn),
            }
        }
    }
}

impl Slot {
    /// The minted credential, if it was made from the same inputs.
    fn of(&self, made: &Made) -> Option<Arc<Ready>> {
        self.ready.load_full().filter(|ready| ready.made == *made)
    }
}

impl Failed {
    fn holds(&self, made: &Made) -> bool {
        self.made == *made && Instant::now() < self.until
    }

    fn again(&self) -> Rejection {
        let seconds = self.until.saturating_duration_since(Instant::now()).as_secs() + 1;
        let message = format!("{} (not asked again for {seconds} s)", self.rejection.message);
        Rejection { message, ..self.rejection.clone() }
    }
}

fn mint_failed(derived: &MintedCredential, reason: &str) -> Rejection {
    let MintedCredential { name, defined_at: place, .. } = derived;
    let whose =
        derived.endpoint().map(|endpoint| format!(" at '{}'", endpoint.target.host)).unwrap_or_default();
    let message = format!("the credential '{name}' ({place}) cannot be made{whose}: {reason}");
    Rejection::new(ErrorCode::CredentialUnavailable, message)
}

/// The endpoint could not be asked.
fn endpoint_unreachable(derived: &MintedCredential, rejection: Rejection) -> Rejection {
    let slug = match rejection.code {
        ErrorCode::UpstreamTimeout | ErrorCode::AuditUnavailable => rejection.code,
        _ => ErrorCode::CredentialUnavailable,
    };
    Rejection { code: slug, ..mint_failed(derived, &rejection.message) }
}
