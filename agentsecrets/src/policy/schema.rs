//! The policy file as it is written: every key of it, nothing that it does not know. What stands here is
//! only syntax; `compile` judges what it means. A key that is there without a value is an error, never
//! the same as a key that is absent: an empty `paths:` must not come to mean every path.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_yaml::Spanned;

/// Text with the line it stands on.
pub(super) type Text = Spanned<String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub version: Spanned<u64>,
    #[serde(default)]
    pub credentials: Vec<Spanned<Credential>>,
    #[serde(default)]
    pub agents: Vec<Spanned<Agent>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Agent {
    pub name: Text,
    #[serde(default, rename = "match", deserialize_with = "given")]
    pub matches: Option<Spanned<Match>>,
    #[serde(default)]
    pub env: bool,
    #[serde(default)]
    pub inbound: Vec<Spanned<u16>>,
    #[serde(default, deserialize_with = "given")]
    pub rate: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub max_body: Option<Text>,
    /// Secret → rate.
    #[serde(default, deserialize_with = "given")]
    pub limits: Option<Spanned<BTreeMap<String, Text>>>,
    #[serde(default)]
    pub allow: Vec<Spanned<Rule>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Match {
    #[serde(default, deserialize_with = "given")]
    pub exe: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub sha256: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub uid: Option<u32>,
    #[serde(default, deserialize_with = "given")]
    pub cgroup: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub container: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub image: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub pod: Option<Spanned<Pod>>,
    #[serde(default, deserialize_with = "given")]
    pub spiffe: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub session: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    pub token: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    pub trusted: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pod {
    #[serde(default, deserialize_with = "given")]
    pub namespace: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub service_account: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub labels: Option<Spanned<BTreeMap<String, Text>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub host: Text,
    #[serde(default, deserialize_with = "given")]
    pub ports: Option<Spanned<Vec<Spanned<u16>>>>,
    #[serde(default, deserialize_with = "given")]
    pub methods: Option<Spanned<Vec<Text>>>,
    #[serde(default, deserialize_with = "given")]
    pub paths: Option<Spanned<Vec<Text>>>,
    #[serde(default, deserialize_with = "given")]
    pub encoded_slashes: Option<Spanned<EncodedSlashes>>,
    #[serde(default)]
    pub secrets: Vec<Text>,
    #[serde(default, deserialize_with = "given")]
    pub inject: Option<Spanned<Inject>>,
    #[serde(default, deserialize_with = "given")]
    pub sign: Option<Spanned<Sign>>,
    #[serde(default)]
    pub capture: Vec<Spanned<Capture>>,
    #[serde(default)]
    pub strip: Vec<Spanned<Strip>>,
    #[serde(default, deserialize_with = "given")]
    pub mint: Option<Mint>,
    #[serde(default, deserialize_with = "given")]
    pub places: Option<Vec<Text>>,
    #[serde(default, deserialize_with = "given")]
    pub approve: Option<Spanned<Approve>>,
    #[serde(default, deserialize_with = "given")]
    pub rate: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub max_body: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub tls: Option<Spanned<Tls>>,
    #[serde(default, deserialize_with = "given")]
    pub roots: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub client_cert: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub private: Option<Spanned<Private>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Inject {
    #[serde(default, deserialize_with = "given")]
    pub bearer: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub basic: Option<Text>,
    /// Header name → secret.
    #[serde(default)]
    pub header: BTreeMap<String, Text>,
    /// Parameter name → secret.
    #[serde(default)]
    pub query: BTreeMap<String, Text>,
    /// Text in the path → secret.
    #[serde(default)]
    pub path: BTreeMap<String, Text>,
    /// Cookie name → secret.
    #[serde(default)]
    pub cookie: BTreeMap<String, Text>,
    /// Path in the JSON body → secret.
    #[serde(default)]
    pub json: BTreeMap<String, Text>,
    /// Form field → secret.
    #[serde(default)]
    pub form: BTreeMap<String, Text>,
}

/// What is kept of an answer. One place stands there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Capture {
    #[serde(default, deserialize_with = "given")]
    pub header: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub cookie: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub json: Option<String>,
    #[serde(rename = "as")]
    pub name: Text,
}

/// What is taken off an answer. One place stands there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Strip {
    #[serde(default, deserialize_with = "given")]
    pub header: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub cookie: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub json: Option<String>,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mint {
    /// Endpoints that mint credentials may be asked.
    Allow,
    /// They may not, as where the key is absent.
    Deny,
}

/// How requests are signed. One of its keys stands there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sign {
    #[serde(default, deserialize_with = "given")]
    pub aws: Option<Spanned<SignAws>>,
    #[serde(default, deserialize_with = "given")]
    pub hmac: Option<Spanned<SignHmac>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignAws {
    pub access_key: Text,
    pub secret_key: Text,
    #[serde(default, deserialize_with = "given")]
    pub session_token: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub regions: Option<Spanned<Vec<Text>>>,
    #[serde(default, deserialize_with = "given")]
    pub services: Option<Spanned<Vec<Text>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignHmac {
    pub key: Text,
    pub header: Text,
    pub message: Text,
    #[serde(default, deserialize_with = "given")]
    pub value: Option<Text>,
    /// Header name → template.
    #[serde(default)]
    pub also: BTreeMap<String, Text>,
    #[serde(default, deserialize_with = "given")]
    pub algorithm: Option<Spanned<HmacAlgorithm>>,
    #[serde(default, deserialize_with = "given")]
    pub encoding: Option<Spanned<HmacEncoding>>,
}

/// A credential that is made from others. One of the four ways stands there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credential {
    pub name: Text,
    #[serde(default, deserialize_with = "given")]
    pub oauth: Option<Spanned<OAuth>>,
    #[serde(default, deserialize_with = "given")]
    pub github_app: Option<Spanned<GithubApp>>,
    #[serde(default, deserialize_with = "given")]
    pub google: Option<Spanned<Google>>,
    #[serde(default, deserialize_with = "given")]
    pub jwt: Option<Spanned<Jwt>>,
    #[serde(default, deserialize_with = "given")]
    pub private: Option<Spanned<Private>>,
    #[serde(default, deserialize_with = "given")]
    pub roots: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OAuth {
    pub token_url: Text,
    pub grant: Spanned<OAuthGrant>,
    pub client_id: Text,
    #[serde(default, deserialize_with = "given")]
    pub client_secret: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub refresh_token: Option<Text>,
    #[serde(default)]
    pub scopes: Vec<Text>,
    #[serde(default, deserialize_with = "given")]
    pub audience: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub auth: Option<OAuthClient>,
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum OAuthGrant {
    ClientCredentials,
    RefreshToken,
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum OAuthClient {
    Basic,
    Body,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GithubApp {
    /// The app's id, or its client id.
    pub app: Text,
    pub installation: Spanned<u64>,
    pub private_key: Text,
    #[serde(default, deserialize_with = "given")]
    pub api: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    pub repositories: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    pub permissions: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Google {
    pub service_account: Text,
    pub scopes: Spanned<Vec<Text>>,
    #[serde(default, deserialize_with = "given")]
    pub subject: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub token_url: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Jwt {
    pub key: Text,
    pub algorithm: Text,
    #[serde(default)]
    pub claims: BTreeMap<String, Spanned<Claim>>,
    #[serde(default, deserialize_with = "given")]
    pub key_id: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub lifetime: Option<Text>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a claim is text, a number, true, false, or a list of texts")]
pub(super) enum Claim {
    Bool(bool),
    Number(i64),
    Text(String),
    Texts(Vec<String>),
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum HmacAlgorithm {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum HmacEncoding {
    Hex,
    Base64,
    Base64url,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "`approve` is true, false, or { wait: 60s }")]
pub(super) enum Approve {
    Plain(bool),
    Waiting(Wait),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    pub wait: String,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Tls {
    Passthrough,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum EncodedSlashes {
    /// They pass, where the path is allowed whichever way it is read.
    Allow,
    /// They make a path ambiguous, as they do where the key is absent.
    Refuse,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "`private` is true, false, or a list of networks such as [10.2.0.0/16]")]
pub(super) enum Private {
    Plain(bool),
    Within(Vec<String>),
}

/// Reads a key that may be left out but, where it stands, has a value.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
