//! `env` inside an agent's sandbox: requests the values from the interceptor, which gives them if the agent's
//! policy entry has `env: true`, and records the export.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use http::header::HOST;
use http_body_util::BodyExt;
use zeroize::Zeroizing;

use super::args::Args;
use super::variables::{Variable, choose};
use crate::call::send;
use crate::pipeline::value_export;
use crate::types::body::empty;
use crate::types::failure::{ErrorContext, Exit, Failure};
use crate::types::name::SecretName;
use crate::types::secret::Secret;

/// The variables that `args` select from the values that the agent may have.
pub(super) fn variables(args: &Args) -> Result<Vec<Variable>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context_with_exit(Exit::OwnFailure, "cannot ask for the values")?;
    // `--only` does not limit the secrets that a file refers to.
    let names: &[SecretName] = if args.env_file.is_some() { &[] } else { &args.only };
    let values = runtime.block_on(fetch_values(names))?;
    let available: Vec<_> = values.keys().map(|name| (name.clone(), None)).collect();
    let value = |name: &SecretName| {
        let value = values.get(name).map(|value| Secret::new(value.to_vec()));
        value.ok_or_else(|| Failure::new(Exit::NotFound, format!("secret '{name}' not found in keychain")))
    };
    choose(args, &available, &value)
}

async fn fetch_values(names: &[SecretName]) -> Result<BTreeMap<SecretName, Zeroizing<Vec<u8>>>, Failure> {
    let unclear = || Failure::new(Exit::OwnFailure, "the interceptor's response is not valid");
    let query = names.iter().map(|name| format!("only={name}")).collect::<Vec<_>>().join("&");
    let url = format!("https://{}{}?{query}", value_export::HOST, value_export::ENV_PATH);
    let request = Request::get(url).header(HOST, value_export::HOST).body(empty()).map_err(|_| unclear())?;
    let response = send(request, Vec::new()).await?;
    let (is_ok, status) = (response.status().is_success(), response.status());
    let body =
        Zeroizing::new(response.into_body().collect().await.map_err(|_| unclear())?.to_bytes().to_vec());
    if !is_ok {
        let error: serde_json::Value = serde_json::from_slice(&body).map_err(|_| unclear())?;
        let error =
            ["message", "error"].iter().find_map(|key| error.get(*key)?.as_str()).unwrap_or("refused");
        let exit = match status.as_u16() {
            403 => Exit::Denied,
            502 => Exit::NotFound,
            503 => Exit::Locked,
            _ => Exit::OwnFailure,
        };
        return Err(Failure::new(exit, error)
            .hint("use the placeholder instead: the variable with the name of the secret already holds it"));
    }
    let object: BTreeMap<SecretName, &str> = serde_json::from_slice(&body).map_err(|_| unclear())?;
    let decode = |(name, text): (SecretName, &str)| {
        let value = STANDARD.decode(text).map(Zeroizing::new).map_err(|_| unclear())?;
        Ok((name, value))
    };
    object.into_iter().map(decode).collect()
}
