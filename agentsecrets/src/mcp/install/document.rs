//! Edits a configuration file in place: comments, spaces and the order of keys are kept. Ambiguous input,
//! such as a repeated key, is an error with its line.

use jsonc_parser::ast::{ObjectProp, Value as Ast};
use jsonc_parser::common::Ranged;
use jsonc_parser::cst::{CstInputValue, CstObject, CstRootNode};
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use serde_json::Value;

/// The name of our entry.
const NAME: &str = "agentsecrets";

/// JSON with comments and trailing commas, as editors accept it.
const OPTIONS: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_loose_object_property_names: false,
    allow_trailing_commas: true,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// The entry with which a client starts our server.
#[derive(Debug, Clone)]
pub(crate) struct ServerEntry {
    /// Whether the entry has the key `type: stdio`.
    pub(crate) has_type: bool,
    pub(crate) command: String,
    pub(crate) args: Vec<String>,
    /// Environment variables in addition to the client's.
    pub(crate) env: Vec<(String, String)>,
}

/// The error of a file that cannot be edited.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EditError {
    pub(super) line: usize,
    pub(super) reason: String,
}

/// The text of a file after an edit.
pub(super) struct Edited {
    pub(super) text: String,
    /// Whether the key of servers was created.
    pub(super) made_key: bool,
}

/// The text of a configuration file.
pub(super) struct Document<'a> {
    text: &'a str,
    byte_order_mark: &'a str,
}

impl<'a> Document<'a> {
    /// Parses `text`; an empty file is an empty object.
    pub(super) fn parse(text: &'a str) -> Result<Self, EditError> {
        let bare = text.strip_prefix('\u{feff}');
        let (mark, text) = bare.map_or(("", text), |bare| ("\u{feff}", bare));
        let document = Self { text, byte_order_mark: mark };
        match document.ast()? {
            None | Some(Ast::Object(_)) => Ok(document),
            Some(other) => Err(document.error_at(other.start(), "an object was expected")),
        }
    }

    /// Whether `key` has our entry.
    pub(super) fn has_entry(&self, key: &str) -> bool {
        matches!(self.existing(key), Ok(Some(_)))
    }

    /// The text with `entry` under `key`. In an existing entry of ours only differences are changed.
    pub(super) fn with_entry(&self, key: &str, entry: &ServerEntry) -> Result<Edited, EditError> {
        let existing = self.existing(key)?;
        let root = self.root()?;
        let object = root.object_value_or_set();
        let made_key = object.get(key).is_none();
        let servers = object.object_value_or_set(key);
        match &existing {
            None => {
                servers.append(NAME, entry.value());
            }
            Some(existing) => entry.update(existing, &servers.object_value_or_set(NAME)),
        }
        let text = root.to_string();
        self.check_rest_unchanged(&text, key)?;
        Ok(Edited { text: format!("{}{text}", self.byte_order_mark), made_key })
    }

    /// The text without our entry under `key`, and without `key` if it is then empty and we created it.
    pub(super) fn without_entry(&self, key: &str, made_key: bool) -> Result<Option<String>, EditError> {
        if self.existing(key)?.is_none() {
            return Ok(None);
        }
        let root = self.root()?;
        let Some(servers) = root.object_value().and_then(|object| object.object_value(key)) else {
            return Ok(None);
        };
        if let Some(entry) = servers.get(NAME) {
            entry.remove();
        }
        if made_key
            && servers.properties().is_empty()
            && let Some(property) = root.object_value().and_then(|object| object.get(key))
        {
            property.remove();
        }
        let text = root.to_string();
        self.check_rest_unchanged(&text, key)?;
        Ok(Some(format!("{}{text}", self.byte_order_mark)))
    }

    /// Our entry under `key`; another server with our name is an error.
    fn existing(&self, key: &str) -> Result<Option<Value>, EditError> {
        let Some(Ast::Object(root)) = self.ast()? else { return Ok(None) };
        let Some(servers) = self.unique_property(&root.properties, key)? else { return Ok(None) };
        let Ast::Object(servers) = &servers.value else {
            return Err(self.error_at(servers.value.start(), &format!("'{key}' must be an object")));
        };
        let Some(entry) = self.unique_property(&servers.properties, NAME)? else { return Ok(None) };
        let value = self.root()?.to_serde_value().unwrap_or_default()[key][NAME].take();
        if !is_own_entry(&value) {
            let reason = format!("another server is called '{NAME}' here; give it another name");
            return Err(self.error_at(entry.range.start, &reason));
        }
        Ok(Some(value))
    }

    /// The property `name`; a repeated one is an error.
    fn unique_property<'o, 't>(
        &self,
        properties: &'o [ObjectProp<'t>],
        name: &str,
    ) -> Result<Option<&'o ObjectProp<'t>>, EditError> {
        let mut found = properties.iter().filter(|property| property.name.as_str() == name);
        match (found.next(), found.next()) {
            (_, Some(second)) => Err(self.error_at(second.range.start, &format!("'{name}' is repeated"))),
            (first, None) => Ok(first),
        }
    }

    fn ast(&self) -> Result<Option<Ast<'a>>, EditError> {
        let parsed = parse_to_ast(self.text, &CollectOptions::default(), &OPTIONS);
        parsed
            .map(|parsed| parsed.value)
            .map_err(|error| self.error_at(error.range().start, &error.kind().to_string()))
    }

    fn root(&self) -> Result<CstRootNode, EditError> {
        CstRootNode::parse(self.text, &OPTIONS)
            .map_err(|error| self.error_at(error.range().start, &error.kind().to_string()))
    }

    /// Fails if the edit that gave `text` changed anything but our entry.
    fn check_rest_unchanged(&self, text: &str, key: &str) -> Result<(), EditError> {
        let rest = |text: &str| {
            let value = CstRootNode::parse(text, &OPTIONS).ok()?.to_serde_value();
            let mut value = value.unwrap_or_else(|| Value::Object(Default::default()));
            let object = value.as_object_mut()?;
            let servers = object.get_mut(key).and_then(Value::as_object_mut);
            let is_empty = servers.is_some_and(|servers| {
                servers.remove(NAME);
                servers.is_empty()
            });
            if is_empty {
                object.remove(key);
            }
            Some(value)
        };
        if rest(text).is_some() && rest(text) == rest(self.text) {
            return Ok(());
        }
        Err(self.error_at(0, "this file is written in a way that cannot be edited safely"))
    }

    fn error_at(&self, offset: usize, reason: &str) -> EditError {
        let before = self.text.get(..offset).unwrap_or(self.text);
        EditError { line: before.matches('\n').count() + 1, reason: reason.to_owned() }
    }
}

impl ServerEntry {
    fn value(&self) -> CstInputValue {
        let mut value = Vec::new();
        if self.has_type {
            value.push(("type".to_owned(), "stdio".into()));
        }
        value.push(("command".to_owned(), self.command.as_str().into()));
        value.push(("args".to_owned(), self.args.clone().into()));
        if !self.env.is_empty() {
            value.push(("env".to_owned(), CstInputValue::Object(self.variables())));
        }
        CstInputValue::Object(value)
    }

    fn variables(&self) -> Vec<(String, CstInputValue)> {
        self.env.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect()
    }

    /// Changes `object`, whose value is `existing`, where it differs from this entry.
    fn update(&self, existing: &Value, object: &CstObject) {
        let set = |object: &CstObject, name: &str, value: CstInputValue| match object.get(name) {
            Some(property) => property.set_value(value),
            None => drop(object.append(name, value)),
        };
        if existing["command"] != self.command.as_str() {
            set(object, "command", self.command.as_str().into());
        }
        if existing["args"] != Value::from(self.args.clone()) {
            set(object, "args", self.args.clone().into());
        }
        for (name, value) in &self.env {
            if existing["env"][name] != value.as_str() {
                set(&object.object_value_or_set("env"), name, value.as_str().into());
            }
        }
    }
}

/// Whether an entry starts this program's server, at any path and with any other keys.
fn is_own_entry(entry: &Value) -> bool {
    let command = entry["command"].as_str().unwrap_or_default();
    let name = command.rsplit(['/', '\\']).next().unwrap_or_default();
    let args = entry["args"].as_array().map(Vec::as_slice).unwrap_or_default();
    name.strip_suffix(".exe").unwrap_or(name) == NAME && args.windows(2).any(|pair| pair == ["mcp", "serve"])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> ServerEntry {
        let (command, args) = ("/usr/bin/agentsecrets".to_owned(), vec!["mcp".into(), "serve".into()]);
        ServerEntry { has_type: false, command, args, env: Vec::new() }
    }

    fn with(text: &str) -> Result<String, EditError> {
        Document::parse(text)?.with_entry("mcpServers", &entry()).map(|edited| edited.text)
    }

    fn without(text: &str, made_key: bool) -> Result<Option<String>, EditError> {
        Document::parse(text)?.without_entry("mcpServers", made_key)
    }

    #[test]
    fn new_file_is_formatted() {
        let text = with("").unwrap();
        let expected = "{\n  \"mcpServers\": {\n    \"agentsecrets\": {\n      \"command\": \"/usr/bin/agentsecrets\",\n      \
                        \"args\": [\"mcp\", \"serve\"]\n    }\n  }\n}\n";
        assert_eq!(text, expected);
        assert_eq!(with(&text).unwrap(), text, "a second time changes nothing");
    }

    #[test]
    fn other_text_is_kept() {
        let text = "\u{feff}// servers\r\n{\r\n\t\"theme\": 1.50, // mine\r\n\t\"mcpServers\": {\r\n\t\t/* a */ \"other\": \
                    {\"command\": \"x\"},\r\n\t},\r\n\t\"last\": null\r\n}\r\n";
        let edited = with(text).unwrap();
        for part in [
            "\u{feff}// servers\r\n",
            "1.50, // mine\r\n",
            "/* a */ \"other\": {\"command\": \"x\"}",
            "null\r\n}\r\n",
        ] {
            assert!(edited.contains(part), "{part:?} in {edited}");
        }
        assert!(!edited.replace("\r\n", "").contains('\n'), "line ends are the file's");
        assert_eq!(with(&edited).unwrap(), edited);
        let back = without(&edited, false).unwrap().unwrap();
        assert!(!back.contains("agentsecrets") && back.contains("/* a */ \"other\""), "{back}");
    }

    #[test]
    fn existing_entry_is_updated_and_keeps_additions() {
        let text = "{\"mcpServers\": {\"agentsecrets\": {\"command\": \"/old/agentsecrets\", \"args\": [\"mcp\", \"serve\"], \
                    \"disabled\": true /* for now */}}}";
        let edited = with(text).unwrap();
        assert!(
            edited.contains("/usr/bin/agentsecrets") && edited.contains("true /* for now */"),
            "{edited}"
        );
        assert!(!edited.contains("/old/"));
    }

    #[test]
    fn created_key_is_removed_if_empty() {
        let text = with("{\n  \"a\": 1\n}\n").unwrap();
        assert_eq!(without(&text, true).unwrap().unwrap(), "{\n  \"a\": 1\n}\n");
        assert!(without(&text, false).unwrap().unwrap().contains("mcpServers"));
        assert_eq!(without("{}", true), Ok(None));
    }

    #[test]
    fn invalid_file_is_refused_with_line() {
        for (text, line) in [
            ("{\n  \"a\": 1\n  \"b\": 2\n}", 2),
            ("{\n  'a': 1\n}", 2),
            ("[]", 1),
            ("\n\n7", 3),
            ("{\n\"mcpServers\": []\n}", 2),
            ("{\"mcpServers\": {},\n\"mcpServers\": {}}", 2),
            ("{\"mcpServers\": {\n\"agentsecrets\": {\"command\": \"npx\", \"args\": []}}}", 2),
            ("{\"mcpServers\": {\n\"agentsecrets\": 7}}", 2),
            ("{ \"mcpServers\": {", 1),
            ("{} trailing", 1),
        ] {
            let bad = with(text).unwrap_err();
            assert_eq!(bad.line, line, "{text}: {}", bad.reason);
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        for text in ["[".repeat(200_000), "{\"a\":".repeat(200_000)] {
            assert!(with(&text).is_err());
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let list = proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from);
            let keys = "[a-z\\\\\"é]{0,4}|mcpServers";
            let map = proptest::collection::btree_map(keys, inner, 0..4);
            prop_oneof![list, map.prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into())]
        })
    }

    proptest! {
        #[test]
        fn any_text_is_edited_or_refused(text in "\\PC{0,60}", cut in 0usize..80) {
            let _ = with(&text);
            let whole = with("{\"a\": [1, {\"b\": \"c\"}] /* d */, // e\n}").unwrap();
            let cut = whole.chars().take(cut).collect::<String>();
            let _ = (with(&cut), without(&cut, true));
        }

        #[test]
        fn install_and_uninstall_restore_values(
            mut value in proptest::collection::btree_map("[a-z]{0,4}|mcpServers", values(), 0..5),
            pretty in any::<bool>(),
        ) {
            if value.get("mcpServers").is_some_and(|servers| !servers.is_object()) {
                value.remove("mcpServers");
            }
            let value: Value = value.into_iter().collect::<serde_json::Map<_, _>>().into();
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let edited = Document::parse(&text).unwrap().with_entry("mcpServers", &entry()).unwrap();
            let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            prop_assert_eq!(&read(&edited.text)["mcpServers"]["agentsecrets"]["command"], "/usr/bin/agentsecrets");
            prop_assert_eq!(&with(&edited.text).unwrap(), &edited.text);
            let back = without(&edited.text, edited.made_key).unwrap().unwrap();
            prop_assert_eq!(read(&back), value);
        }
    }
}
