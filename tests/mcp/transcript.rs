//! Whether a secret stands somewhere, in any of the forms in which one does.

use crate::support::memory;

/// Fails if `text` holds `secret` as it is, in base64 however it is aligned, in hex, or percent-encoded.
#[track_caller]
pub(super) fn is_clean(text: &str, secret: &str) {
    for form in forms(secret) {
        let form = String::from_utf8(form).unwrap();
        assert!(!text.contains(&form), "{form} stands in {text}");
    }
}

/// The forms in which a value hides anywhere, and the one of URLs.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = memory::forms(secret);
    forms.push(secret.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>().into_bytes());
    forms
}

#[test]
fn every_form_is_found() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    let secret = "sk_live_4eC39HqLyjWDarjtT1zdp7dc";
    let percent: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for text in [
        secret.to_owned(),
        STANDARD_NO_PAD.encode(format!("user:{secret}")),
        STANDARD_NO_PAD.encode(secret),
        percent,
    ] {
        let stands = |form: &Vec<u8>| text.contains(std::str::from_utf8(form).unwrap());
        assert!(forms(secret).iter().any(stands), "{text}");
    }
}
