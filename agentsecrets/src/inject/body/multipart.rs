//! Secrets in the text fields of a multipart form, which multer parses. A changed form is encoded with a
//! new random boundary; files pass unchanged.

use std::collections::HashMap;
use std::convert::Infallible;

use aws_lc_rs::rand;
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use zeroize::Zeroizing;

use super::form::reject_repeated_field;
use super::quoted::QuotedPlaceholders;
use crate::inject::injector::Injector;
use crate::inject::placeholder::Placeholders;
use crate::inject::references::References;
use crate::policy::location::{InjectionPoint, LocationKind};
use crate::types::name::SecretName;
use crate::types::rejection::Rejection;

/// Maximum number of fields.
const MAX_FIELDS: usize = 1000;

/// A field or file.
pub(super) struct Part {
    headers: HeaderMap,
    name: Option<String>,
    /// Whether it is a text field, which may contain placeholders.
    is_text: bool,
    bytes: Bytes,
}

/// An encoded form.
pub(super) struct EncodedForm {
    pub bytes: Zeroizing<Vec<u8>>,
    pub content_type: String,
}

/// Parses the form. The error says why it is not one.
pub(super) async fn parse(form: &Bytes, boundary: String) -> Result<Vec<Part>, &'static str> {
    let wrong = |_| "it is not a multipart form";
    let mut multipart = multer::Multipart::new(stream::iter([Ok::<_, Infallible>(form.clone())]), boundary);
    let mut parts = Vec::new();
    while let Some(field) = multipart.next_field().await.map_err(wrong)? {
        if parts.len() == MAX_FIELDS {
            return Err("it has more than 1000 fields");
        }
        let headers = field.headers().clone();
        let is_plain = field.content_type().is_none_or(|kind| kind.type_() == "text");
        let is_encoded = headers.contains_key("content-transfer-encoding");
        let is_text = field.file_name().is_none() && field.name().is_some() && is_plain && !is_encoded;
        let name = field.name().map(str::to_owned);
        parts.push(Part { headers, name, is_text, bytes: field.bytes().await.map_err(wrong)? });
    }
    Ok(parts)
}

/// Adds the references in text fields, and records those in files.
pub(super) fn collect_references(
    parts: &[Part],
    placeholders: &Placeholders,
    references: &mut References,
    quoted: &QuotedPlaceholders,
) -> Result<(), Rejection> {
    for part in parts {
        if part.is_text {
            references.add_placeholders(placeholders, &part.bytes, || part.injection_point())?;
        } else {
            quoted.record(placeholders, &part.bytes);
        }
    }
    Ok(())
}

/// Fills the placeholders and sets the fields in `puts`; `None` if nothing changes.
pub(super) fn rewrite(
    parts: &[Part],
    puts: &[(&str, &SecretName)],
    injector: &Injector<'_>,
) -> Result<Option<EncodedForm>, Rejection> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for name in parts.iter().filter_map(|part| part.name.as_deref()) {
        *counts.entry(name).or_default() += 1;
    }
    let once = |field: &str| reject_repeated_field(counts.get(field).copied().unwrap_or(0), field, injector);
    let mut values: Vec<Option<Zeroizing<Vec<u8>>>> = Vec::with_capacity(parts.len());
    for part in parts {
        let filled = if part.is_text { injector.fill(&part.bytes, || part.injection_point())? } else { None };
        if filled.is_some() {
            once(part.name.as_deref().unwrap_or_default())?;
        }
        values.push(filled.map(|filled| filled.bytes));
    }
    let mut added = Vec::new();
    for (field, name) in puts {
        once(field)?;
        let value = Zeroizing::new(injector.value(name)?.expose().to_vec());
        match parts.iter().position(|part| part.name.as_deref() == Some(*field)) {
            Some(at) if parts.get(at).is_some_and(|part| !part.is_text) => {
                return Err(
                    injector.bad_request("the form field that the rule puts a secret into holds a file")
                );
            }
            Some(at) => {
                if let Some(slot) = values.get_mut(at) {
                    *slot = Some(value);
                }
            }
            None => added.push((*field, value)),
        }
    }
    if added.is_empty() && values.iter().all(Option::is_none) {
        return Ok(None);
    }
    Ok(Some(encode(parts, &values, &added, injector)?))
}

fn encode(
    parts: &[Part],
    values: &[Option<Zeroizing<Vec<u8>>>],
    added: &[(&str, Zeroizing<Vec<u8>>)],
    injector: &Injector<'_>,
) -> Result<EncodedForm, Rejection> {
    let boundary =
        random_boundary().ok_or_else(|| injector.bad_request("no random numbers for a boundary"))?;
    let mut heads = Vec::with_capacity(parts.len() + added.len());
    for (part, value) in parts.iter().zip(values) {
        let head = if value.is_some() { part.rewritten_head() } else { part.head() };
        heads.push((head, value.as_deref().map_or(&*part.bytes, |value| value.as_slice())));
    }
    heads.extend(added.iter().map(|(field, value)| (disposition(field), value.as_slice())));
    let size: usize = heads.iter().map(|(head, value)| head.len() + value.len() + boundary.len() + 8).sum();
    // Sized in advance, so that growing leaves no unwiped copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + boundary.len() + 8));
    for (head, value) in heads {
        for piece in [b"--", boundary.as_bytes(), b"\r\n", &head, b"\r\n", value, b"\r\n"] {
            bytes.extend_from_slice(piece);
        }
    }
    for piece in ["--", &boundary, "--\r\n"] {
        bytes.extend_from_slice(piece.as_bytes());
    }
    Ok(EncodedForm { bytes, content_type: format!("multipart/form-data; boundary={boundary}") })
}

impl Part {
    fn injection_point(&self) -> InjectionPoint {
        InjectionPoint::new(LocationKind::Form, self.name.as_deref().unwrap_or_default())
    }

    /// The original headers.
    fn head(&self) -> Vec<u8> {
        let mut head = Vec::new();
        for (name, value) in &self.headers {
            head.extend_from_slice(title_case(name.as_str()).as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head
    }

    /// New headers, which name the field in one way only.
    fn rewritten_head(&self) -> Vec<u8> {
        let mut head = disposition(self.name.as_deref().unwrap_or_default());
        if let Some(kind) = self.headers.get(CONTENT_TYPE) {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(kind.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head
    }
}

/// The header that names a field, escaped as browsers do.
fn disposition(field: &str) -> Vec<u8> {
    let field = field.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
    format!("{}: form-data; name=\"{field}\"\r\n", title_case(CONTENT_DISPOSITION.as_str())).into_bytes()
}

/// Title-cases a header name: some form parsers expect it.
fn title_case(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        first.to_ascii_uppercase() + rest
    });
    words.collect::<Vec<_>>().join("-")
}

fn random_boundary() -> Option<String> {
    let mut random = [0; 16];
    rand::fill(&mut random).ok()?;
    Some(format!("agentsecrets-{:032x}", u128::from_be_bytes(random)))
}
