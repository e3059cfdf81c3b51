//! Decides whether an agent gets real values (`agentsecrets env`). It does only with `env: true` in its
//! entry, and only the secrets that its rules name.

use crate::types::name::SecretName;
use crate::types::rejection::{ErrorCode, Rejection};

use super::rules::Agent;

/// Permission to give an agent the values of these secrets. Not `Clone`; created by `decide_value_export`
/// alone.
#[derive(Debug)]
pub struct ValueExport {
    names: Vec<SecretName>,
    is_explicit: bool,
}

/// Decides whether `agent` gets the values of `only`, or of all its secrets if that is empty.
pub(crate) fn decide_value_export(agent: &Agent, only: &[SecretName]) -> Result<ValueExport, Rejection> {
    let denied = |message: String| Err(Rejection::new(ErrorCode::PolicyDenied, message));
    let name = agent.name();
    if !agent.allows_env() || agent.is_operator() {
        return denied(format!("agent '{name}' is not given real values: its entry has no 'env: true'"));
    }
    if let Some(other) = only.iter().find(|only| agent.secrets().all(|known| known != *only)) {
        return denied(format!("agent '{name}' may not spend '{other}', nor be given it"));
    }
    let chosen = !only.is_empty();
    let names = if chosen { only.to_vec() } else { agent.secrets().cloned().collect() };
    Ok(ValueExport { names, is_explicit: chosen })
}

impl ValueExport {
    /// The secrets.
    pub fn names(&self) -> &[SecretName] {
        &self.names
    }

    /// Whether the agent named the secrets, so that each must exist.
    pub fn is_explicit(&self) -> bool {
        self.is_explicit
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::policy::Policy;

    fn decided(env: &str, only: &[&str]) -> Result<Vec<String>, ErrorCode> {
        let text = format!(
            "version: 1\nagents:\n  - name: a\n{env}    allow: [ {{ host: a.net, secrets: [A, B] }} ]\n"
        );
        let policy = Policy::parse(&text, Path::new("policy.yaml")).unwrap();
        let only: Vec<SecretName> = only.iter().map(|name| name.parse().unwrap()).collect();
        let decided = decide_value_export(&policy.agents()[0], &only).map_err(|rejection| rejection.code)?;
        Ok(decided.names().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn only_own_secrets_are_exported_and_only_with_env_true() {
        for (env, only, names) in [
            ("", &[][..], Err(ErrorCode::PolicyDenied)),
            ("    env: false\n", &[], Err(ErrorCode::PolicyDenied)),
            ("    env: true\n", &[], Ok(vec!["A".to_owned(), "B".to_owned()])),
            ("    env: true\n", &["B"], Ok(vec!["B".to_owned()])),
            ("    env: true\n", &["B", "C"], Err(ErrorCode::PolicyDenied)),
        ] {
            assert_eq!(decided(env, only), names, "{env:?} {only:?}");
        }
    }
}
