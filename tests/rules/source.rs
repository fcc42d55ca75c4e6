//! The packages and source files of the workspace.

use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap().to_owned()
}

/// A package of the workspace.
pub(crate) struct Package {
    pub(crate) name: String,
    /// Relative to the repository.
    pub(crate) folder: String,
    /// Names of what it is built on; not what its tests are.
    pub(crate) dependencies: Vec<String>,
}

impl Package {
    /// Whether it is only there for tests.
    pub(crate) fn is_of_tests(&self) -> bool {
        self.folder == "tests"
            || self.folder.starts_with("tests/")
            || self.name == "quintet-testkit"
    }
}

/// Every package that the workspace lists.
pub(crate) fn packages() -> Vec<Package> {
    let workspace = manifest(&repository());
    let members = workspace["workspace"]["members"].as_array().unwrap();
    members
        .iter()
        .map(|member| {
            let folder = member.as_str().unwrap().to_owned();
            let manifest = manifest(&repository().join(&folder));
            let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
            Package {
                name: manifest["package"]["name"].as_str().unwrap().to_owned(),
                folder,
                dependencies: dependencies
                    .into_iter()
                    .flat_map(|table| table.keys().cloned())
                    .collect(),
            }
        })
        .collect()
}

fn manifest(folder: &Path) -> toml::Value {
    let path = folder.join("Cargo.toml");
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A source file.
pub(crate) struct RustFile {
    /// Relative to the repository.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl RustFile {
    /// Whether all of it is a test.
    pub(crate) fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// Every path that the file names outside of modules of tests, in full: imports are spelt out.
    pub(crate) fn paths(&self) -> Vec<String> {
        let file =
            syn::parse_file(&self.text).unwrap_or_else(|error| panic!("{}: {error}", self.path));
        let mut paths = Paths::default();
        paths.visit_file(&file);
        paths.found
    }
}

/// Every source file below shared, services and tests.
pub(crate) fn rust_files() -> Vec<RustFile> {
    let mut files = Vec::new();
    for folder in ["shared", "services", "tests"] {
        collect(&repository().join(folder), &mut files);
    }
    assert!(files.len() > 100, "the sources are found");
    files
}

fn collect(folder: &Path, files: &mut Vec<RustFile>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !matches!(name.as_str(), "target" | "node_modules") {
            collect(&path, files);
        } else if name.ends_with(".rs") {
            let relative = path
                .strip_prefix(repository())
                .unwrap()
                .display()
                .to_string();
            files.push(RustFile {
                path: relative,
                text: fs::read_to_string(&path).unwrap(),
            });
        }
    }
}

#[derive(Default)]
struct Paths {
    found: Vec<String>,
}

impl Paths {
    fn import(&mut self, tree: &syn::UseTree, before: &str) {
        let joined = |name: &syn::Ident| match before {
            "" => name.to_string(),
            before => format!("{before}::{name}"),
        };
        match tree {
            syn::UseTree::Path(path) => self.import(&path.tree, &joined(&path.ident)),
            syn::UseTree::Name(name) => self.found.push(joined(&name.ident)),
            syn::UseTree::Rename(name) => self.found.push(joined(&name.ident)),
            syn::UseTree::Glob(_) => self.found.push(before.to_owned()),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, before);
                }
            }
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&item.tree, "");
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let is_test = item.attrs.iter().any(|attribute| {
            let syn::Meta::List(list) = &attribute.meta else {
                return false;
            };
            list.path.is_ident("cfg") && list.tokens.to_string().contains("test")
        });
        if !is_test {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        self.found.push(names.join("::"));
        syn::visit::visit_path(self, path);
    }
}
