//! What bounds a caller beyond the rules that allow its request: nothing is granted that one of these refuses.

use super::grant::Spend;
use crate::identity::Caller;
use crate::policy::access_request::Ask;
use crate::types::rejection::Rejection;

/// Somebody who has a say in what is granted.
pub trait Bounds: Send + Sync {
    /// Why `caller` may not have `spends` spent on `ask`, although a rule allows it.
    fn refusal(&self, caller: &Caller, ask: &Ask<'_>, spends: &[Spend]) -> Option<Rejection>;
}

/// What is bounded by the rules alone.
pub struct Unbounded;

impl Bounds for Unbounded {
    fn refusal(&self, _caller: &Caller, _ask: &Ask<'_>, _spends: &[Spend]) -> Option<Rejection> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::Method;

    use super::*;
    use crate::policy::Policy;
    use crate::policy::evaluate;
    use crate::policy::grant::Decision;
    use crate::types::rejection::ErrorCode;
    use crate::types::target::{Scheme, Target};

    const POLICY: &str = "version: 1
agents:
  - name: a
    allow: [ { host: api.net, rate: 1/h, inject: { bearer: A } } ]
";

    struct NotA;

    impl Bounds for NotA {
        fn refusal(&self, _caller: &Caller, _ask: &Ask<'_>, spends: &[Spend]) -> Option<Rejection> {
            let is_a = spends.iter().any(|spend| spend.name.as_str() == "A");
            is_a.then(|| Rejection::new(ErrorCode::CapabilityDenied, "", "not A"))
        }
    }

    #[test]
    fn what_a_bound_refuses_is_denied_and_charged_to_nobody() {
        let policy = Policy::parse(POLICY, Path::new("policy.yaml")).unwrap();
        let caller = Caller::for_test();
        let target = Target { scheme: Scheme::Https, host: "api.net".parse().unwrap(), port: 443 };
        let ask = Ask { target: &target, method: &Method::GET, path: "/", websocket: false, references: &[] };
        let Decision::Deny(refusal) = evaluate(&policy, &NotA, &caller, &ask) else { panic!("allowed") };
        assert_eq!((refusal.code, &*refusal.domain), (ErrorCode::CapabilityDenied, "api.net"));
        assert!(matches!(evaluate(&policy, &Unbounded, &caller, &ask), Decision::Allow(_)));
        assert!(matches!(evaluate(&policy, &Unbounded, &caller, &ask), Decision::Deny(_)));
    }
}
