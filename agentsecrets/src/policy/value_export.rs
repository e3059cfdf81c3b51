//! Whether an agent may be given real values: never, unless its entry says `env: true`, and then those that its
//! rules name.

use crate::types::name::SecretName;
use crate::types::rejection::{ErrorCode, Rejection};

use super::rules::Agent;

/// Leave to hand an agent the values of these secrets. Not `Clone`; made by `decide_handover` alone.
#[derive(Debug)]
pub struct Handover {
    names: Vec<SecretName>,
    chosen: bool,
}

/// Whether `agent` may be given the values of `only`, or of all its secrets if that is empty.
pub fn decide_handover(agent: &Agent, only: &[SecretName]) -> Result<Handover, Rejection> {
    let denied = |message: String| Err(Rejection::new(ErrorCode::PolicyDenied, "", message));
    let name = agent.name();
    if !agent.env() || agent.is_the_person() {
        return denied(format!("agent '{name}' is not given real values: its entry has no 'env: true'"));
    }
    if let Some(other) = only.iter().find(|only| agent.secrets().all(|known| known != *only)) {
        return denied(format!("agent '{name}' may not spend '{other}', nor be given it"));
    }
    let chosen = !only.is_empty();
    let names = if chosen { only.to_vec() } else { agent.secrets().cloned().collect() };
    Ok(Handover { names, chosen })
}

impl Handover {
    /// The secrets.
    pub fn names(&self) -> &[SecretName] {
        &self.names
    }

    /// Whether the agent named them, so that each must be there.
    pub fn is_chosen(&self) -> bool {
        self.chosen
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
        let decided = decide_handover(&policy.agents()[0], &only).map_err(|refusal| refusal.code)?;
        Ok(decided.names().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn values_are_handed_over_only_where_the_entry_says_so_and_only_its_own() {
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
