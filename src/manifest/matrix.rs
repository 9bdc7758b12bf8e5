//! The matrix: axes, zipped axes, exclusions and inclusions, expanded into cells.
//!
//! Cells are the product of the axes in the order written, the first varying slowest; then what `exclude` matches
//! is cut; then each `include` adds the base with its own values, crossed with the seed axis. Without axes the
//! product is one cell, the base. An include may have a `label`, which its arm is called by.

use std::collections::{BTreeMap, BTreeSet};

use toml::Value;

use super::document::{Node, NodeKind};
use super::fields;
use super::layers::{self, Entry, Layer, Origin, brief};
use super::spelling::nearest;
use super::vary;
use crate::error::{Error, Result};

/// The seed's axis, which includes are crossed with and which no arm contains.
pub const SEED: &str = "run.seed";
const LARGEST: usize = 10_000;

/// The matrix as written and checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Matrix {
    axes: Vec<Axis>,
    exclude: Vec<Row>,
    include: Vec<Row>,
    labels: Vec<Labelled>,
    origin: Option<Origin>,
}

/// The name that an include gives its arm.
#[derive(Debug, Clone)]
pub struct Label {
    /// What the matrix sets in that arm.
    pub values: BTreeMap<String, Value>,
    /// The name.
    pub name: String,
    origin: Origin,
}

impl Label {
    /// Adds where the name was written.
    pub(crate) fn locate(&self, error: Error) -> Error {
        self.origin.locate(error.key("matrix.include.label"))
    }
}

/// An include, what its arm is called, and where that was written.
type Labelled = (Row, String, Origin);

/// What one point of an axis sets.
type Row = Vec<(String, Entry)>;

#[derive(Debug, Clone)]
struct Axis {
    /// Keys as written; more than one where zipped.
    keys: Vec<String>,
    rows: Vec<Row>,
}

impl Axis {
    fn sets(&self, path: &str) -> bool {
        self.rows.iter().flatten().any(|(key, _)| key == path)
    }
}

impl Matrix {
    /// Reads `[matrix]`; `origin` says from where.
    pub(crate) fn read(node: &Node, origin: &Origin) -> Result<Self> {
        let origin = at(origin, node);
        if !node.is_table() {
            return Err(
                origin.locate(Error::input("matrix is no table").key("matrix").expected("a table of axes"))
            );
        }
        let mut matrix = Self { origin: Some(origin.clone()), ..Self::default() };
        let mut zips = Vec::new();
        for (key, child) in node.entries() {
            match key.as_str() {
                "zip" => zips = tables(child, "matrix.zip", &origin)?,
                "exclude" => matrix.exclude = rows(child, "matrix.exclude", &origin)?.0,
                "include" => (matrix.include, matrix.labels) = rows(child, "matrix.include", &origin)?,
                _ => matrix.read_axes(key, child, &origin)?,
            }
        }
        for zip in zips {
            matrix.axes.push(zipped(zip, &origin)?);
        }
        Ok(matrix)
    }

    /// One axis, or several under a table of a section.
    fn read_axes(&mut self, path: &str, node: &Node, origin: &Origin) -> Result<()> {
        if node.is_table() && fields::is_section(path) {
            return node
                .entries()
                .iter()
                .try_for_each(|(key, child)| self.read_axes(&format!("{path}.{key}"), child, origin));
        }
        let points = points(path, node, origin)?;
        self.axes.push(Axis { keys: vec![path.to_owned()], rows: points });
        Ok(())
    }

    /// Lays a profile's matrix over this one: its axes replace those of the same keys, its lists the same lists.
    pub(crate) fn lay_over(&mut self, stronger: Self) {
        for axis in stronger.axes {
            self.axes
                .retain(|old| old.keys == axis.keys || !old.keys.iter().any(|key| axis.keys.contains(key)));
            match self.axes.iter_mut().find(|old| old.keys == axis.keys) {
                Some(old) => *old = axis,
                None => self.axes.push(axis),
            }
        }
        if !stronger.exclude.is_empty() {
            self.exclude = stronger.exclude;
        }
        if !stronger.include.is_empty() {
            self.include = stronger.include;
            self.labels = stronger.labels;
        }
        self.origin = stronger.origin.or_else(|| self.origin.take());
    }

    /// Takes out of `over` what names a value that an axis has: it picks cells, and leaves the matrix as it is.
    pub(crate) fn take_views(&self, over: &mut Layer) -> Layer {
        let has = |path: &str, entry: &Entry| {
            let values = self.axes.iter().flat_map(|axis| axis.rows.iter().flatten());
            values.into_iter().any(|(key, own)| key == path && vary::same(path, &own.value, &entry.value))
        };
        let views: Layer = over
            .iter()
            .filter(|(path, entry)| has(path, entry))
            .map(|(p, e)| (p.clone(), e.clone()))
            .collect();
        over.retain(|path, _| !views.contains_key(path));
        views
    }

    /// Every field that it sets in some cell.
    pub(crate) fn paths(&self) -> BTreeSet<String> {
        let rows = self.axes.iter().map(|axis| &axis.rows).chain([&self.include]);
        rows.flatten().flatten().map(|(path, _)| path.clone()).collect()
    }

    /// Takes out what `--set` or the environment decides: an axis of such a key, or of its exclusive group, collapses.
    pub(crate) fn collapse(&mut self, sets: &Layer) {
        let decided = |path: &str| {
            sets.contains_key(path)
                || fields::group_of(path)
                    .is_some_and(|group| group.members.iter().any(|member| sets.contains_key(*member)))
        };
        for rows in self.axes.iter_mut().map(|axis| &mut axis.rows).chain([&mut self.include]) {
            if rows.iter().flatten().any(|(path, _)| decided(path)) {
                for row in rows.iter_mut() {
                    row.retain(|(path, _)| !decided(path));
                }
                rows.retain(|row| !row.is_empty());
                distinct(rows);
            }
        }
        self.axes.retain(|axis| !axis.rows.is_empty());
        for (row, ..) in &mut self.labels {
            row.retain(|(path, _)| !decided(path));
        }
    }

    /// What arms that were included are called.
    pub(crate) fn labels(&self) -> Vec<Label> {
        let values = |row: &Row| {
            let arm = row.iter().filter(|(path, _)| path != SEED);
            arm.map(|(path, entry)| (path.clone(), entry.value.clone())).collect()
        };
        let label = |(row, name, origin): &Labelled| Label {
            values: values(row),
            name: name.clone(),
            origin: origin.clone(),
        };
        self.labels.iter().map(label).collect()
    }

    /// The cells, in order. `base` is what they are laid over; `strict` rejects exclusions that match no value of
    /// an axis, which a profile or `--set` may have taken away.
    pub(crate) fn expand(&self, base: &Layer, strict: bool) -> Result<Vec<Layer>> {
        let count = self.axes.iter().try_fold(1_usize, |count, axis| count.checked_mul(axis.rows.len()));
        if count.is_none_or(|count| count > LARGEST) {
            let error = Error::input(format!("the matrix has more than {LARGEST} cells")).key("matrix");
            return Err(self.locate(error.help("sweep fewer values, or zip axes")));
        }
        self.check_axes()?;
        if strict {
            self.check_exclusions()?;
        }
        let mut cells = vec![Layer::new()];
        for axis in &self.axes {
            cells = cells.iter().flat_map(|cell| axis.rows.iter().map(move |row| with(cell, row))).collect();
        }
        cells.retain(|cell| !self.exclude.iter().any(|pattern| matches(cell, base, pattern)));
        for row in &self.include {
            let included = with(&Layer::new(), row);
            if included.contains_key(SEED) {
                cells.push(included);
                continue;
            }
            let seeds = self.seeds();
            if seeds.is_empty() {
                cells.push(included);
            } else {
                cells.extend(seeds.into_iter().map(|seed| with(&included, &vec![(SEED.to_owned(), seed)])));
            }
        }
        if cells.is_empty() {
            let error =
                Error::input("the matrix has no cell left: exclude cuts every one").key("matrix.exclude");
            let error = error.expected("at least one cell").help("remove one of the exclusions");
            return Err(self.locate(error));
        }
        cells.iter().try_for_each(layers::check_groups)?;
        self.check_distinct(&cells)?;
        Ok(cells)
    }

    /// The values of the seed axis, each once.
    fn seeds(&self) -> Vec<Entry> {
        let mut seeds: Vec<Entry> = Vec::new();
        for (_, entry) in
            self.axes.iter().flat_map(|axis| axis.rows.iter().flatten()).filter(|(key, _)| key == SEED)
        {
            if !seeds.iter().any(|seed| seed.value == entry.value) {
                seeds.push(entry.clone());
            }
        }
        seeds
    }

    /// No key on two axes, no value twice on one.
    fn check_axes(&self) -> Result<()> {
        for (index, axis) in self.axes.iter().enumerate() {
            for (at, row) in axis.rows.iter().enumerate() {
                let earlier = axis.rows.iter().take(at).any(|other| same(other, row));
                if let (true, Some((path, entry))) = (earlier, row.first()) {
                    let what = format!("the axis {} has {} twice", axis.keys.join(", "), brief(&entry.value));
                    let error = Error::input(what).key(path.as_str()).expected("every value once");
                    return Err(entry.origin.locate(error));
                }
                for (path, entry) in row {
                    if self.axes.iter().take(index).any(|other| other.sets(path)) {
                        let what = format!("{path} is on two axes");
                        let error = Error::input(what).key(path.as_str()).expected("every field on one axis");
                        return Err(entry.origin.locate(error));
                    }
                }
            }
        }
        Ok(())
    }

    /// An exclusion speaks of axes and of values on them.
    fn check_exclusions(&self) -> Result<()> {
        for (path, entry) in self.exclude.iter().flatten() {
            let values: Vec<&Value> = self
                .axes
                .iter()
                .flat_map(|axis| axis.rows.iter().flatten())
                .filter(|(key, _)| key == path)
                .map(|(_, entry)| &entry.value)
                .collect();
            if values.is_empty() {
                let known: Vec<&str> =
                    self.axes.iter().flat_map(|axis| axis.keys.iter().map(String::as_str)).collect();
                let error = Error::input(format!("exclude names {path}, which is no axis"))
                    .key(path.as_str())
                    .expected(format!("an axis of the matrix: {}", known.join(", ")));
                let error = match nearest(path, known) {
                    Some(axis) => error.help(format!("did you mean `{axis}`?")),
                    None => error,
                };
                return Err(entry.origin.locate(error));
            }
            if !values.contains(&&entry.value) {
                let mut known: Vec<String> = values.into_iter().map(brief).collect();
                known.dedup();
                let what = format!("exclude cuts nothing: {path} is never {}", brief(&entry.value));
                let expected = format!("a value of its axis: {}", known.join(", "));
                return Err(entry.origin.locate(Error::input(what).key(path.as_str()).expected(expected)));
            }
        }
        Ok(())
    }

    /// No two cells set the same values.
    fn check_distinct(&self, cells: &[Layer]) -> Result<()> {
        let mut seen = BTreeSet::new();
        for cell in cells {
            let text: Vec<String> =
                cell.iter().map(|(path, entry)| format!("{path} = {}", entry.value)).collect();
            let text = text.join(", ");
            if !seen.insert(text.clone()) {
                let what = if text.is_empty() { "the base".to_owned() } else { text };
                let error = Error::input(format!("the matrix has the same cell twice: {what}")).key("matrix");
                return Err(self.locate(error.help("an include repeats a cell of the product")));
            }
        }
        Ok(())
    }

    fn locate(&self, error: Error) -> Error {
        self.origin.iter().fold(error, |error, origin| origin.locate(error))
    }
}

/// An error for a field that decides nothing about a run.
pub(crate) fn not_sweepable(path: &str) -> Error {
    let error = Error::input(format!("{path} cannot be swept")).key(path);
    error.expected("a field that decides something about a run")
}

fn at(origin: &Origin, node: &Node) -> Origin {
    match origin {
        Origin::File(file, _) => Origin::File(file.clone(), node.line),
        other => other.clone(),
    }
}

/// A cell with a row's values added.
fn with(cell: &Layer, row: &Row) -> Layer {
    let mut cell = cell.clone();
    cell.extend(row.iter().cloned());
    cell
}

fn same(a: &Row, b: &Row) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && a.1.value == b.1.value)
}

fn distinct(rows: &mut Vec<Row>) {
    let mut kept: Vec<Row> = Vec::new();
    for row in rows.drain(..) {
        if !kept.iter().any(|other| same(other, &row)) {
            kept.push(row);
        }
    }
    *rows = kept;
}

/// Whether a cell over its base has every value of a pattern.
fn matches(cell: &Layer, base: &Layer, pattern: &Row) -> bool {
    pattern.iter().all(|(path, entry)| {
        cell.get(path).or_else(|| base.get(path)).is_some_and(|found| found.value == entry.value)
    })
}

/// The points of an axis.
fn points(path: &str, node: &Node, origin: &Origin) -> Result<Vec<Row>> {
    let place = at(origin, node);
    if fields::find(path).is_none() && !fields::is_section(path) {
        return Err(place
            .locate(layers::unknown_key(path, &node.value()).expected("a matrix axis: a manifest field")));
    }
    if !fields::is_sweepable(path) {
        return Err(place.locate(not_sweepable(path)));
    }
    let NodeKind::Array(items) = &node.kind else {
        let what = format!("the axis {path} is {}, not a list", brief(&node.value()));
        return Err(place.locate(Error::input(what).key(path).expected("a list of values")));
    };
    if items.is_empty() {
        let error = Error::input(format!("the axis {path} is empty")).key(path);
        let error = error.expected("at least one value").help("give it values, or remove the axis");
        return Err(place.locate(error));
    }
    items.iter().map(|item| point(path, item, &at(&place, item))).collect()
}

/// What one value of an axis sets: its field, or the fields of a table.
fn point(path: &str, item: &Node, origin: &Origin) -> Result<Row> {
    if item.is_table() && fields::is_section(path) {
        let mut layer = Layer::new();
        layers::flatten(item, path, origin, &[], &mut layer)?;
        layers::check_groups(&layer)?;
        return Ok(layer.into_iter().collect());
    }
    let value = layers::check(path, &item.value(), origin)?;
    Ok(vec![(path.to_owned(), Entry { value, origin: origin.clone() })])
}

/// The tables of an array of tables.
fn tables<'a>(node: &'a Node, path: &str, origin: &Origin) -> Result<Vec<&'a Node>> {
    let wrong = |node: &Node| {
        let error = Error::input(format!("{path} is no list of tables")).key(path);
        at(origin, node).locate(error.expected(format!("[[{path}]]")))
    };
    match &node.kind {
        NodeKind::Array(items) if items.iter().all(Node::is_table) => Ok(items.iter().collect()),
        _ => Err(wrong(node)),
    }
}

/// The rows of `[[matrix.exclude]]` or `[[matrix.include]]`, and the labels of those that have one.
fn rows(node: &Node, path: &str, origin: &Origin) -> Result<(Vec<Row>, Vec<Labelled>)> {
    let (mut rows, mut labels) = (Vec::new(), Vec::<Labelled>::new());
    for table in tables(node, path, origin)? {
        let label = if path == "matrix.include" { label(table, origin)? } else { None };
        let skip: &[&str] = if label.is_some() { &["label"] } else { &[] };
        let mut layer = Layer::new();
        layers::flatten(table, "", &at(origin, table), skip, &mut layer)?;
        layers::check_groups(&layer)?;
        if let Some((key, entry)) = layer.iter().find(|(key, _)| !fields::is_sweepable(key)) {
            let error = not_sweepable(key);
            return Err(entry.origin.locate(error));
        }
        if layer.is_empty() {
            let error = Error::input(format!("a [[{path}]] is empty")).key(path);
            return Err(at(origin, table).locate(error.expected("at least one field")));
        }
        let row: Row = layer.into_iter().collect();
        if let Some((label, place)) = label {
            if labels.iter().any(|(_, other, _)| *other == label) {
                let error = Error::input(format!("two includes are labelled {label:?}"));
                let error = error.key("matrix.include.label").expected("a label of its own for every arm");
                return Err(place.locate(error));
            }
            labels.push((row.clone(), label, place));
        }
        rows.push(row);
    }
    Ok((rows, labels))
}

/// The `label` of an include.
fn label(table: &Node, origin: &Origin) -> Result<Option<(String, Origin)>> {
    const LONGEST: usize = 60;
    let Some(node) = table.get("label") else { return Ok(None) };
    match node.value() {
        Value::String(label)
            if !label.trim().is_empty()
                && label.chars().count() <= LONGEST
                && !label.chars().any(char::is_control) =>
        {
            Ok(Some((label, at(origin, node))))
        }
        other => {
            let error =
                Error::input(format!("a label cannot be {}", brief(&other))).key("matrix.include.label");
            Err(at(origin, node).locate(error.expected(format!("one line of 1 to {LONGEST} characters"))))
        }
    }
}

/// One axis of several keys, whose lists are as long as each other.
fn zipped(table: &Node, origin: &Origin) -> Result<Axis> {
    let place = at(origin, table);
    let mut lists: Vec<(String, Vec<Row>)> = Vec::new();
    for (key, node) in table.entries() {
        zip_lists(key, node, &place, &mut lists)?;
    }
    let Some(length) = lists.first().map(|(_, rows)| rows.len()) else {
        let error = Error::input("a [[matrix.zip]] is empty").key("matrix.zip");
        return Err(place.locate(error.expected("lists of equal length")));
    };
    if lists.iter().any(|(_, rows)| rows.len() != length) {
        let lengths: Vec<String> = lists.iter().map(|(key, rows)| format!("{key} {}", rows.len())).collect();
        let error = Error::input(format!("zipped lists differ in length: {}", lengths.join(", ")));
        return Err(place.locate(error.key("matrix.zip").expected("lists of equal length")));
    }
    let mut rows = vec![Row::new(); length];
    let keys = lists.iter().map(|(key, _)| key.clone()).collect();
    for (row, point) in lists.into_iter().flat_map(|(_, list)| list.into_iter().enumerate()) {
        rows.iter_mut().skip(row).take(1).for_each(|slot| slot.extend(point.iter().cloned()));
    }
    Ok(Axis { keys, rows })
}

fn zip_lists(path: &str, node: &Node, origin: &Origin, lists: &mut Vec<(String, Vec<Row>)>) -> Result<()> {
    if node.is_table() && fields::is_section(path) {
        let children = node.entries().iter();
        return children
            .into_iter()
            .try_for_each(|(key, child)| zip_lists(&format!("{path}.{key}"), child, origin, lists));
    }
    lists.push((path.to_owned(), points(path, node, origin)?));
    Ok(())
}
