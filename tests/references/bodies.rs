//! JSON and forms: what is filled, what stays, and what is refused with its reason.

use super::*;
use crate::spine::SECRET;

#[test]
fn a_json_string_is_filled_and_the_rest_of_the_document_keeps_its_bytes() {
    let world = world("secrets: [API_KEY, ODD]\nplaces: [json]");
    for version in ["--http1.1", "--http2"] {
        let body =
            "{\"b\": 1.50, \"a\":{\"key\" :\"Key {{ODD}}!\"},\n \"AS_SECRET_ODD\":12345678901234567890}";
        let shown = curl(&world, &[version, "-H", JSON, "-d", body], "/echo").ok();
        let got = world.api.received().pop().unwrap();
        let odd = "p\\\"a\\\\s+w&r=d%41;x";
        let wanted = format!(
            "{{\"b\": 1.50, \"a\":{{\"key\" :\"Key {odd}!\"}},\n \"AS_SECRET_ODD\":12345678901234567890}}"
        );
        assert_eq!(got.body, wanted, "{version}");
        assert_eq!(got.header("content-length"), wanted.len().to_string());
        no_value_in(&world, &shown);
    }
}

#[test]
fn a_secret_that_may_not_be_spent_in_a_body_is_a_denial_there_and_words_elsewhere() {
    let world = world("secrets: [API_KEY]\nplaces: ['json:a.client_secret', 'form:client_secret']");
    let body = r#"{"a":{"client_secret":"AS_SECRET_ODD"}}"#;
    let (code, sentence) = refused(&world, &["-H", JSON, "-d", body], "/echo");
    assert!(code == "403" && sentence.contains("may not spend 'ODD'"), "{code} {sentence}");
    let (code, _) = refused(&world, &["-d", "client_secret=AS_SECRET_ODD"], "/echo");
    assert_eq!(code, "403");
    let body = r#"{"client_secret":"AS_SECRET_ODD","a":{"client_secret":"AS_SECRET_API_KEY","b":"AS_SECRET_API_KEY"}}"#;
    curl(&world, &["-H", JSON, "-d", body], "/echo").ok();
    let wanted = format!(
        r#"{{"client_secret":"AS_SECRET_ODD","a":{{"client_secret":"{SECRET}","b":"AS_SECRET_API_KEY"}}}}"#
    );
    assert_eq!(world.api.received().pop().unwrap().body, wanted);
}

#[test]
fn what_cannot_be_done_to_a_body_is_a_clear_error() {
    let world = world("inject: { json: { a.b: API_KEY } }");
    let cases: &[(&[&str], &str)] = &[
        (&["-H", JSON, "-d", r#"{"a":[1]}"#], "'a' in the JSON body is an array"),
        (&["-H", JSON, "-d", r#"{"a":"text"}"#], "'a' in the JSON body is a string"),
        (&["-H", JSON, "-d", r#"{"a":{},"a":{}}"#], "a key stands twice"),
        (&["-H", JSON, "-d", r#"{"a":"#], "not what its Content-Type says"),
        (&["-d", "a=b"], "of another type"),
        (&["-H", "Content-Type: text/plain", "-d", "hello"], "of another type"),
        (&[], "name the rule's methods"),
        (&["-H", JSON, "-H", "Content-Encoding: gzip", "-d", "x"], "send it without Content-Encoding"),
        (&["-H", JSON, "-H", "X-Hub-Signature-256: sha256=0", "-d", "{}"], "signed (x-hub-signature-256)"),
    ];
    for (arguments, says) in cases {
        let (code, sentence) = refused(&world, arguments, "/echo");
        assert!(code == "400" && sentence.contains(says), "{arguments:?}: {code} {sentence}");
    }
    world.rule("inject: { form: { f: API_KEY } }");
    let (code, sentence) = refused(&world, &["-d", "f=1&f=2"], "/echo");
    assert!(code == "400" && sentence.contains("'f' gets a secret and stands there 2 times"), "{sentence}");
    world.rule("secrets: [API_KEY]\nplaces: [form]");
    assert_eq!(refused(&world, &["-d", "f=AS_SECRET_API_KEY&f=2"], "/echo").0, "400");
    no_value_in(&world, "");
}

#[test]
fn a_value_that_json_cannot_hold_is_refused_and_not_shown() {
    let world = world("secrets: [RAW]\nplaces: [json, form]");
    crate::support::process::finish_with(
        &mut world.home.agentsecrets(["secrets", "set", "RAW"]),
        b"\xff\xfe bytes of a key",
    )
    .ok();
    let (code, sentence) = refused(&world, &["-H", JSON, "-d", r#"["AS_SECRET_RAW"]"#], "/echo");
    assert_eq!((&*code, &*sentence), ("400", "secret 'RAW' holds bytes that JSON cannot carry"));
    curl(&world, &["-d", "k=AS_SECRET_RAW"], "/echo").ok();
    assert_eq!(world.api.received().pop().unwrap().body, "k=%FF%FE%20bytes%20of%20a%20key");
}

#[test]
fn plain_http_carries_no_body_with_a_secret() {
    let mut world = world("");
    let plain = Upstream::start(Options::plain());
    world.home.host("plain.test", plain.address().ip());
    world.rules(&[("plain.test", plain.port(), "secrets: [API_KEY]\nplaces: [json]")]);
    let url = format!("http://plain.test:{}/echo", plain.port());
    let mut run = world.home.run_agent(["curl", "-sS", "-H", JSON, "-d", r#"["AS_SECRET_API_KEY"]"#]);
    assert!(finish(run.arg(url)).ok().contains("non_https_blocked"));
    assert!(plain.received().is_empty());
}
