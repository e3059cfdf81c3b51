//! Secrets in a URL-encoded form.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use zeroize::Zeroizing;

use super::quoted::QuotedPlaceholders;
use crate::inject::injector::Injector;
use crate::inject::placeholder::{Edit, Placeholders, splice};
use crate::inject::references::References;
use crate::inject::urlencoded::{self, decode_range};
use crate::policy::location::LocationKind;
use crate::types::name::SecretName;
use crate::types::rejection::Rejection;

/// Adds the references in the values, and records those in the names.
pub(super) fn collect_references(
    form: &[u8],
    placeholders: &Placeholders,
    references: &mut References,
    quoted: &QuotedPlaceholders,
) -> Result<(), Rejection> {
    for pair in urlencoded::parse(form) {
        let name = decode_range(form, &pair.name);
        quoted.record(placeholders, &name);
        let Some(value) = pair.value else { continue };
        references.add_placeholders(placeholders, &decode_range(form, &value), || {
            urlencoded::injection_point(LocationKind::Form, &name)
        })?;
    }
    Ok(())
}

/// Fills the granted placeholders; `None` if there are none.
pub(super) fn fill(form: &[u8], injector: &Injector<'_>) -> Result<Option<Zeroizing<Vec<u8>>>, Rejection> {
    let edits = urlencoded::fill_edits(form, LocationKind::Form, injector)?;
    if edits.is_empty() {
        return Ok(None);
    }
    let filled: HashSet<usize> = edits.iter().map(|(range, _)| range.start).collect();
    let mut fields: HashMap<Cow<'_, [u8]>, (usize, bool)> = HashMap::new();
    for pair in urlencoded::parse(form) {
        let (count, gets) = fields.entry(decode_range(form, &pair.name)).or_default();
        *count += 1;
        *gets |= pair.value.is_some_and(|value| filled.contains(&value.start));
    }
    for (field, (count, _)) in fields.iter().filter(|(_, (_, gets))| *gets) {
        reject_repeated_field(*count, &String::from_utf8_lossy(field), injector)?;
    }
    Ok(Some(splice(form, &edits)))
}

/// Sets `field` to the secret `name`, replacing its value.
pub(super) fn set_field(
    form: &[u8],
    field: &str,
    name: &SecretName,
    injector: &Injector<'_>,
) -> Result<Zeroizing<Vec<u8>>, Rejection> {
    // Servers disagree on which of two equal fields counts.
    let count =
        urlencoded::parse(form).filter(|pair| *decode_range(form, &pair.name) == *field.as_bytes()).count();
    reject_repeated_field(count, field, injector)?;
    let new =
        Zeroizing::new(urlencoded::encode_pair(field, injector.value(name)?.expose()).as_bytes().to_vec());
    let known = urlencoded::parse(form).find(|pair| *decode_range(form, &pair.name) == *field.as_bytes());
    let edit: Edit = match known {
        Some(pair) => (pair.name.start..pair.value.map_or(pair.name.end, |value| value.end), new),
        None if form.is_empty() => (0..0, new),
        None => {
            let end = form.len();
            (end..end, Zeroizing::new([b"&", &**new].concat()))
        }
    };
    Ok(splice(form, &[edit]))
}

/// Rejects a field that gets a secret and occurs `count` times.
pub(super) fn reject_repeated_field(
    count: usize,
    field: &str,
    injector: &Injector<'_>,
) -> Result<(), Rejection> {
    if count < 2 {
        return Ok(());
    }
    let field: String = field.chars().filter(|c| !c.is_control()).take(60).collect();
    Err(injector.bad_request(format!(
        "the form field '{field}' gets a secret and stands there {count} times: send it once"
    )))
}
