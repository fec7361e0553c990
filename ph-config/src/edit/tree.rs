//! All that a TOML text says, as a tree: what an edit is compared by.
//!
//! The names in it are borrowed, and none is repeated below its table: a name may be as long as a
//! file, and a file may hold very many keys below it.

use std::collections::BTreeMap;

use toml_edit::{ArrayOfTables, Item, Key, TableLike, Value};

use super::literal::canonical;

/// A table, or a value.
pub(super) enum Tree<'d> {
    Table(Branch<'d>),
    Value(Leaf),
}

/// What is below a table.
#[derive(Default)]
pub(super) struct Branch<'d> {
    /// Whether the text has the table of its own accord. One that only dotted keys speak of comes
    /// and goes with them.
    pub(super) is_own: bool,
    pub(super) inner: BTreeMap<&'d str, Tree<'d>>,
    /// The tables, if this is a list of them.
    pub(super) list: Vec<Branch<'d>>,
}

/// A value by its canonical text, and where its key stands.
pub(super) struct Leaf {
    pub(super) text: String,
    pub(super) place: usize,
}

impl<'d> Branch<'d> {
    /// As deep as the parser allows, which has a limit of its own.
    pub(super) fn of(table: &'d dyn TableLike) -> Branch<'d> {
        let mut inner = BTreeMap::new();
        for (name, item) in table.iter() {
            let tree = match item {
                Item::ArrayOfTables(tables) => Tree::Table(Branch::of_list(tables)),
                Item::Table(table) => Tree::Table(Branch::of(table)),
                Item::Value(Value::InlineTable(table)) => Tree::Table(Branch::of(table)),
                Item::Value(value) => {
                    let span = table.key(name).and_then(Key::span).or_else(|| value.span());
                    let place = span.map_or(0, |span| span.start);
                    Tree::Value(Leaf { text: canonical(value), place })
                }
                Item::None => continue,
            };
            inner.insert(name, tree);
        }
        Branch { is_own: !table.is_dotted(), inner, list: Vec::new() }
    }

    fn of_list(tables: &'d ArrayOfTables) -> Branch<'d> {
        let list = tables.iter().map(|table| Branch::of(table)).collect();
        Branch { is_own: true, inner: BTreeMap::new(), list }
    }

    /// The value at the end of this path.
    pub(super) fn value(&self, path: &[String]) -> Option<&Leaf> {
        let (name, rest) = path.split_first()?;
        match self.inner.get(name.as_str())? {
            Tree::Table(branch) => branch.value(rest),
            Tree::Value(leaf) => rest.is_empty().then_some(leaf),
        }
    }
}

/// Two trees, one of which should be the other but for one value.
#[derive(Default)]
pub(super) struct Comparison {
    /// Where each value that is in both stands, before and after.
    places: Vec<(usize, usize)>,
}

impl Comparison {
    /// Whether the trees say the same but for the value at `path`. Tables around that may be new;
    /// none may vanish.
    pub(super) fn is_same_but(
        &mut self,
        before: &Branch<'_>,
        after: &Branch<'_>,
        path: &[String],
    ) -> bool {
        let nothing = Branch::default();
        let around = path.split_first();
        let next = around.map(|(name, _)| name.as_str());
        let others = |branch: &Branch<'_>| {
            branch.inner.len() - usize::from(next.is_some_and(|it| branch.inner.contains_key(it)))
        };
        let is_own = if path.is_empty() {
            before.is_own == after.is_own
        } else {
            !before.is_own || after.is_own
        };
        if !is_own || others(before) != others(after) || before.list.len() != after.list.len() {
            return false;
        }
        if let Some((name, rest)) = around {
            let table = |branch: &'_ Branch<'_>| match branch.inner.get(name.as_str()) {
                Some(Tree::Table(_)) => true,
                Some(Tree::Value(_)) | None => false,
            };
            if rest.is_empty() {
                if let (Some(old), Some(new)) = (before.value(path), after.value(path)) {
                    self.places.push((old.place, new.place));
                }
                if table(before) || table(after) {
                    return false;
                }
            } else {
                let branch = |branch| inner_branch(branch, name).unwrap_or(&nothing);
                if !self.is_same_but(branch(before), branch(after), rest) {
                    return false;
                }
            }
        }
        let lists = before.list.iter().zip(&after.list);
        before.inner.iter().filter(|(name, _)| next != Some(*name)).all(|(name, old)| {
            match (old, after.inner.get(name)) {
                (Tree::Table(old), Some(Tree::Table(new))) => self.is_same_but(old, new, &[]),
                (Tree::Value(old), Some(Tree::Value(new))) => {
                    self.places.push((old.place, new.place));
                    old.text == new.text
                }
                (Tree::Table(_), Some(Tree::Value(_)) | None)
                | (Tree::Value(_), Some(Tree::Table(_)) | None) => false,
            }
        }) && lists.into_iter().all(|(old, new)| self.is_same_but(old, new, &[]))
    }

    /// Whether the values that are in both follow one another as they did. `toml_edit` gives them
    /// table by table, but a table may stand in several places.
    pub(super) fn keeps_order(mut self) -> bool {
        self.places.sort_unstable();
        self.places.is_sorted_by_key(|(_, after)| *after)
    }
}

fn inner_branch<'b, 'd>(branch: &'b Branch<'d>, name: &str) -> Option<&'b Branch<'d>> {
    match branch.inner.get(name)? {
        Tree::Table(inner) => Some(inner),
        Tree::Value(_) => None,
    }
}
