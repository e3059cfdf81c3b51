//! Secrets in a URL-encoded form.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use zeroize::Zeroizing;

use super::Quotes;
use crate::inject::injector::Spender;
use crate::inject::pairs::{self, at, pairs};
use crate::inject::placeholder::{Edit, Vocabulary, splice};
use crate::inject::references::References;
use crate::policy::access_request::Place;
use crate::types::name::SecretName;
use crate::types::rejection::Rejection;

/// Adds the secrets that its values name, and notes those that its names do.
pub(super) fn references(
    form: &[u8],
    vocabulary: &Vocabulary,
    references: &mut References,
    quotes: &Quotes,
) -> Result<(), Rejection> {
    for pair in pairs(form) {
        let name = at(form, &pair.name);
        quotes.note(vocabulary, &name);
        let Some(value) = pair.value else { continue };
        references.note(vocabulary, &at(form, &value), || pairs::spot(Place::Form, &name))?;
    }
    Ok(())
}

/// The form with the placeholders filled that may be, or nothing if there are none.
pub(super) fn fill(form: &[u8], spender: &Spender<'_>) -> Result<Option<Zeroizing<Vec<u8>>>, Rejection> {
    let edits = pairs::fill(form, Place::Form, spender)?;
    if edits.is_empty() {
        return Ok(None);
    }
    let filled: HashSet<usize> = edits.iter().map(|(range, _)| range.start).collect();
    let mut fields: HashMap<Cow<'_, [u8]>, (usize, bool)> = HashMap::new();
    for pair in pairs(form) {
        let (count, gets) = fields.entry(at(form, &pair.name)).or_default();
        *count += 1;
        *gets |= pair.value.is_some_and(|value| filled.contains(&value.start));
    }
    for (field, (count, _)) in fields.iter().filter(|(_, (_, gets))| *gets) {
        twice(*count, &String::from_utf8_lossy(field), spender)?;
    }
    Ok(Some(splice(form, &edits)))
}

/// The form with the secret `name` as the value of `field`, in the place of what stood there.
pub(super) fn put(
    form: &[u8],
    field: &str,
    name: &SecretName,
    spender: &Spender<'_>,
) -> Result<Zeroizing<Vec<u8>>, Rejection> {
    // Its readers disagree on which one of two counts.
    let count = pairs(form).filter(|pair| *at(form, &pair.name) == *field.as_bytes()).count();
    twice(count, field, spender)?;
    let new = Zeroizing::new(pairs::pair(field, spender.value(name)?.expose()).as_bytes().to_vec());
    let known = pairs(form).find(|pair| *at(form, &pair.name) == *field.as_bytes());
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

/// The refusal of a field that gets a secret and stands there `count` times.
pub(super) fn twice(count: usize, field: &str, spender: &Spender<'_>) -> Result<(), Rejection> {
    if count < 2 {
        return Ok(());
    }
    let field: String = field.chars().filter(|c| !c.is_control()).take(60).collect();
    Err(spender
        .bad(format!("the form field '{field}' gets a secret and stands there {count} times: send it once")))
}
