//! The modules of a crate, and the resolution of paths to the files that define their items.
//!
//! This is a part of Rust's name resolution. It ignores visibility. It does not expand macros, so a
//! name that is not found in a module is taken to be defined there by a macro.

use std::collections::BTreeMap;

use syn::{Attribute, Item, Meta, UseTree};

use super::sources::Source;

/// A crate's modules without its test code; the first is the root.
pub(super) struct Crate<'a> {
    pub(super) modules: Vec<Module<'a>>,
}

/// A module: a whole file, or a part of a file.
pub(super) struct Module<'a> {
    /// Path of the file that the module is in.
    pub(super) file: &'a str,
    pub(super) items: Vec<Item>,
    parent: Option<usize>,
    names: BTreeMap<String, Vec<Definition>>,
    /// Paths of glob imports, without the `*`.
    globs: Vec<Vec<String>>,
}

/// One meaning of a name in a module.
enum Definition {
    Item,
    Module(usize),
    /// The name is imported from this path.
    Import(Vec<String>),
}

/// The item or module at the end of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found<'a> {
    /// An item, by its file and name.
    Item(&'a str, String),
    /// A module, by its number.
    Module(usize),
    /// Another crate, a local variable, or a name that Rust provides.
    Outside,
}

/// Whether these attributes restrict their item to test builds.
pub(super) fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string().replace(' ', "");
            condition == "test" || condition.starts_with("all(test,")
        }
        _ => false,
    })
}

/// Adds the name and the full path of everything that a `use` imports. A glob import has the name
/// `*`.
pub(super) fn imports(tree: &UseTree, prefix: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let under = |name: &dyn ToString| [prefix, &[name.to_string()]].concat();
    // `use a::{self}` imports `a` itself.
    let path = |ident: &syn::Ident| if ident == "self" { prefix.to_vec() } else { under(ident) };
    match tree {
        UseTree::Path(tree) => imports(&tree.tree, &under(&tree.ident), found),
        UseTree::Name(tree) => {
            let path = path(&tree.ident);
            found.extend(path.last().cloned().map(|name| (name, path)));
        }
        UseTree::Rename(tree) => found.push((tree.rename.to_string(), path(&tree.ident))),
        UseTree::Glob(_) => found.push(("*".into(), prefix.to_vec())),
        UseTree::Group(group) => group.items.iter().for_each(|tree| imports(tree, prefix, found)),
    }
}

impl<'a> Crate<'a> {
    /// Reads the crate whose root is `root`.
    pub(super) fn read(sources: &'a [Source], root: &'a Source) -> Self {
        let mut this = Self { modules: Vec::new() };
        let folder = root.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        this.add_file(sources, root, None, folder);
        this
    }

    fn add_file(
        &mut self,
        sources: &'a [Source],
        file: &'a Source,
        parent: Option<usize>,
        folder: &str,
    ) -> usize {
        // The compiler reports a file that does not parse.
        let items = syn::parse_file(&file.text).map_or(Vec::new(), |file| file.items);
        self.add(sources, &file.path, parent, folder, items)
    }

    /// Adds a module and the modules in it, whose files are in `folder`.
    fn add(
        &mut self,
        sources: &'a [Source],
        file: &'a str,
        parent: Option<usize>,
        folder: &str,
        items: Vec<Item>,
    ) -> usize {
        let number = self.modules.len();
        let module = Module { file, parent, items: Vec::new(), names: BTreeMap::new(), globs: Vec::new() };
        self.modules.push(module);
        for item in items {
            match item {
                Item::Mod(item) if is_test_only(&item.attrs) => {}
                Item::Mod(item) => {
                    let name = item.ident.to_string();
                    let folder = format!("{folder}/{name}");
                    let child = match item.content {
                        Some((_, items)) => Some(self.add(sources, file, Some(number), &folder, items)),
                        None => {
                            let paths = [format!("{folder}.rs"), format!("{folder}/mod.rs")];
                            let found = sources.iter().find(|source| paths.contains(&source.path));
                            found.map(|found| self.add_file(sources, found, Some(number), &folder))
                        }
                    };
                    let definition = child.map_or(Definition::Item, Definition::Module);
                    self.modules[number].define(name, definition);
                }
                item => {
                    if !attributes(&item).is_some_and(is_test_only) {
                        self.modules[number].define_item(&item);
                        self.modules[number].items.push(item);
                    }
                }
            }
        }
        number
    }

    /// Returns the module itself, its parent, and so on up to the root.
    pub(super) fn ancestors(&self, module: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(module), |&module| self.modules[module].parent)
    }

    /// Resolves a path that is written in `module`. If the last name is both an item and a module,
    /// the item is returned.
    pub(super) fn resolve(&self, module: usize, path: &[String]) -> Found<'a> {
        self.follow(module, path, 0)
    }

    fn follow(&self, module: usize, path: &[String], depth: usize) -> Found<'a> {
        let mut place = None;
        for (index, name) in path.iter().enumerate() {
            let is_last = index + 1 == path.len();
            let current = place.unwrap_or(module);
            let next = match (name.as_str(), place) {
                ("crate", _) => Found::Module(0),
                ("self", _) => Found::Module(current),
                ("super", _) => Found::Module(self.modules[current].parent.unwrap_or(0)),
                (_, None) => self.look_up(current, name, is_last, depth).unwrap_or(Found::Outside),
                (_, Some(_)) => {
                    let unknown = || Found::Item(self.modules[current].file, name.clone());
                    self.look_up(current, name, is_last, depth).unwrap_or_else(unknown)
                }
            };
            match next {
                Found::Module(number) => place = Some(number),
                // Names after an item belong to the item, such as variants and methods.
                end => return end,
            }
        }
        place.map_or(Found::Outside, Found::Module)
    }

    /// Returns the meaning of a name in a module, or `None` if the module does not have the name.
    fn look_up(&self, module: usize, name: &str, item_first: bool, depth: usize) -> Option<Found<'a>> {
        // The compiler reports circular imports.
        if depth > 16 {
            return None;
        }
        let this = &self.modules[module];
        let mut found: Vec<_> = this.names.get(name).into_iter().flatten().collect();
        found.sort_by_key(|definition| match definition {
            Definition::Module(_) if item_first => 2,
            Definition::Item if item_first => 0,
            Definition::Module(_) => 0,
            Definition::Import(_) => 1,
            Definition::Item => 2,
        });
        let named = found.into_iter().find_map(|definition| match definition {
            Definition::Item => Some(Found::Item(this.file, name.to_owned())),
            Definition::Module(number) => Some(Found::Module(*number)),
            // `use a;` makes the name of a macro or a crate an item; it does not lead to another
            // module.
            Definition::Import(path) if *path == [name] => None,
            Definition::Import(path) => Some(self.follow(module, path, depth + 1)),
        });
        named.or_else(|| {
            this.globs.iter().find_map(|path| match self.follow(module, path, depth + 1) {
                Found::Module(number) if number != module => {
                    self.look_up(number, name, item_first, depth + 1)
                }
                _ => None,
            })
        })
    }
}

impl Module<'_> {
    fn define(&mut self, name: String, definition: Definition) {
        self.names.entry(name).or_default().push(definition);
    }

    /// Adds the names that an item has in its module.
    fn define_item(&mut self, item: &Item) {
        let ident = match item {
            Item::Const(item) => &item.ident,
            Item::Enum(item) => &item.ident,
            Item::Fn(item) => &item.sig.ident,
            Item::Static(item) => &item.ident,
            Item::Struct(item) => &item.ident,
            Item::Trait(item) => &item.ident,
            Item::Type(item) => &item.ident,
            Item::Union(item) => &item.ident,
            Item::Macro(item) => match &item.ident {
                Some(ident) => ident,
                None => return,
            },
            Item::Use(item) => return self.import(item),
            _ => return,
        };
        self.define(ident.to_string(), Definition::Item);
    }

    /// Adds the names that a `use` imports, which may be inside a function.
    pub(super) fn import(&mut self, item: &syn::ItemUse) {
        let mut found = Vec::new();
        imports(&item.tree, &[], &mut found);
        for (name, path) in found {
            if item.leading_colon.is_some() {
                continue;
            }
            match &*name {
                "*" => self.globs.push(path),
                _ => self.define(name, Definition::Import(path)),
            }
        }
    }

    /// Whether the module itself has an item of this name.
    pub(super) fn has_item(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|found| found.iter().any(|found| matches!(found, Definition::Item)))
    }
}

/// The attributes of an item.
pub(super) fn attributes(item: &Item) -> Option<&[Attribute]> {
    Some(match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => return None,
    })
}
