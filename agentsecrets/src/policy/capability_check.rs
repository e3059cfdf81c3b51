//! Checks beside the rules, such as sessions, tokens and trust. A request that one of them rejects gets no
//! grant.

use super::injection::SecretUse;
use crate::identity::Caller;
use crate::policy::access_request::AccessRequest;
use crate::types::rejection::Rejection;

/// A check of a request that a rule allows.
pub trait CapabilityCheck: Send + Sync {
    /// The rejection if `caller` may not have `uses` of secrets in `request`.
    fn rejection(
        &self,
        caller: &Caller,
        request: &AccessRequest<'_>,
        uses: &[SecretUse],
    ) -> Option<Rejection>;
}

/// No check: the rules alone decide.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) struct NoCapabilityCheck;

#[cfg(any(test, feature = "fuzzing"))]
impl CapabilityCheck for NoCapabilityCheck {
    fn rejection(
        &self,
        _caller: &Caller,
        _request: &AccessRequest<'_>,
        _uses: &[SecretUse],
    ) -> Option<Rejection> {
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
    use crate::policy::evaluate::Decision;
    use crate::types::rejection::ErrorCode;
    use crate::types::target::{Scheme, Target};

    const POLICY: &str = "version: 1
agents:
  - name: a
    allow: [ { host: api.net, rate: 1/h, inject: { bearer: A } } ]
";

    struct NotA;

    impl CapabilityCheck for NotA {
        fn rejection(
            &self,
            _caller: &Caller,
            _request: &AccessRequest<'_>,
            uses: &[SecretUse],
        ) -> Option<Rejection> {
            let is_a = uses.iter().any(|secret_use| secret_use.name.as_str() == "A");
            is_a.then(|| Rejection::new(ErrorCode::CapabilityDenied, "not A"))
        }
    }

    #[test]
    fn rejected_request_is_denied_and_not_charged() {
        let policy = Policy::parse(POLICY, Path::new("policy.yaml")).unwrap();
        let caller = Caller::for_test();
        let target = Target { scheme: Scheme::Https, host: "api.net".parse().unwrap(), port: 443 };
        let request = AccessRequest {
            target: &target,
            method: &Method::GET,
            path: "/",
            websocket: false,
            references: &[],
        };
        let Decision::Deny(rejection) = evaluate(&policy, &NotA, &caller, &request) else {
            panic!("allowed")
        };
        assert_eq!(rejection.code, ErrorCode::CapabilityDenied);
        assert!(matches!(evaluate(&policy, &NoCapabilityCheck, &caller, &request), Decision::Allow(_)));
        assert!(matches!(evaluate(&policy, &NoCapabilityCheck, &caller, &request), Decision::Deny(_)));
    }
}
