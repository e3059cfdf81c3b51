//! The edges between the folders of `agentsecrets/src`: a module imports what lies below it, never
//! what lies above. An edge that goes against the order stands in `EXCEPTIONS` with its reason.

use super::source::Source;

/// The folders from the ground up. Those on one line are neighbours and do not import one another.
const LAYERS: &[&[&str]] = &[
    &["manual"],
    &["base"],
    &["connection"],
    &["identity"],
    &["tls"],
    &["exchange"],
    &["policy"],
    &["capability"],
    &["store"],
    &["resolve"],
    &["inject"],
    &["upstream"],
    &["redact"],
    &["audit"],
    &["pipeline"],
    &["app", "kubernetes", "launch", "sync"],
    &["door"],
    // A server that one of the verbs starts.
    &["mcp"],
    &["cli"],
    // What a fuzzer calls; no build that ships has it.
    &["fuzzing"],
    &["main"],
];

/// The edges against the order: importer, imported, why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "inject",
        "redact",
        "`inject::apply` returns the Redactor, so that nobody can inject and forget to redact",
    ),
    ("launch", "app", "the launcher speaks the interceptor's `order`"),
    ("launch", "kubernetes", "a node's service holds offline what the webhook refuses"),
];

/// What a file imports against the order.
pub(crate) fn check(source: &Source) -> Vec<String> {
    let Some(inside) = source.path.strip_prefix("agentsecrets/src/") else { return Vec::new() };
    let module = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    if module == "lib" {
        return Vec::new();
    }
    let Some(own) = rank(module) else {
        return vec![format!("{}:1: `{module}` is no part of the house (see LAYERS)", source.path)];
    };
    let found = imports(&source.code, depth(inside));
    let mut findings = Vec::new();
    for (offset, imported) in found {
        let excused = EXCEPTIONS.iter().any(|(from, to, _)| *from == module && *to == imported);
        let below = rank(&imported).is_some_and(|theirs| theirs < own);
        if imported != module && !below && !excused {
            findings.push(format!(
                "{}:{}: `{module}` must not import `{imported}`: it does not lie below it",
                source.path,
                source.line(offset)
            ));
        }
    }
    findings
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// How many `super` lead from a file to the crate's root.
fn depth(inside: &str) -> usize {
    let parts = inside.split('/').count();
    if inside.ends_with("/mod.rs") { parts - 1 } else { parts }
}

/// The top modules that a file's code names, with the offset of each, by `crate::x`, by the groups of
/// `crate::{x, y}`, by enough `super`s to reach the root, or (in `main.rs`) by the library's own name.
fn imports(code: &str, depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for root in ["crate::", "super::", "agentsecrets::"] {
        for (offset, _) in code.match_indices(root) {
            let before = code.get(..offset).unwrap_or_default();
            if before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let mut rest = code.get(offset + root.len()..).unwrap_or_default();
            let mut climbed = 1;
            while let Some(higher) = rest.strip_prefix("super::") {
                (rest, climbed) = (higher, climbed + 1);
            }
            if root != "super::" || climbed == depth + inline_modules(before) {
                found.extend(first_names(rest).into_iter().map(|name| (offset, name)));
            }
        }
    }
    found
}

/// How many `mod x { … }` of the file itself are open at the end of `code`.
fn inline_modules(code: &str) -> usize {
    let (mut open, mut after) = (Vec::new(), 0);
    for (at, c) in code.char_indices() {
        match c {
            '{' => {
                let mut words = code.get(after..at).unwrap_or_default().split_whitespace().rev().skip(1);
                open.push(words.next() == Some("mod"));
            }
            '}' => drop(open.pop()),
            ';' => {}
            _ => continue,
        }
        after = at + 1;
    }
    open.iter().filter(|module| **module).count()
}

/// The identifier that starts `rest`, or the first identifiers of a group `{a::b, c}`.
fn first_names(rest: &str) -> Vec<String> {
    let Some(group) = rest.trim_start().strip_prefix('{') else {
        return identifier(rest).into_iter().collect();
    };
    let (mut depth, mut start, mut names) = (1, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if (c == ',' && depth == 1) || depth == 0 {
            names.extend(group.get(start..at).and_then(identifier));
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn identifier(text: &str) -> Option<String> {
    let name: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    // `pub(in crate::inject)` ends its path here; a type of the root (`crate::Error`) is none of ours.
    (!name.is_empty() && name != "self" && name != "super").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        check(&Source::new(path, text)).len()
    }

    #[test]
    fn a_stage_imports_base_and_earlier_stages() {
        let text = "use crate::base::host::Host;\nuse crate::exchange::{body::Body, target::Target};\n";
        assert_eq!(findings("agentsecrets/src/policy/decide.rs", text), 0);
        assert_eq!(findings("agentsecrets/src/cli/run.rs", "use crate::{launch, policy::ask};"), 0);
        assert_eq!(findings("agentsecrets/src/main.rs", "agentsecrets::cli::main()"), 0);
    }

    #[test]
    fn an_upward_edge_is_found_however_it_is_written() {
        for text in [
            "use crate::resolve::Credential;",
            "use crate::{base::host::Host, audit};",
            "use crate::{\n    base::{host, name},\n    cli::Exit,\n};",
            "fn f() -> crate::upstream::Client {}",
            "use super::super::audit::Record;",
            "pub use crate :: pipeline;".replace(" :: ", "::").as_str(),
        ] {
            assert_eq!(findings("agentsecrets/src/policy/decide.rs", text), 1, "{text}");
        }
        assert_eq!(findings("agentsecrets/src/policy/mod.rs", "use super::audit::Record;"), 1);
    }

    #[test]
    fn a_test_module_stands_one_deeper() {
        let tests = "use super::x; mod tests { use super::super::grant::Grant; fn f() { if a { b } } }";
        assert_eq!(findings("agentsecrets/src/policy/decide.rs", tests), 0);
        let tests = "mod tests { use super::super::super::audit::Record; }";
        assert_eq!(findings("agentsecrets/src/policy/decide.rs", tests), 1);
    }

    #[test]
    fn neighbours_do_not_know_one_another() {
        assert_eq!(findings("agentsecrets/src/app/mod.rs", "use crate::launch::run;"), 1);
        assert_eq!(findings("agentsecrets/src/launch/mod.rs", "use crate::app::order::Order;"), 0);
    }

    #[test]
    fn an_exception_holds_in_its_own_direction_only() {
        assert_eq!(findings("agentsecrets/src/inject/mod.rs", "use crate::redact::Redactor;"), 0);
        assert_eq!(findings("agentsecrets/src/inject/mod.rs", "use crate::audit::Record;"), 1);
        assert_eq!(findings("agentsecrets/src/redact/mod.rs", "use crate::inject::Outbound;"), 0);
    }

    #[test]
    fn a_folder_that_the_design_does_not_know_is_found() {
        assert_eq!(findings("agentsecrets/src/utils/mod.rs", ""), 1);
    }

    #[test]
    fn comments_strings_and_other_crates_are_no_edges() {
        let text =
            "//! See `crate::audit`.\nlet s = \"crate::cli\"; use mycrate::audit; use super::grant::Grant;";
        assert_eq!(findings("agentsecrets/src/policy/decide.rs", text), 0);
    }
}
