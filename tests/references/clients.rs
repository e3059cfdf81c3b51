//! Python's requests, unmodified: JSON, forms and multipart as it makes them, and what the server reads.

use super::*;
use crate::clients;
use crate::spine::SECRET;

#[test]
fn requests_posts_json_forms_and_files_with_the_secret_in_its_place() {
    let world = clients::world();
    world.home.secret("ODD", ODD);
    world.rule("secrets: [API_KEY, ODD]\nplaces: [json, form]");
    let program = include_str!("programs/client.py");
    let said = finish(&mut clients::python(&world, program, &world.url("/echo"))).ok();
    assert_eq!(said, "json 200\nform 200\nfiles 200\nsession 200\n");
    let received = world.api.received();
    let json: serde_json::Value = serde_json::from_str(&received[0].body).unwrap();
    let wanted = serde_json::json!({ "model": "x", "auth": [{ "key": ODD }], "n": 1.5, "t": "é\n" });
    assert_eq!(json, wanted);
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&received[1].bytes).into_owned().collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(form, [pair("user", "a b"), pair("password", ODD)]);
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
    let audit = world.home.audit();
    assert_eq!(audit[2]["notes"], serde_json::json!(["quoted API_KEY in body"]), "the file's words");
    assert!(audit.iter().all(|record| record["auth_styles"] == serde_json::json!(["placeholder"])));
    no_value_in(&world, &said);
}
