//! Secrets in the text fields of a multipart form, which a library takes apart. A form that changes is
//! framed anew, with a boundary of our own that nobody could foresee; files pass as they are.

use std::collections::HashMap;
use std::convert::Infallible;

use aws_lc_rs::rand;
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use zeroize::Zeroizing;

use super::Quotes;
use super::form::twice;
use crate::inject::injector::Spender;
use crate::inject::placeholder::Vocabulary;
use crate::inject::references::References;
use crate::policy::access_request::{Place, Spot};
use crate::types::name::SecretName;
use crate::types::rejection::Rejection;

/// The most fields that are read.
const MOST: usize = 1000;

/// A field or file.
pub(super) struct Part {
    headers: HeaderMap,
    name: Option<String>,
    /// Whether it is a field whose text may hold placeholders.
    is_text: bool,
    bytes: Bytes,
}

/// A form that was framed anew.
pub(super) struct Made {
    pub bytes: Zeroizing<Vec<u8>>,
    pub content_type: String,
}

/// The parts of the form, or why it is none.
pub(super) async fn read(form: &Bytes, boundary: String) -> Result<Vec<Part>, &'static str> {
    let wrong = |_| "it is no multipart form";
    let mut multipart = multer::Multipart::new(stream::iter([Ok::<_, Infallible>(form.clone())]), boundary);
    let mut parts = Vec::new();
    while let Some(field) = multipart.next_field().await.map_err(wrong)? {
        if parts.len() == MOST {
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

/// Adds the secrets that the text fields name, and notes those that files do.
pub(super) fn references(
    parts: &[Part],
    vocabulary: &Vocabulary,
    references: &mut References,
    quotes: &Quotes,
) -> Result<(), Rejection> {
    for part in parts {
        if part.is_text {
            references.note(vocabulary, &part.bytes, || part.spot())?;
        } else {
            quotes.note(vocabulary, &part.bytes);
        }
    }
    Ok(())
}

/// The form with its placeholders filled and with the secrets of `puts` as the values of their fields, or
/// nothing if that changes nothing.
pub(super) fn make(
    parts: &[Part],
    puts: &[(&str, &SecretName)],
    spender: &Spender<'_>,
) -> Result<Option<Made>, Rejection> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for name in parts.iter().filter_map(|part| part.name.as_deref()) {
        *counts.entry(name).or_default() += 1;
    }
    let once = |field: &str| twice(counts.get(field).copied().unwrap_or(0), field, spender);
    let mut values: Vec<Option<Zeroizing<Vec<u8>>>> = Vec::with_capacity(parts.len());
    for part in parts {
        let filled = if part.is_text { spender.fill(&part.bytes, || part.spot())? } else { None };
        if filled.is_some() {
            once(part.name.as_deref().unwrap_or_default())?;
        }
        values.push(filled.map(|filled| filled.bytes));
    }
    let mut added = Vec::new();
    for (field, name) in puts {
        once(field)?;
        let value = Zeroizing::new(spender.value(name)?.expose().to_vec());
        match parts.iter().position(|part| part.name.as_deref() == Some(*field)) {
            Some(at) if parts.get(at).is_some_and(|part| !part.is_text) => {
                return Err(spender.bad("the form field that the rule puts a secret into holds a file"));
            }
            Some(at) => {
                if let Some(place) = values.get_mut(at) {
                    *place = Some(value);
                }
            }
            None => added.push((*field, value)),
        }
    }
    if added.is_empty() && values.iter().all(Option::is_none) {
        return Ok(None);
    }
    Ok(Some(framed(parts, &values, &added, spender)?))
}

fn framed(
    parts: &[Part],
    values: &[Option<Zeroizing<Vec<u8>>>],
    added: &[(&str, Zeroizing<Vec<u8>>)],
    spender: &Spender<'_>,
) -> Result<Made, Rejection> {
    let boundary = boundary().ok_or_else(|| spender.bad("there is no randomness for a boundary"))?;
    let mut heads = Vec::with_capacity(parts.len() + added.len());
    for (part, value) in parts.iter().zip(values) {
        let head = if value.is_some() { part.new_head() } else { part.head() };
        heads.push((head, value.as_deref().map_or(&*part.bytes, |value| value.as_slice())));
    }
    heads.extend(added.iter().map(|(field, value)| (disposition(field), value.as_slice())));
    let size: usize = heads.iter().map(|(head, value)| head.len() + value.len() + boundary.len() + 8).sum();
    // Sized beforehand, so that growing leaves no unwiped copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + boundary.len() + 8));
    for (head, value) in heads {
        for piece in [b"--", boundary.as_bytes(), b"\r\n", &head, b"\r\n", value, b"\r\n"] {
            bytes.extend_from_slice(piece);
        }
    }
    for piece in ["--", &boundary, "--\r\n"] {
        bytes.extend_from_slice(piece.as_bytes());
    }
    Ok(Made { bytes, content_type: format!("multipart/form-data; boundary={boundary}") })
}

impl Part {
    fn spot(&self) -> Spot {
        Spot::new(Place::Form, self.name.as_deref().unwrap_or_default())
    }

    /// Its headers as they came.
    fn head(&self) -> Vec<u8> {
        let mut head = Vec::new();
        for (name, value) in &self.headers {
            head.extend_from_slice(titled(name.as_str()).as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head
    }

    /// Headers that name the field in one way only.
    fn new_head(&self) -> Vec<u8> {
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
    format!("{}: form-data; name=\"{field}\"\r\n", titled(CONTENT_DISPOSITION.as_str())).into_bytes()
}

/// A header's name as most write it: some readers of forms look for nothing else.
fn titled(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        first.to_ascii_uppercase() + rest
    });
    words.collect::<Vec<_>>().join("-")
}

fn boundary() -> Option<String> {
    let mut random = [0; 16];
    rand::fill(&mut random).ok()?;
    Some(format!("agentsecrets-{:032x}", u128::from_be_bytes(random)))
}
