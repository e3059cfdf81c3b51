//! Compiles `inject:` entries. Each secret has exactly one location, and that location accepts a secret.

use serde_yaml::Spanned;

use super::diagnostics::Diagnostics;
use super::schema::{self, Text};
use crate::policy::injection::{InjectionStyle, SecretUse, style_conflict};

impl Diagnostics {
    /// The injections of an `inject` entry.
    pub(super) fn inject(&mut self, spanned: &Spanned<schema::Inject>) -> Vec<SecretUse> {
        let inject = &spanned.value;
        let mut styles: Vec<(&Text, InjectionStyle)> = Vec::new();
        styles.extend(inject.bearer.iter().map(|name| (name, InjectionStyle::Bearer)));
        styles.extend(inject.basic.iter().map(|name| (name, InjectionStyle::Basic)));
        let kinds = [
            ("header", &inject.header),
            ("query", &inject.query),
            ("path", &inject.path),
            ("cookie", &inject.cookie),
            ("json", &inject.json),
            ("form", &inject.form),
        ];
        for (kind, entries) in kinds {
            for (location, name) in entries {
                let style = self.check(name, InjectionStyle::parse(kind, Some(location))).flatten();
                styles.extend(style.map(|style| (name, style)));
            }
        }
        if styles.is_empty() {
            self.error(
                spanned,
                "'inject' puts nothing in: name one of bearer, basic, header, query, path, cookie, json, form",
            );
        }
        for (number, (name, style)) in styles.iter().enumerate() {
            let before = styles.iter().take(number).map(|(_, other)| other);
            if let Some(conflict) = before.filter_map(|other| style_conflict(other, style)).next() {
                self.error(name, conflict);
            }
        }
        let secret_use =
            |(text, style): (&Text, InjectionStyle)| Some(SecretUse { name: self.parse(text)?, style });
        styles.into_iter().filter_map(secret_use).collect()
    }
}
