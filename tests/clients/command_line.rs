//! Command-line clients: curl (OpenSSL, HTTP/2), wget (GnuTLS, no CA variable), openssl, and Java, which has its own
//! trust store and reads no variable for it.

use super::*;
use crate::support::process::run_with_input;

#[test]
fn wget_trusts_ca_from_system_roots() {
    let fixture = fixture();
    let url = fixture.url("/echo");
    let header = "--header=Authorization: Bearer AS_SECRET_API_KEY";
    run(&mut fixture.home.run_agent(["/usr/bin/wget", "-nv", "-O-", header, &url])).ok();
    // It also works with an empty environment.
    run(&mut fixture.home.run_agent(["env", "-i", "/usr/bin/wget", "-nv", "-O-", header, &url])).ok();
    assert_secret_received(&fixture, 2);
}

#[test]
fn curl_trusts_ca_without_variables() {
    let fixture = fixture();
    let mut curl = fixture.home.run_agent(["env", "-i", "/usr/bin/curl", "-sS", "--http2"]);
    curl.args(["-H", "Authorization: Bearer AS_SECRET_API_KEY"]).arg(fixture.url("/echo"));
    run(&mut curl).ok();
    assert_secret_received(&fixture, 1);
}

#[test]
fn openssl_verifies_chain() {
    let fixture = fixture();
    let authority = format!("api.test:{}", fixture.api.port());
    let script = format!(
        "printf 'GET /echo HTTP/1.1\\r\\nHost: {authority}\\r\\nAuthorization: Bearer AS_SECRET_API_KEY\\r\\n\
         Connection: close\\r\\n\\r\\n' | /usr/bin/openssl s_client -quiet -verify_return_error \
         -verify_hostname api.test -connect {authority} -servername api.test"
    );
    let outcome = run(&mut fixture.home.run_agent(["sh", "-c", &script]));
    assert!(outcome.stdout.starts_with("HTTP/1.1 200 OK"), "{outcome:#?}");
    assert!(outcome.stderr.contains("verify return:1"), "{outcome:#?}");
    assert_secret_received(&fixture, 1);
    let unverified = outcome.stderr.contains("verify error");
    assert!(!unverified, "{}", outcome.stderr);
}

#[test]
fn java_trusts_ca_without_warning() {
    let fixture = fixture();
    let script = "cat > $HOME/Client.java && exec /usr/bin/java $HOME/Client.java \"$0\"";
    let mut java = fixture.home.run_agent(["sh", "-c", script, &fixture.url("")]);
    let outcome = run_with_input(&mut java, include_bytes!("programs/Client.java"));
    assert_eq!(outcome.stdout, "HttpClient 200 HTTP_2\nHttpsURLConnection 200\n", "{outcome:#?}");
    assert_eq!(outcome.stderr, "");
    assert_secret_received(&fixture, 2);
}
