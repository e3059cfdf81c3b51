//! JSON and form bodies: filled, unchanged, and rejected with a reason.

use super::*;
use crate::clients;
use crate::end_to_end::SECRET;

#[test]
fn json_placeholder_is_filled_and_rest_unchanged() {
    let fixture = fixture("secrets: [API_KEY, ODD]\nplaces: [json]");
    for version in ["--http1.1", "--http2"] {
        let body =
            "{\"b\": 1.50, \"a\":{\"key\" :\"Key {{ODD}}!\"},\n \"AS_SECRET_ODD\":12345678901234567890}";
        let shown = curl(&fixture, &[version, "-H", JSON_HEADER, "-d", body], "/echo").ok();
        let got = fixture.api.received().pop().unwrap();
        let odd = "p\\\"a\\\\s+w&r=d%41;x";
        let expected = format!(
            "{{\"b\": 1.50, \"a\":{{\"key\" :\"Key {odd}!\"}},\n \"AS_SECRET_ODD\":12345678901234567890}}"
        );
        assert_eq!(got.body, expected, "{version}");
        assert_eq!(got.header("content-length"), expected.len().to_string());
        assert_no_value(&fixture, &shown);
    }
}

#[test]
fn disallowed_body_placeholder_is_denied() {
    let fixture = fixture("secrets: [API_KEY]\nplaces: ['json:a.client_secret', 'form:client_secret']");
    let body = r#"{"a":{"client_secret":"AS_SECRET_ODD"}}"#;
    let (code, sentence) = curl_rejected(&fixture, &["-H", JSON_HEADER, "-d", body], "/echo");
    assert!(code == "403" && sentence.contains("may not spend 'ODD'"), "{code} {sentence}");
    let (code, _) = curl_rejected(&fixture, &["-d", "client_secret=AS_SECRET_ODD"], "/echo");
    assert_eq!(code, "403");
    let body = r#"{"client_secret":"AS_SECRET_ODD","a":{"client_secret":"AS_SECRET_API_KEY","b":"AS_SECRET_API_KEY"}}"#;
    curl(&fixture, &["-H", JSON_HEADER, "-d", body], "/echo").ok();
    let expected = format!(
        r#"{{"client_secret":"AS_SECRET_ODD","a":{{"client_secret":"{SECRET}","b":"AS_SECRET_API_KEY"}}}}"#
    );
    assert_eq!(fixture.api.received().pop().unwrap().body, expected);
}

#[test]
fn impossible_body_injection_is_an_error() {
    let fixture = fixture("inject: { json: { a.b: API_KEY } }");
    let cases: &[(&[&str], &str)] = &[
        (&["-H", JSON_HEADER, "-d", r#"{"a":[1]}"#], "'a' in the JSON body is an array"),
        (&["-H", JSON_HEADER, "-d", r#"{"a":"text"}"#], "'a' in the JSON body is a string"),
        (&["-H", JSON_HEADER, "-d", r#"{"a":{},"a":{}}"#], "a key stands twice"),
        (&["-H", JSON_HEADER, "-d", r#"{"a":"#], "not what its Content-Type says"),
        (&["-d", "a=b"], "of another type"),
        (&["-H", "Content-Type: text/plain", "-d", "hello"], "of another type"),
        (&[], "name the rule's methods"),
        (&["-H", JSON_HEADER, "-H", "Content-Encoding: gzip", "-d", "x"], "send it without Content-Encoding"),
        (
            &["-H", JSON_HEADER, "-H", "X-Hub-Signature-256: sha256=0", "-d", "{}"],
            "signed (x-hub-signature-256)",
        ),
    ];
    for (arguments, message) in cases {
        let (code, sentence) = curl_rejected(&fixture, arguments, "/echo");
        assert!(code == "400" && sentence.contains(message), "{arguments:?}: {code} {sentence}");
    }
    fixture.rule("inject: { form: { f: API_KEY } }");
    let (code, sentence) = curl_rejected(&fixture, &["-d", "f=1&f=2"], "/echo");
    assert!(code == "400" && sentence.contains("'f' gets a secret and stands there 2 times"), "{sentence}");
    fixture.rule("secrets: [API_KEY]\nplaces: [form]");
    assert_eq!(curl_rejected(&fixture, &["-d", "f=AS_SECRET_API_KEY&f=2"], "/echo").0, "400");
    assert_no_value(&fixture, "");
}

#[test]
fn non_utf8_value_in_json_is_refused() {
    let fixture = fixture("secrets: [RAW]\nplaces: [json, form]");
    crate::support::process::run_with_input(
        &mut fixture.home.agentsecrets(["secrets", "set", "RAW"]),
        b"\xff\xfe bytes of a key",
    )
    .ok();
    let (code, sentence) =
        curl_rejected(&fixture, &["-H", JSON_HEADER, "-d", r#"["AS_SECRET_RAW"]"#], "/echo");
    assert_eq!((&*code, &*sentence), ("400", "secret 'RAW' holds bytes that JSON cannot carry"));
    curl(&fixture, &["-d", "k=AS_SECRET_RAW"], "/echo").ok();
    assert_eq!(fixture.api.received().pop().unwrap().body, "k=%FF%FE%20bytes%20of%20a%20key");
}

#[test]
fn plain_http_body_carries_no_secret() {
    let mut fixture = fixture("");
    let plain = Upstream::start(Options::plain());
    fixture.home.add_host("plain.test", plain.address().ip());
    fixture.rules(&[("plain.test", plain.port(), "secrets: [API_KEY]\nplaces: [json]")]);
    let url = format!("http://plain.test:{}/echo", plain.port());
    let mut agent =
        fixture.home.run_agent(["curl", "-sS", "-H", JSON_HEADER, "-d", r#"["AS_SECRET_API_KEY"]"#]);
    assert!(run(agent.arg(url)).ok().contains("non_https_blocked"));
    assert!(plain.received().is_empty());
}

#[test]
fn python_requests_bodies_are_filled() {
    let fixture = clients::fixture();
    fixture.home.set_secret("ODD", ODD_VALUE);
    fixture.rule("secrets: [API_KEY, ODD]\nplaces: [json, form]");
    let program = include_str!("programs/client.py");
    let output = run(&mut clients::python(&fixture, program, &fixture.url("/echo"))).ok();
    assert_eq!(output, "json 200\nform 200\nfiles 200\nsession 200\n");
    let received = fixture.api.received();
    let json: serde_json::Value = serde_json::from_str(&received[0].body).unwrap();
    let expected = serde_json::json!({ "model": "x", "auth": [{ "key": ODD_VALUE }], "n": 1.5, "t": "é\n" });
    assert_eq!(json, expected);
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&received[1].bytes).into_owned().collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(form, [pair("user", "a b"), pair("password", ODD_VALUE)]);
    let multipart = &received[2];
    assert_eq!(multipart.header("content-length"), multipart.bytes.len().to_string());
    let boundary = multipart.header("content-type").rsplit_once('=').unwrap().1;
    let parts: Vec<&str> = multipart.body.split(&format!("--{boundary}")).collect();
    assert_eq!(parts.len(), 4, "{parts:#?}");
    assert!(
        parts[1].contains("name=\"token\"") && parts[1].ends_with(&format!("\r\n\r\n{SECRET}\r\n")),
        "{parts:#?}"
    );
    assert!(parts[2].contains("filename=\"notes.txt\""), "{parts:#?}");
    assert!(parts[2].ends_with("\r\n\r\nThe file quotes AS_SECRET_API_KEY.\r\n"), "{parts:#?}");
    assert_eq!(parts[3], "--\r\n");
    assert_eq!(received[3].body, format!("{{\"key\": \"{SECRET}\"}}"));
    let audit = fixture.home.audit();
    assert_eq!(audit[2]["notes"], serde_json::json!(["quoted API_KEY in body"]), "the file's words");
    assert!(audit.iter().all(|record| record["auth_styles"] == serde_json::json!(["placeholder"])));
    assert_no_value(&fixture, &output);
}
