//! Real values inside an agent's sandbox: asked of the interceptor, which gives them where the agent's entry
//! says `env: true`, and keeps the record.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use http::header::HOST;
use http_body_util::BodyExt;
use zeroize::Zeroizing;

use super::Args;
use super::variables::{Variable, choose};
use crate::call::send;
use crate::cli::{Exit, Failure};
use crate::pipeline::value_export;
use crate::types::body::empty;
use crate::types::name::SecretName;
use crate::types::secret::Secret;

/// The variables that `args` choose from what the agent may be given.
pub(super) fn variables(args: &Args) -> Result<Vec<Variable>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| super::ours("cannot ask for the values", error))?;
    // A file says for itself which it needs, and is not asked about the others.
    let wanted: &[SecretName] = if args.env_file.is_some() { &[] } else { &args.only };
    let values = runtime.block_on(ask(wanted))?;
    let known: Vec<_> = values.keys().map(|name| (name.clone(), None)).collect();
    let value = |name: &SecretName| {
        let value = values.get(name).map(|value| Secret::new(value.to_vec()));
        value.ok_or_else(|| Failure::new(Exit::NotFound, format!("secret '{name}' not found in keychain")))
    };
    choose(args, &known, &value)
}

async fn ask(wanted: &[SecretName]) -> Result<BTreeMap<SecretName, Zeroizing<Vec<u8>>>, Failure> {
    let unclear = || Failure::new(Exit::Ours, "the interceptor's answer cannot be understood");
    let query = wanted.iter().map(|name| format!("only={name}")).collect::<Vec<_>>().join("&");
    let url = format!("https://{}{}?{query}", value_export::HOST, value_export::PATH);
    let request = Request::get(url).header(HOST, value_export::HOST).body(empty()).map_err(|_| unclear())?;
    let response = send(request, Vec::new()).await?;
    let (is_ok, status) = (response.status().is_success(), response.status());
    let body =
        Zeroizing::new(response.into_body().collect().await.map_err(|_| unclear())?.to_bytes().to_vec());
    if !is_ok {
        let told: serde_json::Value = serde_json::from_slice(&body).map_err(|_| unclear())?;
        let told = ["message", "error"].iter().find_map(|key| told.get(*key)?.as_str()).unwrap_or("refused");
        let exit = match status.as_u16() {
            403 => Exit::Denied,
            502 => Exit::NotFound,
            503 => Exit::Locked,
            _ => Exit::Ours,
        };
        return Err(Failure::new(exit, told)
            .hint("use the placeholder: the variable of a secret's name holds it already"));
    }
    let object: BTreeMap<SecretName, &str> = serde_json::from_slice(&body).map_err(|_| unclear())?;
    let decode = |(name, text): (SecretName, &str)| {
        let value = STANDARD.decode(text).map(Zeroizing::new).map_err(|_| unclear())?;
        Ok((name, value))
    };
    object.into_iter().map(decode).collect()
}
