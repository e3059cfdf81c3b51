//! Known endpoints that mint credentials. Their responses carry a new secret, which redaction cannot know.
//! Requests to them are denied unless the rule has `mint: allow` or captures the secret. The list cannot be
//! complete: an allowed host may have other such endpoints.

use std::sync::LazyLock;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::types::host::Host;

/// Service, and host and path in lower case. `*` matches within a segment, `**` any number of segments.
const ENDPOINTS: &[(&str, &str)] = &[
    ("AWS STS", "sts.amazonaws.com/**"),
    ("AWS STS", "sts.*.amazonaws.com/**"),
    ("AWS STS", "sts-fips.*.amazonaws.com/**"),
    ("AWS STS", "sts.*.amazonaws.com.cn/**"),
    ("AWS STS", "*.sts.*.vpce.amazonaws.com/**"),
    ("AWS IAM Identity Center", "portal.sso.*.amazonaws.com/federation/credentials"),
    ("AWS IAM Identity Center", "oidc.*.amazonaws.com/token"),
    ("Amazon Cognito", "cognito-identity.*.amazonaws.com/**"),
    ("GitHub", "api.github.com/app/installations/*/access_tokens"),
    ("GitHub", "api.github.com/**/actions/runners/registration-token"),
    ("GitHub", "api.github.com/**/actions/runners/remove-token"),
    ("GitHub", "github.com/login/oauth/access_token"),
    ("GitLab", "gitlab.com/oauth/token"),
    ("Bitbucket", "bitbucket.org/site/oauth2/access_token"),
    ("Google", "oauth2.googleapis.com/token"),
    ("Google", "accounts.google.com/o/oauth2/token"),
    ("Google", "www.googleapis.com/oauth2/*/token"),
    ("Google", "sts.googleapis.com/v1/token"),
    ("Google", "iamcredentials.googleapis.com/**"),
    ("Google", "iam.googleapis.com/v1/projects/*/serviceaccounts/*/keys"),
    ("Microsoft", "login.microsoftonline.com/**/token"),
    ("Microsoft", "login.windows.net/**/token"),
    ("Salesforce", "*.salesforce.com/services/oauth2/token"),
    ("Slack", "slack.com/api/oauth.*"),
    ("Auth0", "*.auth0.com/oauth/token"),
    ("Okta", "*.okta.com/oauth2/**/token"),
];

static PATTERNS: LazyLock<Option<GlobSet>> = LazyLock::new(|| {
    let mut set = GlobSetBuilder::new();
    for (_, pattern) in ENDPOINTS {
        set.add(GlobBuilder::new(pattern).literal_separator(true).build().ok()?);
    }
    set.build().ok()
});

/// The service whose endpoint `path` at `host` mints credentials, if it does.
pub(super) fn minting_service(host: &Host, path: &str) -> Option<&'static str> {
    let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy().to_ascii_lowercase();
    let endpoint = format!("{host}/{}", path.trim_matches('/'));
    match &*PATTERNS {
        Some(patterns) => {
            patterns.matches(&endpoint).first().and_then(|at| ENDPOINTS.get(*at)).map(|(service, _)| *service)
        }
        // A test checks that the list compiles.
        None => Some("an endpoint"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_endpoint_is_found_in_any_spelling() {
        assert!(PATTERNS.is_some());
        for (host, path, service) in [
            ("sts.amazonaws.com", "/", Some("AWS STS")),
            ("sts.eu-west-1.amazonaws.com", "/", Some("AWS STS")),
            ("vpce-1.sts.us-east-1.vpce.amazonaws.com", "/x", Some("AWS STS")),
            ("api.github.com", "/app/installations/42/access_tokens", Some("GitHub")),
            ("api.github.com", "/app/installations/42/access%5Ftokens/", Some("GitHub")),
            ("api.github.com", "/repos/a/b/actions/runners/registration-token", Some("GitHub")),
            ("api.github.com", "/repos/a/b/issues", None),
            (
                "iamcredentials.googleapis.com",
                "/v1/projects/-/serviceAccounts/x:generateAccessToken",
                Some("Google"),
            ),
            ("login.microsoftonline.com", "/tenant/oauth2/v2.0/token", Some("Microsoft")),
            ("s3.amazonaws.com", "/bucket", None),
            ("api.x.com", "/oauth/token", None),
        ] {
            assert_eq!(minting_service(&host.parse().unwrap(), path), service, "{host}{path}");
        }
    }
}
