//! Edits of the host list, and the edits that are refused.

use std::fs;

use proptest::prelude::*;

use super::*;

/// The host list of a file with `text`.
fn list(text: &str) -> (tempfile::TempDir, Allowlist) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.yaml");
    fs::write(&path, text).unwrap();
    let list = Allowlist::load(&path).unwrap();
    (folder, list)
}

const WRITTEN: &str = "# Ours.
version: 1

agents:
  - name: coder        # the first
    allow:
      # Payments.
      - host: api.stripe.com   # live
        secrets: [STRIPE_KEY]

      - host: example.com
      # The end of it.

  # Reads only.
  - name: reader
    env: false
";

#[test]
fn host_is_appended_and_the_rest_stays() {
    let (folder, mut list) = list(WRITTEN);
    let coder: AgentName = "coder".parse().unwrap();
    assert_eq!(list.add("*.example.org", Some(&coder)).unwrap(), AddOutcome::Added("coder".into(), 12));
    assert_eq!(list.add("api.github.com", Some(&coder)).unwrap(), AddOutcome::Added("coder".into(), 13));
    list.save().unwrap();
    let expected = WRITTEN.replace(
        "      - host: example.com\n",
        "      - host: example.com\n      - host: \"*.example.org\"\n      - host: api.github.com\n",
    );
    assert_eq!(fs::read_to_string(folder.path().join("policy.yaml")).unwrap(), expected);
    // And back again.
    assert_eq!(list.remove("API.github.com").unwrap(), 1);
    assert_eq!(list.remove("*.example.org").unwrap(), 1);
    assert_eq!(list.text, WRITTEN);
}

#[test]
fn first_rule_is_added_and_last_removed() {
    let (_folder, mut list) = list(WRITTEN);
    let reader: AgentName = "reader".parse().unwrap();
    assert_eq!(list.add("a.test", Some(&reader)).unwrap(), AddOutcome::Added("reader".into(), 18));
    let with = format!("{WRITTEN}    allow:\n      - host: a.test\n");
    assert_eq!(list.text, with);
    assert_eq!(list.remove("a.test").unwrap(), 1);
    assert_eq!(list.text, format!("{WRITTEN}    allow: []\n"));
    assert!(matches!(list.add("a.test", Some(&reader)).unwrap(), AddOutcome::Added(_, 18)));
    assert_eq!(list.text, with);
}

#[test]
fn first_host_creates_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.yaml");
    let mut list = Allowlist::load(&path).unwrap();
    assert!(list.rules().unwrap().is_empty());
    assert_eq!(list.add("[::1]", None).unwrap(), AddOutcome::Added("default".into(), 5));
    list.save().unwrap();
    let text = "version: 1\nagents:\n  - name: default\n    allow:\n      - host: \"[::1]\"\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    for empty in ["version: 1", "version: 1\nagents: []   # none\n"] {
        fs::write(&path, empty).unwrap();
        let mut list = Allowlist::load(&path).unwrap();
        assert!(matches!(list.add("a.test", None).unwrap(), AddOutcome::Added(_, 5)), "{empty}");
        assert_eq!(list.rules().unwrap()[0].host, "a.test");
    }
}

#[test]
fn covered_host_is_not_added_again() {
    let (_folder, mut list) = list(
        "version: 1\nagents:\n  - name: a\n    allow:\n      - host: \"*.x.com\"\n        methods: [GET]\n",
    );
    for host in ["api.x.com", "*.x.com", "*.X.com"] {
        assert_eq!(list.add(host, None).unwrap(), AddOutcome::AlreadyListed("a".into()), "{host}");
    }
    assert!(matches!(list.add("x.com", None).unwrap(), AddOutcome::Added(_, 7)));
}

#[test]
fn rule_with_other_keys_is_not_removed() {
    let (_folder, mut list) = list(WRITTEN);
    let error = list.remove("api.stripe.com").unwrap_err().to_string();
    assert!(error.contains("policy.yaml:8: this rule says more"), "{error}");
    assert!(matches!(list.remove("other.com"), Err(AllowlistError::NotListed { .. })));
    // One of two, which belong together.
    let both = format!("{WRITTEN}    allow:\n      - host: example.com\n        ports: [443]\n");
    let (_folder, mut list) = self::list(&both);
    assert!(matches!(list.remove("example.com"), Err(AllowlistError::HasOtherKeys { line: 18, .. })));
    assert_eq!(list.text, both);
}

#[test]
fn agent_must_be_unambiguous() {
    let (_folder, mut list) = list(WRITTEN);
    let error = list.add("a.test", None).unwrap_err().to_string();
    assert!(error.ends_with("several agent entries: coder, reader"), "{error}");
    let other = "other".parse().unwrap();
    assert!(matches!(list.add("a.test", Some(&other)), Err(AllowlistError::NoAgent { .. })));
    for bad in ["https://a.test/", "a b", "*", "*.com", "a.test:443", ""] {
        assert!(
            matches!(list.add(bad, Some(&"coder".parse().unwrap())), Err(AllowlistError::Host(_))),
            "{bad}"
        );
    }
}

#[test]
fn unsupported_layout_is_refused() {
    for text in [
        "version: 1\nagents: [{ name: a, allow: [{ host: x.com }] }]\n",
        "version: 1\nagents:\n  - name: a\n    allow: [{ host: x.com }]\n",
        "{ version: 1, agents: [] }\n",
    ] {
        let (_folder, mut list) = list(text);
        assert!(matches!(list.add("y.com", None), Err(AllowlistError::UnsupportedLayout { .. })), "{text}");
        assert!(
            text.contains("[]")
                || matches!(list.remove("x.com"), Err(AllowlistError::UnsupportedLayout { .. })),
            "{text}"
        );
        assert_eq!(list.text, text);
    }
    // Unusual but supported.
    for text in [
        "version: 1\nagents:\n- name: a\n  allow:\n  - { host: x.com }\n",
        "version: 1\nagents:\n-\n  name: a\n  allow:\n  -\n    host: x.com\n",
        "version: 1\nagents:\n  - allow:\n      - host: x.com\n    name: a",
    ] {
        let (_folder, mut list) = list(text);
        list.add("y.com", None).unwrap();
        let hosts =
            |list: &Allowlist| list.rules().unwrap().iter().map(|rule| rule.host.clone()).collect::<Vec<_>>();
        assert_eq!(hosts(&list), ["x.com", "y.com"], "{text}");
        list.remove("x.com").unwrap();
        assert_eq!(hosts(&list), ["y.com"], "{text}");
        list.remove("y.com").unwrap();
        assert!(hosts(&list).is_empty(), "{}", list.text);
    }
}

#[test]
fn concurrent_change_is_not_lost() {
    let (folder, mut list) = list(WRITTEN);
    list.remove("example.com").unwrap();
    let path = folder.path().join("policy.yaml");
    fs::write(&path, "version: 1\n").unwrap();
    assert!(list.save().unwrap_err().to_string().contains("somebody else changed it"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "version: 1\n");
}

proptest! {
    /// Adding and removing keeps every other line, with any comments, blank lines and indentation.
    #[test]
    fn other_lines_stay(
        depth in 0_usize..4,
        hosts in prop::collection::vec("[a-z]{1,8}", 0..4),
        between in prop::sample::select(vec!["", "\n", "    # a comment\n", "# a comment\n\n"]),
        more in prop::sample::select(vec!["", "ports: [443]", "secrets: [A]"]),
    ) {
        let pad = " ".repeat(depth);
        let mut text = format!("version: 1\n{between}agents:\n{pad}- name: a\n{pad}  env: false\n");
        let allow = if hosts.is_empty() { " []" } else { "" };
        text += &format!("{pad}  allow:{allow}\n");
        for host in &hosts {
            text += &format!("{between}{pad}  - host: {host}.test\n");
            if !more.is_empty() {
                text += &format!("{pad}    {more}\n");
            }
        }
        text += between;
        let (_folder, mut list) = list(&text);
        let AddOutcome::Added(_, line) = list.add("new.example", None).unwrap() else { panic!("it is new") };
        let mut lines: Vec<&str> = list.text.lines().collect();
        prop_assert!(lines.remove(line as usize - 1).trim() == "- host: new.example");
        prop_assert_eq!(lines.join("\n").replace("allow: []", "allow:"), text.trim_end_matches('\n').replace("allow: []", "allow:") + if text.ends_with("\n\n") { "\n" } else { "" });
        list.remove("new.example").unwrap();
        prop_assert_eq!(&list.text, &text);
    }
}
