//! The module graph of each crate: no import cycle between files, and the folders of the program import in one
//! direction. Paths are read with `syn`, so comments, strings and formatting do not matter. Items are followed
//! through re-exports to the file that defines them. Tests and macro arguments are not read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};

/// The crates whose root file still has items that its modules import: cycles through it are not counted.
const ROOTS_WITH_ITEMS: &[&str] = &["agentsecrets/audit/src/lib.rs"];

/// The root file of the program, whose folders are in an order.
const PROGRAM: &str = "agentsecrets/src/lib.rs";

/// The folders of the program from the ground up. A folder imports those in front of it. Folders on one line do not
/// import each other.
const LAYERS: &[&[&str]] = &[
    &["manual"],
    &["intercept", "tls"],
    &["identity"],
    &["http"],
    &["policy"],
    &["authz", "approval", "store"],
    &["credentials"],
    &["inject", "dns"],
    &["upstream"],
    &["pipeline"],
    &["config"],
    &["server", "kubernetes"],
    &["launch"],
    &["call"],
    &["operator"],
    &["mcp"],
    &["cli"],
    &["fuzzing"],
];

type ModulePath = Vec<String>;

/// One file's module.
#[derive(Default)]
struct Module {
    file: PathBuf,
    /// Names that it re-exports or imports, with the absolute path of each.
    imports: BTreeMap<String, ModulePath>,
    /// Names that it imports from other crates.
    external: BTreeSet<String>,
    /// Names of its own items.
    items: BTreeSet<String>,
    /// Modules whose names it re-exports all.
    globs: Vec<ModulePath>,
    /// Every absolute path that its code names.
    paths: BTreeSet<ModulePath>,
}

/// The modules of one crate, by path; the root has the empty path.
#[derive(Default)]
struct Modules(BTreeMap<ModulePath, Module>);

/// Every cycle, and every import against the order of folders.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for krate in &crates(root)? {
        let mut modules = Modules::default();
        modules.read(&root.join(krate), Vec::new(), true)?;
        let mut edges = modules.edges();
        if ROOTS_WITH_ITEMS.contains(&krate.as_str()) {
            edges.retain(|(_, to)| !to.is_empty());
        }
        findings.extend(cycles(&edges).into_iter().map(|cycle| format!("{krate}: import cycle: {cycle}")));
        if *krate == PROGRAM {
            findings.extend(against_the_order(&edges));
        }
    }
    Ok(findings)
}

/// The number of modules and of imports between them, over all crates.
pub(crate) fn summary(root: &Path) -> Result<String> {
    let (mut files, mut imports) = (0, 0);
    let crates = crates(root)?;
    for krate in &crates {
        let mut modules = Modules::default();
        modules.read(&root.join(krate), Vec::new(), true)?;
        files += modules.0.len();
        imports += modules.edges().len();
    }
    Ok(format!(
        "{files} modules in {} crates, {imports} imports between files, no import cycle",
        crates.len()
    ))
}

/// The root files of all crates: the program, the libraries beside it, and xtask.
fn crates(root: &Path) -> Result<Vec<String>> {
    let mut found = vec![PROGRAM.to_owned(), "xtask/src/main.rs".to_owned()];
    for entry in root.join("agentsecrets").read_dir().context("cannot list the crates")? {
        let file = entry?.path().join("src/lib.rs");
        if file.is_file() {
            found.push(file.strip_prefix(root)?.to_string_lossy().replace('\\', "/"));
        }
    }
    found.sort();
    Ok(found)
}

impl Modules {
    fn read(&mut self, file: &Path, path: ModulePath, is_root: bool) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let syntax = syn::parse_file(&text).with_context(|| format!("{} does not parse", file.display()))?;
        let mut reader =
            Reader { path: &path, module: Module::default(), inline: Vec::new(), children: Vec::new() };
        reader.module.file = file.to_owned();
        reader.visit_file(&syntax);
        let Reader { module, children, .. } = reader;
        self.0.insert(path.clone(), module);
        let is_folder = is_root || file.ends_with("mod.rs");
        let parent = file.parent().unwrap_or(Path::new(""));
        let folder = if is_folder { parent.to_owned() } else { file.with_extension("") };
        for (name, written) in children {
            let mut child = path.clone();
            child.push(name.clone());
            let candidates = match written {
                Some(written) => vec![parent.join(written)],
                None => vec![folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs")],
            };
            if let Some(file) = candidates.iter().find(|file| file.is_file())
                && !self.0.contains_key(&child)
            {
                self.read(file, child, false)?;
            }
        }
        Ok(())
    }

    /// The module that defines what `path` names.
    fn definition(&self, path: &[String], depth: usize) -> Option<ModulePath> {
        let known = (0..=path.len()).rev().find(|length| self.0.contains_key(&path[..*length]))?;
        let (module, rest) = path.split_at(known);
        let (Some(name), true) = (rest.first(), depth < 16) else { return Some(module.to_vec()) };
        let here = self.0.get(module)?;
        let follow = |target: &[String]| {
            let mut full = target.to_vec();
            full.extend(rest.iter().skip(1).cloned());
            self.definition(&full, depth + 1)
        };
        if let Some(target) = here.imports.get(name).filter(|target| target.as_slice() != path) {
            return follow(target);
        }
        if here.external.contains(name) {
            return None;
        }
        if let Some(target) = here.globs.iter().find(|target| self.provides(target, name, depth + 1))
            && !here.items.contains(name)
        {
            let mut target = target.clone();
            target.push(name.clone());
            return follow(&target);
        }
        Some(module.to_vec())
    }

    /// Whether `module` defines or re-exports `name`.
    fn provides(&self, module: &[String], name: &str, depth: usize) -> bool {
        let Some(module) = self.0.get(module).filter(|_| depth < 16) else { return false };
        module.items.contains(name)
            || module.imports.contains_key(name)
            || module.globs.iter().any(|target| self.provides(target, name, depth + 1))
    }

    fn edges(&self) -> BTreeSet<(ModulePath, ModulePath)> {
        let mut edges = BTreeSet::new();
        for (from, module) in &self.0 {
            for path in &module.paths {
                if let Some(to) = self.definition(path, 0)
                    && to != *from
                {
                    edges.insert((from.clone(), to));
                }
            }
        }
        edges
    }
}

/// Reads one file.
struct Reader<'a> {
    path: &'a ModulePath,
    module: Module,
    /// The modules written within the file that enclose the code that is being read.
    inline: Vec<String>,
    /// Its child modules, with the file name that `#[path]` gives.
    children: Vec<(String, Option<String>)>,
}

impl Reader<'_> {
    fn here(&self) -> ModulePath {
        self.path.iter().chain(&self.inline).cloned().collect()
    }

    fn absolute(&self, segments: &[String]) -> Option<ModulePath> {
        let (first, rest) = segments.split_first()?;
        let mut base = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.here(),
            "super" => self.here().split_last().map(|(_, parents)| parents.to_vec())?,
            name if self.children.iter().any(|(child, _)| child == name) => {
                let mut base = self.path.clone();
                base.push(name.to_owned());
                base
            }
            name => self.module.imports.get(name)?.clone(),
        };
        for segment in rest {
            if segment == "super" {
                base.pop()?;
            } else if segment != "self" {
                base.push(segment.clone());
            }
        }
        Some(base)
    }

    fn import(&mut self, prefix: &mut ModulePath, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.import(prefix, &path.tree);
                prefix.pop();
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(prefix, tree)),
            syn::UseTree::Name(name) => self.named(prefix, &name.ident, &name.ident),
            syn::UseTree::Rename(rename) => self.named(prefix, &rename.ident, &rename.rename),
            syn::UseTree::Glob(_) => {
                if let Some(path) = self.absolute(prefix) {
                    self.module.globs.push(path.clone());
                    self.module.paths.insert(path);
                }
            }
        }
    }

    fn named(&mut self, prefix: &ModulePath, name: &syn::Ident, alias: &syn::Ident) {
        let mut segments = prefix.clone();
        segments.push(name.to_string());
        if let Some(path) = self.absolute(&segments) {
            let alias =
                if alias == "self" { path.last().cloned().unwrap_or_default() } else { alias.to_string() };
            self.module.imports.insert(alias, path.clone());
            self.module.paths.insert(path);
        } else if self.inline.is_empty() {
            self.module.external.insert(alias.to_string());
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_file(&mut self, file: &'ast syn::File) {
        // Child modules and imports first: paths in the code begin with their names.
        for item in &file.items {
            if let syn::Item::Mod(module) = item
                && module.content.is_none()
                && !is_for_tests(&module.attrs)
            {
                let written = module.attrs.iter().find_map(path_attribute);
                self.children.push((module.ident.to_string(), written));
            }
        }
        self.module.items.extend(file.items.iter().filter_map(item_name).map(syn::Ident::to_string));
        for item in &file.items {
            if let syn::Item::Use(item) = item
                && !is_for_tests(&item.attrs)
            {
                self.import(&mut Vec::new(), &item.tree);
            }
        }
        visit::visit_file(self, file);
    }

    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.inline.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.inline.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&mut Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1
            && path.leading_colon.is_none()
            && let Some(path) = self.absolute(&segments)
        {
            self.module.paths.insert(path);
        }
        visit::visit_path(self, path);
    }

    // `pub(in crate::x)` names an ancestor; it imports nothing.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}
}

/// The name that an item defines in its module.
fn item_name(item: &syn::Item) -> Option<&syn::Ident> {
    match item {
        syn::Item::Const(item) => Some(&item.ident),
        syn::Item::Enum(item) => Some(&item.ident),
        syn::Item::Fn(item) => Some(&item.sig.ident),
        syn::Item::Mod(item) => Some(&item.ident),
        syn::Item::Static(item) => Some(&item.ident),
        syn::Item::Struct(item) => Some(&item.ident),
        syn::Item::Trait(item) => Some(&item.ident),
        syn::Item::Type(item) => Some(&item.ident),
        syn::Item::Macro(item) => item.ident.as_ref(),
        _ => None,
    }
}

/// Whether an item exists in tests only: `#[test]`, `#[cfg(test)]` or `#[cfg(all(test, …))]`.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    fn demands_test(meta: &syn::Meta) -> bool {
        match meta {
            syn::Meta::Path(path) => path.is_ident("test"),
            syn::Meta::List(list) if list.path.is_ident("all") => list
                .parse_args_with(Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated)
                .is_ok_and(|all| all.iter().any(demands_test)),
            _ => false,
        }
    }
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Meta>().is_ok_and(|meta| demands_test(&meta)))
    })
}

fn path_attribute(attribute: &syn::Attribute) -> Option<String> {
    let syn::Meta::NameValue(meta) = &attribute.meta else { return None };
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &meta.value else { return None };
    meta.path.is_ident("path").then(|| text.value())
}

/// The cycles among files, each as its modules and the imports between them.
fn cycles(edges: &BTreeSet<(ModulePath, ModulePath)>) -> Vec<String> {
    let name = |path: &ModulePath| match path.as_slice() {
        [] => "the crate root".to_owned(),
        path => path.join("::"),
    };
    let names: Vec<(String, String)> = edges.iter().map(|(from, to)| (name(from), name(to))).collect();
    let graph: DiGraphMap<&str, (), std::hash::RandomState> =
        names.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    let found = tarjan_scc(&graph).into_iter().filter(|component| component.len() > 1);
    let mut found: Vec<String> = found
        .map(|component| {
            let inside = |name: &String| component.contains(&name.as_str());
            let imports = names.iter().filter(|(from, to)| inside(from) && inside(to));
            imports.map(|(from, to)| format!("{from} → {to}")).collect::<Vec<_>>().join(", ")
        })
        .collect();
    found.sort();
    found
}

fn against_the_order(edges: &BTreeSet<(ModulePath, ModulePath)>) -> Vec<String> {
    let rank = |folder: &str| LAYERS.iter().position(|layer| layer.contains(&folder));
    let mut findings = BTreeSet::new();
    for (from, to) in edges {
        let (Some(importer), Some(imported)) = (from.first(), to.first()) else { continue };
        match (rank(importer), rank(imported)) {
            _ if importer == imported => {}
            (Some(own), Some(theirs)) if theirs < own => {}
            (None, _) => {
                findings
                    .insert(format!("agentsecrets/src/{importer}: is not in the order of folders (LAYERS)"));
            }
            _ => {
                findings.insert(format!(
                    "agentsecrets/src/{}: `{importer}` must not import `{imported}`, which is not below it",
                    from.join("/")
                ));
            }
        }
    }
    findings.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(files: &[(&str, &str)]) -> Modules {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut modules = Modules::default();
        modules.read(&folder.path().join("lib.rs"), Vec::new(), true).unwrap();
        modules
    }

    #[test]
    fn mutual_import_is_a_cycle() {
        let found = modules(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B; fn f() -> super::a::A { super::a::A }"),
        ]);
        assert_eq!(cycles(&found.edges()), ["a → b, b → a"]);
    }

    #[test]
    fn re_export_leads_to_the_defining_file() {
        let found = modules(&[
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod b; mod c; pub use b::B;"),
            ("a/b.rs", "pub struct B;"),
            ("a/c.rs", "use crate::a::B; fn f(_: B) {}"),
        ]);
        assert!(cycles(&found.edges()).is_empty());
        let names: Vec<String> =
            found.edges().iter().map(|(from, to)| format!("{} {}", from.join("::"), to.join("::"))).collect();
        assert_eq!(names, ["a a::b", "a::c a::b"]);
    }

    #[test]
    fn cycle_through_the_crate_root_is_found() {
        let found = modules(&[
            ("lib.rs", "mod a; pub use a::A; pub struct Root; pub use other as alias;"),
            ("a.rs", "use crate::Root; use crate::alias::Thing; pub struct A;"),
        ]);
        assert_eq!(cycles(&found.edges()), ["the crate root → a, a → the crate root"]);
        let found = modules(&[
            ("lib.rs", "mod a; mod b; pub use a::*; pub use other as alias;"),
            ("a.rs", "pub struct A;"),
            ("b.rs", "use crate::A; use crate::alias::Thing;"),
        ]);
        assert_eq!(found.edges().len(), 2, "{:?}", found.edges());
        assert!(cycles(&found.edges()).is_empty());
    }

    #[test]
    fn tests_comments_and_strings_are_not_imports() {
        let found = modules(&[
            ("lib.rs", "mod a; mod b;"),
            (
                "a.rs",
                "//! crate::b\n#[cfg(test)] mod tests { use crate::b::B; } const X: &str = \"crate::b\";",
            ),
            ("b.rs", "use crate::a::A; pub struct B;"),
        ]);
        assert_eq!(found.edges().len(), 1);
    }

    #[test]
    fn import_of_a_higher_folder_is_found() {
        let edge = |from: &str, to: &str| {
            let split = |path: &str| path.split("::").map(str::to_owned).collect::<Vec<_>>();
            BTreeSet::from([(split(from), split(to))])
        };
        assert_eq!(against_the_order(&edge("policy::evaluate", "pipeline")).len(), 1);
        assert_eq!(against_the_order(&edge("pipeline", "policy::evaluate")).len(), 0);
        assert_eq!(against_the_order(&edge("unknown", "policy")).len(), 1);
    }
}
