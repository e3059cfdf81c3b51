//! A configuration file as text that is edited in place: comments, spaces and the order of keys stay. What does
//! not mean one thing, such as a key that stands there twice, is refused with its line.

use jsonc_parser::ast::{ObjectProp, Value as Ast};
use jsonc_parser::common::Ranged;
use jsonc_parser::cst::{CstInputValue, CstObject, CstRootNode};
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use serde_json::Value;

/// What our entry is called.
const NAME: &str = "agentsecrets";

/// JSON, and comments and trailing commas as editors take them.
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

/// How a client starts us.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Whether it says that standard input and output are spoken over.
    pub has_type: bool,
    /// The program.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its variables, besides those that the client gives it.
    pub env: Vec<(String, String)>,
}

/// Why a file cannot be edited.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) line: usize,
    pub(super) why: String,
}

/// The text of a file after an edit.
pub(super) struct Edited {
    pub(super) text: String,
    /// Whether the key of servers was made.
    pub(super) made_key: bool,
}

/// A file.
pub(super) struct Document<'a> {
    text: &'a str,
    mark: &'a str,
}

impl<'a> Document<'a> {
    /// Reads a file's `text`; an empty one is an empty object.
    pub(super) fn parse(text: &'a str) -> Result<Self, Bad> {
        let bare = text.strip_prefix('\u{feff}');
        let (mark, text) = bare.map_or(("", text), |bare| ("\u{feff}", bare));
        let document = Self { text, mark };
        match document.ast()? {
            None | Some(Ast::Object(_)) => Ok(document),
            Some(other) => Err(document.bad(other.start(), "an object was expected")),
        }
    }

    /// Whether there is an entry of our name under `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        matches!(self.existing(key), Ok(Some(_)))
    }

    /// The text with `entry` under `key`. Of an entry that is ours already only what differs is changed.
    pub(super) fn with(&self, key: &str, entry: &Entry) -> Result<Edited, Bad> {
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
        self.check_rest(&text, key)?;
        Ok(Edited { text: format!("{}{text}", self.mark), made_key })
    }

    /// The text without our entry under `key`, and without `key` where that leaves it empty and we made it.
    pub(super) fn without(&self, key: &str, made_key: bool) -> Result<Option<String>, Bad> {
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
        self.check_rest(&text, key)?;
        Ok(Some(format!("{}{text}", self.mark)))
    }

    /// The entry of our name under `key`, if it is ours.
    fn existing(&self, key: &str) -> Result<Option<Value>, Bad> {
        let Some(Ast::Object(root)) = self.ast()? else { return Ok(None) };
        let Some(servers) = self.only(&root.properties, key)? else { return Ok(None) };
        let Ast::Object(servers) = &servers.value else {
            return Err(self.bad(servers.value.start(), &format!("'{key}' must be an object")));
        };
        let Some(entry) = self.only(&servers.properties, NAME)? else { return Ok(None) };
        let value = self.root()?.to_serde_value().unwrap_or_default()[key][NAME].take();
        if !is_ours(&value) {
            let why = format!("another server is called '{NAME}' here; give it another name");
            return Err(self.bad(entry.range.start, &why));
        }
        Ok(Some(value))
    }

    /// The property called `name`, which may stand there once.
    fn only<'o, 't>(
        &self,
        properties: &'o [ObjectProp<'t>],
        name: &str,
    ) -> Result<Option<&'o ObjectProp<'t>>, Bad> {
        let mut found = properties.iter().filter(|property| property.name.as_str() == name);
        match (found.next(), found.next()) {
            (_, Some(second)) => Err(self.bad(second.range.start, &format!("'{name}' stands there twice"))),
            (first, None) => Ok(first),
        }
    }

    fn ast(&self) -> Result<Option<Ast<'a>>, Bad> {
        let parsed = parse_to_ast(self.text, &CollectOptions::default(), &OPTIONS);
        parsed
            .map(|parsed| parsed.value)
            .map_err(|error| self.bad(error.range().start, &error.kind().to_string()))
    }

    fn root(&self) -> Result<CstRootNode, Bad> {
        CstRootNode::parse(self.text, &OPTIONS)
            .map_err(|error| self.bad(error.range().start, &error.kind().to_string()))
    }

    /// Fails if an edit to `text` touched anything but our entry.
    fn check_rest(&self, text: &str, key: &str) -> Result<(), Bad> {
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
        Err(self.bad(0, "this file is written in a way that cannot be edited safely"))
    }

    fn bad(&self, offset: usize, why: &str) -> Bad {
        let before = self.text.get(..offset).unwrap_or(self.text);
        Bad { line: before.matches('\n').count() + 1, why: why.to_owned() }
    }
}

impl Entry {
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

    /// Changes `object`, whose value is `existing`, where it says something else.
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

/// Whether an entry starts this program's server, wherever it lies and whatever else it says.
fn is_ours(entry: &Value) -> bool {
    let command = entry["command"].as_str().unwrap_or_default();
    let name = command.rsplit(['/', '\\']).next().unwrap_or_default();
    let args = entry["args"].as_array().map(Vec::as_slice).unwrap_or_default();
    name.strip_suffix(".exe").unwrap_or(name) == NAME && args.windows(2).any(|pair| pair == ["mcp", "serve"])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> Entry {
        let (command, args) = ("/usr/bin/agentsecrets".to_owned(), vec!["mcp".into(), "serve".into()]);
        Entry { has_type: false, command, args, env: Vec::new() }
    }

    fn with(text: &str) -> Result<String, Bad> {
        Document::parse(text)?.with("mcpServers", &entry()).map(|edited| edited.text)
    }

    fn without(text: &str, made_key: bool) -> Result<Option<String>, Bad> {
        Document::parse(text)?.without("mcpServers", made_key)
    }

    #[test]
    fn a_new_file_is_written_as_a_person_would() {
        let text = with("").unwrap();
        let expected = "{\n  \"mcpServers\": {\n    \"agentsecrets\": {\n      \"command\": \"/usr/bin/agentsecrets\",\n      \
                        \"args\": [\"mcp\", \"serve\"]\n    }\n  }\n}\n";
        assert_eq!(text, expected);
        assert_eq!(with(&text).unwrap(), text, "a second time changes nothing");
    }

    #[test]
    fn everything_else_stays_as_it_is() {
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
    fn an_entry_of_ours_is_brought_up_to_date_and_keeps_what_was_added_to_it() {
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
    fn a_key_that_we_made_goes_with_our_entry_unless_it_is_used() {
        let text = with("{\n  \"a\": 1\n}\n").unwrap();
        assert_eq!(without(&text, true).unwrap().unwrap(), "{\n  \"a\": 1\n}\n");
        assert!(without(&text, false).unwrap().unwrap().contains("mcpServers"));
        assert_eq!(without("{}", true), Ok(None));
    }

    #[test]
    fn what_cannot_be_understood_is_refused_with_its_line() {
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
            assert_eq!(bad.line, line, "{text}: {}", bad.why);
        }
    }

    #[test]
    fn a_file_that_is_nested_without_end_is_refused() {
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
        fn whatever_a_file_holds_it_holds_after_us(
            mut value in proptest::collection::btree_map("[a-z]{0,4}|mcpServers", values(), 0..5),
            pretty in any::<bool>(),
        ) {
            if value.get("mcpServers").is_some_and(|servers| !servers.is_object()) {
                value.remove("mcpServers");
            }
            let value: Value = value.into_iter().collect::<serde_json::Map<_, _>>().into();
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let edited = Document::parse(&text).unwrap().with("mcpServers", &entry()).unwrap();
            let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            prop_assert_eq!(&read(&edited.text)["mcpServers"]["agentsecrets"]["command"], "/usr/bin/agentsecrets");
            prop_assert_eq!(&with(&edited.text).unwrap(), &edited.text);
            let back = without(&edited.text, edited.made_key).unwrap().unwrap();
            prop_assert_eq!(read(&back), value);
        }
    }
}
