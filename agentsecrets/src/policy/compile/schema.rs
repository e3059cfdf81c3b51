//! The syntax of the policy file. Unknown keys are errors. A key without a value is an error and not the same
//! as an absent key: an empty `paths:` must not mean every path.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_yaml::Spanned;

/// Text with its line.
pub(in crate::policy) type Text = Spanned<String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct File {
    pub version: Spanned<u64>,
    #[serde(default)]
    pub credentials: Vec<Spanned<Credential>>,
    #[serde(default)]
    pub agents: Vec<Spanned<Agent>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct Agent {
    pub name: Text,
    #[serde(default, rename = "match", deserialize_with = "present")]
    pub matches: Option<Spanned<Match>>,
    #[serde(default)]
    pub env: bool,
    #[serde(default)]
    pub inbound: Vec<Spanned<u16>>,
    #[serde(default, deserialize_with = "present")]
    pub rate: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    pub max_body: Option<Text>,
    /// Secret → rate.
    #[serde(default, deserialize_with = "present")]
    pub limits: Option<Spanned<BTreeMap<String, Text>>>,
    #[serde(default)]
    pub allow: Vec<Spanned<Rule>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct Match {
    #[serde(default, deserialize_with = "present")]
    pub exe: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    pub sha256: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    pub uid: Option<u32>,
    #[serde(default, deserialize_with = "present")]
    pub cgroup: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    pub container: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    pub image: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    pub pod: Option<Spanned<Pod>>,
    #[serde(default, deserialize_with = "present")]
    pub spiffe: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    pub session: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    pub token: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    pub trusted: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct Pod {
    #[serde(default, deserialize_with = "present")]
    pub namespace: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    pub service_account: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    pub labels: Option<Spanned<BTreeMap<String, Text>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct Rule {
    pub host: Text,
    #[serde(default, deserialize_with = "present")]
    pub ports: Option<Spanned<Vec<Spanned<u16>>>>,
    #[serde(default, deserialize_with = "present")]
    pub methods: Option<Spanned<Vec<Text>>>,
    #[serde(default, deserialize_with = "present")]
    pub paths: Option<Spanned<Vec<Text>>>,
    #[serde(default, deserialize_with = "present")]
    pub encoded_slashes: Option<Spanned<EncodedSlashes>>,
    #[serde(default)]
    pub secrets: Vec<Text>,
    #[serde(default, deserialize_with = "present")]
    pub inject: Option<Spanned<Inject>>,
    #[serde(default, deserialize_with = "present")]
    pub sign: Option<Spanned<Sign>>,
    #[serde(default)]
    pub capture: Vec<Spanned<Capture>>,
    #[serde(default)]
    pub strip: Vec<Spanned<Strip>>,
    #[serde(default, deserialize_with = "present")]
    pub mint: Option<Mint>,
    #[serde(default, deserialize_with = "present")]
    pub places: Option<Vec<Text>>,
    #[serde(default, deserialize_with = "present")]
    pub approve: Option<Spanned<Approve>>,
    #[serde(default, deserialize_with = "present")]
    pub rate: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    pub max_body: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    pub tls: Option<Spanned<Tls>>,
    #[serde(default, deserialize_with = "present")]
    pub roots: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    pub client_cert: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    pub private: Option<Spanned<Private>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct Inject {
    #[serde(default, deserialize_with = "present")]
    pub bearer: Option<Text>,
    #[serde(default, deserialize_with = "present")]
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

/// A value to capture from a response. Exactly one location is set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct Capture {
    #[serde(default, deserialize_with = "present")]
    pub header: Option<String>,
    #[serde(default, deserialize_with = "present")]
    pub cookie: Option<String>,
    #[serde(default, deserialize_with = "present")]
    pub json: Option<String>,
    #[serde(rename = "as")]
    pub name: Text,
}

/// A value to strip from a response. Exactly one location is set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct Strip {
    #[serde(default, deserialize_with = "present")]
    pub header: Option<String>,
    #[serde(default, deserialize_with = "present")]
    pub cookie: Option<String>,
    #[serde(default, deserialize_with = "present")]
    pub json: Option<String>,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(in crate::policy) enum Mint {
    /// Requests to endpoints that mint credentials are allowed.
    Allow,
    /// They are denied, as without the key.
    Deny,
}

/// The signature of requests. Exactly one key is set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct Sign {
    #[serde(default, deserialize_with = "present")]
    pub aws: Option<Spanned<SignAws>>,
    #[serde(default, deserialize_with = "present")]
    pub hmac: Option<Spanned<SignHmac>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct SignAws {
    pub access_key: Text,
    pub secret_key: Text,
    #[serde(default, deserialize_with = "present")]
    pub session_token: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    pub regions: Option<Spanned<Vec<Text>>>,
    #[serde(default, deserialize_with = "present")]
    pub services: Option<Spanned<Vec<Text>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct SignHmac {
    pub key: Text,
    pub header: Text,
    pub message: Text,
    #[serde(default, deserialize_with = "present")]
    pub value: Option<Text>,
    /// Header name → template.
    #[serde(default)]
    pub also: BTreeMap<String, Text>,
    #[serde(default, deserialize_with = "present")]
    pub algorithm: Option<Spanned<HmacAlgorithm>>,
    #[serde(default, deserialize_with = "present")]
    pub encoding: Option<Spanned<HmacEncoding>>,
}

/// A credential that is made from stored secrets. Exactly one of the four methods is set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct Credential {
    pub name: Text,
    #[serde(default, deserialize_with = "present")]
    pub oauth: Option<Spanned<OAuth>>,
    #[serde(default, deserialize_with = "present")]
    pub github_app: Option<Spanned<GithubApp>>,
    #[serde(default, deserialize_with = "present")]
    pub google: Option<Spanned<Google>>,
    #[serde(default, deserialize_with = "present")]
    pub jwt: Option<Spanned<Jwt>>,
    #[serde(default, deserialize_with = "present")]
    pub private: Option<Spanned<Private>>,
    #[serde(default, deserialize_with = "present")]
    pub roots: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct OAuth {
    pub token_url: Text,
    pub grant: Spanned<OAuthGrant>,
    pub client_id: Text,
    #[serde(default, deserialize_with = "present")]
    pub client_secret: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    pub refresh_token: Option<Text>,
    #[serde(default)]
    pub scopes: Vec<Text>,
    #[serde(default, deserialize_with = "present")]
    pub audience: Option<String>,
    #[serde(default, deserialize_with = "present")]
    pub auth: Option<OAuthClient>,
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(in crate::policy) enum OAuthGrant {
    ClientCredentials,
    RefreshToken,
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(in crate::policy) enum OAuthClient {
    Basic,
    Body,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct GithubApp {
    /// The app id or client id.
    pub app: Text,
    pub installation: Spanned<u64>,
    pub private_key: Text,
    #[serde(default, deserialize_with = "present")]
    pub api: Option<Text>,
    #[serde(default, deserialize_with = "present")]
    pub repositories: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    pub permissions: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct Google {
    pub service_account: Text,
    pub scopes: Spanned<Vec<Text>>,
    #[serde(default, deserialize_with = "present")]
    pub subject: Option<String>,
    #[serde(default, deserialize_with = "present")]
    pub token_url: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct Jwt {
    pub key: Text,
    pub algorithm: Text,
    #[serde(default)]
    pub claims: BTreeMap<String, Spanned<Claim>>,
    #[serde(default, deserialize_with = "present")]
    pub key_id: Option<String>,
    #[serde(default, deserialize_with = "present")]
    pub lifetime: Option<Text>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a claim is text, a number, true, false, or a list of texts")]
pub(in crate::policy) enum Claim {
    Bool(bool),
    Number(i64),
    Text(String),
    Texts(Vec<String>),
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(in crate::policy) enum HmacAlgorithm {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(in crate::policy) enum HmacEncoding {
    Hex,
    Base64,
    Base64url,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "`approve` is true, false, or { wait: 60s }")]
pub(in crate::policy) enum Approve {
    Plain(bool),
    Waiting(Wait),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct Wait {
    pub wait: String,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(in crate::policy) enum Tls {
    Passthrough,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(in crate::policy) enum EncodedSlashes {
    /// Allowed if both readings of the path are allowed.
    Allow,
    /// They make a path ambiguous, as without the key.
    Refuse,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "`private` is true, false, or a list of networks such as [10.2.0.0/16]")]
pub(in crate::policy) enum Private {
    Plain(bool),
    Within(Vec<String>),
}

/// Deserializes an optional key that must have a value if present.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
