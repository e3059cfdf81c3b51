//! Command-line clients: one with OpenSSL and HTTP/2, one with GnuTLS and no variable for its roots, and
//! OpenSSL's own.

use super::*;

#[test]
fn wget_trusts_the_systems_roots_and_needs_no_variable() {
    let world = world();
    let url = world.url("/echo");
    let header = "--header=Authorization: Bearer AS_SECRET_API_KEY";
    finish(&mut world.home.run_agent(["/usr/bin/wget", "-nv", "-O-", header, &url])).ok();
    // Nor does it when its environment is emptied.
    finish(&mut world.home.run_agent(["env", "-i", "/usr/bin/wget", "-nv", "-O-", header, &url])).ok();
    spent(&world, 2);
}

#[test]
fn curl_needs_no_variable_either() {
    let world = world();
    let mut curl = world.home.run_agent(["env", "-i", "/usr/bin/curl", "-sS", "--http2"]);
    curl.args(["-H", "Authorization: Bearer AS_SECRET_API_KEY"]).arg(world.url("/echo"));
    finish(&mut curl).ok();
    spent(&world, 1);
}

#[test]
fn openssl_verifies_our_chain() {
    let world = world();
    let authority = format!("api.test:{}", world.api.port());
    let script = format!(
        "printf 'GET /echo HTTP/1.1\\r\\nHost: {authority}\\r\\nAuthorization: Bearer AS_SECRET_API_KEY\\r\\n\
         Connection: close\\r\\n\\r\\n' | /usr/bin/openssl s_client -quiet -verify_return_error \
         -verify_hostname api.test -connect {authority} -servername api.test"
    );
    let outcome = finish(&mut world.home.run_agent(["sh", "-c", &script]));
    assert!(outcome.stdout.starts_with("HTTP/1.1 200 OK"), "{outcome:#?}");
    assert!(outcome.stderr.contains("verify return:1"), "{outcome:#?}");
    spent(&world, 1);
    let unverified = outcome.stderr.contains("verify error");
    assert!(!unverified, "{}", outcome.stderr);
}
