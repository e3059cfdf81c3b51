//! Finds values in a JSON document by their path, without reading the rest: what is not replaced keeps its
//! very bytes.

use std::fmt;
use std::ops::Range;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use agentsecrets_types::json_path::{JsonPath, Step};

/// The ranges of the values at `path` in `text`: several if an object has a key twice, since readers disagree
/// on which counts. `None` if `text` is not JSON.
pub(super) fn find(text: &str, path: &JsonPath) -> Option<Vec<Range<usize>>> {
    let root: &RawValue = serde_json::from_str(text).ok()?;
    let mut values = vec![root];
    for step in path.steps() {
        values = values.into_iter().flat_map(|value| children(value, step)).collect();
    }
    let range = |value: &RawValue| {
        let start = (value.get().as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
        start..start + value.get().len()
    };
    Some(values.into_iter().map(range).collect())
}

fn children<'t>(value: &'t RawValue, step: &Step) -> Vec<&'t RawValue> {
    match step {
        Step::Key(key) => match serde_json::from_str::<Members<'t>>(value.get()) {
            Ok(Members(members)) => {
                members.into_iter().filter(|(known, _)| known == key).map(|(_, value)| value).collect()
            }
            Err(_) => Vec::new(),
        },
        Step::Index(index) => match serde_json::from_str::<Vec<&'t RawValue>>(value.get()) {
            Ok(elements) => elements.get(*index).copied().into_iter().collect(),
            Err(_) => Vec::new(),
        },
    }
}

/// The members of an object, in their order, each as often as it stands there.
struct Members<'t>(Vec<(String, &'t RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Every;
        impl<'de> Visitor<'de> for Every {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Every)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str, path: &str) -> Option<Vec<String>> {
        let ranges = find(text, &path.parse().unwrap())?;
        Some(ranges.into_iter().map(|range| text[range].to_owned()).collect())
    }

    #[test]
    fn duplicate_keys_are_all_found() {
        let text = r#" {"a":{"b":"one","c":[1,{"d":"tw\"o"}]},"x":null, "a":{"b":"again"}} "#;
        assert_eq!(at(text, "a.b").unwrap(), [r#""one""#, r#""again""#]);
        assert_eq!(at(text, "a.c[1].d").unwrap(), [r#""tw\"o""#]);
        assert_eq!(at(text, "a.c[7]").unwrap(), [""; 0]);
        assert_eq!(at(text, "x.y").unwrap(), [""; 0]);
        assert_eq!(at(r#"{"\u0061":1}"#, "a").unwrap(), ["1"]);
        assert_eq!(at("<html>", "a"), None);
        assert_eq!(at("", "a"), None);
    }

    proptest! {
        #[test]
        fn hostile_documents_never_panic(
            text in prop_oneof!["[\\[\\]{}\":,a0 \\\\é]{0,60}", "\\{\"a\":[\\[\\]{}\":,a0 ]{0,40}\\}"],
        ) {
            for path in ["a", "a.a", "a[0]", "[0].a"] {
                for range in find(&text, &path.parse().unwrap()).unwrap_or_default() {
                    prop_assert!(text.get(range).is_some());
                }
            }
        }
    }
}
