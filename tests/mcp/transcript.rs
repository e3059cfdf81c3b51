//! Whether a secret stands somewhere, in any of the forms in which one does.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Fails if `text` holds `secret` as it is, in base64 however it is aligned, in hex, or percent-encoded.
#[track_caller]
pub(super) fn is_clean(text: &str, secret: &str) {
    for form in forms(secret) {
        assert!(!text.contains(&form), "{form} stands in {text}");
    }
}

fn forms(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let mut forms = vec![secret.to_owned()];
    for before in 0..3 {
        let padded = [&vec![0; before][..], bytes].concat();
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let text = engine.encode(&padded);
            // Without what its neighbours have a part in.
            let whole = padded.len() / 3 * 4;
            forms.push(text[usize::from(before > 0) * 4..whole].to_owned());
        }
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    forms.extend([hex.to_uppercase(), hex]);
    forms.push(bytes.iter().map(|byte| format!("%{byte:02X}")).collect());
    forms
}

#[test]
fn every_form_is_found() {
    let secret = "sk_live_4eC39HqLyjWDarjtT1zdp7dc";
    for text in
        [secret.to_owned(), STANDARD_NO_PAD.encode(format!("user:{secret}")), STANDARD_NO_PAD.encode(secret)]
    {
        assert!(forms(secret).iter().any(|form| text.contains(form)), "{text}");
    }
}
