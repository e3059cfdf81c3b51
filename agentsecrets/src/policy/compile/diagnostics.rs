//! Collects the errors and warnings of one policy file.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;
use std::path::PathBuf;
use std::str::FromStr;

use serde_yaml::Spanned;

use super::schema::Text;
use crate::policy::load_error::Problem;
use crate::policy::referenced_files::ReferencedFiles;

/// The errors and warnings so far. Its methods compile one kind of entry each, and report all its mistakes.
pub(super) struct Diagnostics {
    pub errors: Vec<Problem>,
    pub warnings: Vec<Problem>,
    /// The folder of the policy file, where the files that it names are.
    pub folder: PathBuf,
    pub referenced_files: ReferencedFiles,
}

impl Diagnostics {
    pub(super) fn error<T>(&mut self, at: &Spanned<T>, message: impl Display) {
        self.errors.push(Problem { line: at.referenced.line(), message: message.to_string() });
    }

    pub(super) fn warn<T>(&mut self, at: &Spanned<T>, message: impl Display) {
        self.warnings.push(Problem { line: at.referenced.line(), message: message.to_string() });
    }

    /// The value; an error is recorded at the line of `at`.
    pub(super) fn check<A, T, E: Display>(&mut self, at: &Spanned<A>, read: Result<T, E>) -> Option<T> {
        read.map_err(|error| self.error(at, error)).ok()
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(&mut self, text: &Text) -> Option<T> {
        self.check(text, text.value.parse::<T>())
    }

    /// Parses each item of `list`. A duplicate is an error.
    pub(super) fn parse_list<A, T: Clone + Eq + Hash, E: Display>(
        &mut self,
        list: &[Spanned<A>],
        read: impl Fn(&A) -> Result<T, E>,
    ) -> Vec<T> {
        let mut seen = HashSet::new();
        let mut values = Vec::with_capacity(list.len());
        for item in list {
            let Some(value) = self.check(item, read(&item.value)) else { continue };
            if !seen.insert(value.clone()) {
                self.error(item, "this stands twice in the list");
            }
            values.push(value);
        }
        values
    }

    /// Like `parse_list`, for a list that limits a rule. An empty list would allow nothing, which nobody
    /// means: it is an error.
    pub(super) fn parse_limit<A, T: Clone + Eq + Hash, E: Display>(
        &mut self,
        key: &str,
        list: Option<&Spanned<Vec<Spanned<A>>>>,
        read: impl Fn(&A) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let list = list?;
        if list.value.is_empty() {
            self.error(list, format!("'{key}' is empty: name what is allowed, or leave it out to allow all"));
        }
        Some(self.parse_list(&list.value, read))
    }
}
