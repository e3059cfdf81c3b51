//! The headers of the explicit endpoint on requests that are intercepted: `X-AS-Inject-…`.

use super::*;
use crate::spine::SECRET;
use crate::support::endpoints::Received;

/// Whether the server got what it should.
type Check = fn(&Received) -> bool;

#[test]
fn each_header_puts_the_secret_in_and_stays_with_us() {
    let cases: &[(&[&str], Check)] = &[
        (&["X-AS-Inject-Bearer: API_KEY"], |got| got.header("authorization") == format!("Bearer {SECRET}")),
        (&["X-AS-Inject-Basic: PAIR"], |got| got.header("authorization") == "Basic Ym9iOmh1bnRlcjJodW50ZXIy"),
        (&["X-AS-Inject-Header-X-Api-Key: API_KEY"], |got| got.header("x-api-key") == SECRET),
        (&["X-AS-Inject-Query-apiKey: API_KEY"], |got| got.path == format!("/echo?a=b&apiKey={SECRET}")),
        (&["X-AS-Inject-Body-auth-clientSecret: API_KEY", JSON], |got| {
            got.body == format!(r#"{{"x":1,"auth":{{"clientSecret":"{SECRET}"}}}}"#)
        }),
        (
            &["X-AS-Inject-Form-Client_Secret: API_KEY", "Content-Type: application/x-www-form-urlencoded"],
            |got| got.body == format!(r#"{{"x":1}}&Client_Secret={SECRET}"#),
        ),
        (&["X-AS-Agent-ID: me"], |got| got.body == r#"{"x":1}"#),
    ];
    let world = world("secrets: [API_KEY, PAIR]\nplaces: [auth, query, json, form]");
    for (headers, check) in cases {
        let mut arguments = vec!["--http1.1", "-d", r#"{"x":1}"#];
        headers.iter().for_each(|header| arguments.extend(["-H", header]));
        let shown = curl(&world, &arguments, "/echo?a=b").ok();
        let got = world.api.received().pop().unwrap();
        assert!(check(&got), "{headers:?}: {got:#?}");
        assert!(!got.headers.keys().any(|name| name.starts_with("x-as-")), "{got:#?}");
        no_value_in(&world, &shown);
    }
    // HTTP/2 carries no case.
    curl(&world, &["--http2", "-H", "X-AS-Inject-Query-apiKey: API_KEY"], "/echo").ok();
    assert_eq!(world.api.received().pop().unwrap().path, format!("/echo?apikey={SECRET}"));
}

#[test]
fn a_header_that_asks_for_more_than_the_rule_gives_is_refused() {
    let world = world("secrets: [API_KEY]\nplaces: [auth, 'json:a.b']");
    for (header, code, says) in [
        ("X-AS-Inject-Bearer: PAIR", "403", "may not spend 'PAIR'"),
        ("X-AS-Inject-Query-k: API_KEY", "403", "X-AS-Inject in query"),
        ("X-AS-Inject-Body-a: API_KEY", "403", "X-AS-Inject in json"),
        ("X-AS-Inject-Header-X-Note: API_KEY", "403", "X-AS-Inject in header"),
        ("X-AS-Inject-Header-Host: API_KEY", "400", "cannot carry a secret"),
        ("X-AS-Agent-Token: t", "403", "token"),
        ("X-AS-Inject-Token: API_KEY", "400", "there is no such style"),
        ("X-AS-Inject-Bearer: sk_live-pasted-by-mistake", "400", "must be the name of a secret"),
    ] {
        let (status, sentence) = refused(&world, &["-H", JSON, "-d", "{}", "-H", header], "/echo");
        assert!(status == code && sentence.contains(says), "{header}: {status} {sentence}");
        assert!(!sentence.contains("mistake"), "{sentence}");
    }
    let two = ["-H", "X-AS-Inject-Bearer: API_KEY", "-H", "X-AS-Inject-Basic: API_KEY"];
    assert!(refused(&world, &two, "/echo").1.contains("two secrets"));
}

#[test]
fn requests_on_one_connection_keep_the_case_of_their_own_headers() {
    let world = world("secrets: [API_KEY]\nplaces: [query]");
    let (first, second, third) = (world.url("/echo?1"), world.url("/echo?2"), world.url("/echo?3"));
    let (one, two) = ("X-AS-Inject-Query-One: API_KEY", "X-AS-Inject-Query-tWo: API_KEY");
    let arguments = [
        "curl",
        "-sS",
        "--http1.1",
        "-H",
        one,
        &first,
        "--next",
        "-sS",
        &second,
        "--next",
        "-sS",
        "-H",
        two,
        &third,
    ];
    finish(&mut world.home.run_agent(arguments)).ok();
    let paths: Vec<String> = world.api.received().into_iter().map(|got| got.path).collect();
    assert_eq!(
        paths,
        [format!("/echo?1&One={SECRET}"), "/echo?2".to_owned(), format!("/echo?3&tWo={SECRET}")]
    );
}
