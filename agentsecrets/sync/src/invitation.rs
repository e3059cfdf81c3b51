//! Invitations and requests to join. An invitation is a code for one person: the workspace, its history so far, the
//! inviting admin's keys, and a secret that proves the invitation. It opens nothing: an admin seals the keys once
//! both people compared words.

use agentsecrets_types::secret::Secret;
use agentsecrets_vault::Base64;
use aws_lc_rs::signature::{ED25519, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::cache::Pin;
use crate::crypto::context;
use crate::error::Error;
use crate::id::Id;
use crate::identity::{Identity, PublicIdentity, key_pair};
use crate::remote::Remote;
use crate::roster::PendingInvitation;

const PREFIX: &str = "asi1-";
/// The longest code, in bytes.
const MAX_CODE: usize = 8192;

/// An invitation as its code carries it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    /// The address of the storage.
    pub store: String,
    /// The workspace.
    pub workspace: Id,
    /// The invitation, and the later member.
    pub id: Id,
    /// The last commit at the time of the invitation.
    pub pin: Pin,
    /// The inviting admin.
    pub inviter: PublicIdentity,
    secret: Base64,
}

/// A request to join: the public keys of the invited member.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    public: PublicIdentity,
    by_invitation: Base64,
    by_member: Base64,
}

impl Invitation {
    /// A new invitation.
    ///
    /// # Errors
    /// If the system yields no random bytes.
    pub fn new(store: &str, workspace: Id, pin: Pin, inviter: &PublicIdentity) -> Result<Self, Error> {
        let secret = Base64(agentsecrets_vault::random::<32>()?.to_vec());
        Ok(Self {
            store: store.to_owned(),
            workspace,
            id: Id::random()?,
            pin,
            inviter: inviter.clone(),
            secret,
        })
    }

    /// The public key that proves the invitation.
    ///
    /// # Errors
    /// If a library fails.
    pub fn key(&self) -> Result<Base64, Error> {
        Ok(Base64(key_pair(&self.seed()?)?.public_key().as_ref().to_vec()))
    }

    /// The code.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn to_code(&self) -> Result<String, Error> {
        let bytes =
            serde_json::to_vec(self).map_err(|_| Error::Crypto("the invitation cannot be written"))?;
        Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(Zeroizing::new(bytes))))
    }

    /// Reads a code.
    ///
    /// # Errors
    /// If it is no code of an invitation.
    pub fn from_code(code: &str) -> Result<Self, Error> {
        let text = code.trim().strip_prefix(PREFIX).filter(|text| text.len() <= MAX_CODE);
        let bytes = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).map(Zeroizing::new);
        let parsed = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        parsed.ok_or_else(|| {
            Error::Refused(format!("this is no invitation: it begins with {PREFIX} and is one word"))
        })
    }

    fn seed(&self) -> Result<Secret, Error> {
        Ok(agentsecrets_vault::derive(&[], &self.secret.0, b"agentsecrets-sync/1 invitation")?)
    }
}

impl JoinRequest {
    /// Leaves the request of `identity` in the store.
    ///
    /// # Errors
    /// If the store fails, or another request was left for this invitation.
    pub async fn send(remote: &Remote, invitation: &Invitation, identity: &Identity) -> Result<(), Error> {
        let message = message(invitation.workspace, invitation.id, identity.public());
        let by_invitation = key_pair(&invitation.seed()?)?.sign(&message).as_ref().to_vec();
        let by_member = Base64(identity.sign(&message)?);
        let request =
            Self { public: identity.public().clone(), by_invitation: Base64(by_invitation), by_member };
        let bytes =
            serde_json::to_vec(&request).map_err(|_| Error::Crypto("the request cannot be written"))?;
        let name = name(invitation.workspace, invitation.id);
        // Ed25519 signs the same way each time: a repeated request is the same bytes.
        if remote.create(&name, &bytes).await? || remote.object(&name).await? == Some(bytes) {
            return Ok(());
        }
        Err(Error::Refused("somebody has used this invitation already: ask for another".into()))
    }

    /// The keys of whoever joined with `invitation`, if somebody did.
    ///
    /// # Errors
    /// If the request is not signed by the invitation and by its keys.
    pub async fn receive(
        remote: &Remote,
        workspace: Id,
        invitation: &PendingInvitation,
    ) -> Result<Option<PublicIdentity>, Error> {
        let Some(bytes) = remote.object(&name(workspace, invitation.id)).await? else { return Ok(None) };
        let forged =
            || Error::Refused("the request to join is forged: it is not signed by the invitation".into());
        let request: Self = serde_json::from_slice(&bytes).map_err(|_| forged())?;
        let message = message(workspace, invitation.id, &request.public);
        let invited = UnparsedPublicKey::new(&ED25519, &invitation.key.0);
        let valid = request.public.is_well_formed()
            && invited.verify(&message, &request.by_invitation.0).is_ok()
            && request.public.verifies(&message, &request.by_member.0);
        if valid { Ok(Some(request.public)) } else { Err(forged()) }
    }
}

fn name(workspace: Id, invitation: Id) -> String {
    format!("{workspace}/join/{invitation}")
}

fn message(workspace: Id, invitation: Id, public: &PublicIdentity) -> Vec<u8> {
    let (workspace, invitation) = (workspace.to_string(), invitation.to_string());
    context("join", &[workspace.as_bytes(), invitation.as_bytes(), &public.signing.0, &public.encryption.0])
}
