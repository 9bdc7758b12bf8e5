//! Rows with named fields of several kinds: what is filtered, sorted, printed and handed to other programs.

use std::cmp::Ordering;

use polars::prelude::{AnyValue, DataFrame};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::manifest::nearest;
use crate::record::Row;
use crate::text::Table;

/// A value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// There is none.
    Empty,
    /// Yes or no.
    Flag(bool),
    /// A whole number.
    Whole(u64),
    /// A number in single precision.
    Single(f32),
    /// A number.
    Number(f64),
    /// Text.
    Text(String),
}

impl Cell {
    /// Of a value of a manifest.
    pub fn of_toml(value: &toml::Value) -> Self {
        match value {
            toml::Value::Boolean(flag) => Self::Flag(*flag),
            toml::Value::Integer(number) => {
                u64::try_from(*number).map_or(Self::Number(*number as f64), Self::Whole)
            }
            toml::Value::Float(number) => Self::Number(*number),
            toml::Value::String(text) => Self::of_text(text),
            other => Self::Text(other.to_string()),
        }
    }

    /// Of text, of which the empty one is none.
    pub fn of_text(text: &str) -> Self {
        if text.is_empty() { Self::Empty } else { Self::Text(text.to_owned()) }
    }

    fn of_polars(value: &AnyValue<'_>) -> Self {
        match value {
            AnyValue::Boolean(flag) => Self::Flag(*flag),
            AnyValue::UInt64(number) => Self::Whole(*number),
            AnyValue::Float32(number) => Self::Single(*number),
            AnyValue::Float64(number) => Self::Number(*number),
            AnyValue::String(text) => Self::of_text(text),
            AnyValue::StringOwned(text) => Self::of_text(text),
            _ => Self::Empty,
        }
    }

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        *self != Self::Empty
    }

    /// It as a number, where it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Whole(number) => Some(*number as f64),
            Self::Single(number) => Some(f64::from(*number)),
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// For machines: nothing is rounded, what is no finite number is null.
    pub fn json(&self) -> Value {
        match self {
            Self::Empty => Value::Null,
            Self::Flag(flag) => json!(flag),
            Self::Whole(number) => json!(number),
            Self::Single(number) => json!(number),
            Self::Number(number) => json!(number),
            Self::Text(text) => json!(text),
        }
    }

    /// For people.
    pub fn shown(&self) -> String {
        match self {
            Self::Empty => "-".to_owned(),
            Self::Flag(flag) => if *flag { "yes" } else { "no" }.to_owned(),
            Self::Whole(number) => number.to_string(),
            Self::Single(number) => shown(f64::from(*number)),
            Self::Number(number) => shown(*number),
            Self::Text(text) => text.clone(),
        }
    }

    /// The order of a column: what is not there comes last either way, see [`Sheet::sort`].
    fn compare(&self, other: &Self) -> Ordering {
        match (self.number(), other.number()) {
            (Some(ours), Some(theirs)) => ours.total_cmp(&theirs),
            _ => self.shown().cmp(&other.shown()),
        }
    }
}

/// A number with as many digits as tell neighbours apart.
pub(crate) fn shown(number: f64) -> String {
    let size = number.abs();
    if number == 0.0 || (number == number.trunc() && size < 1e6) {
        format!("{number}")
    } else if !(1e-3..1e6).contains(&size) {
        format!("{number:.3e}")
    } else if size >= 1000.0 {
        format!("{number:.0}")
    } else {
        format!("{number:.5}")
    }
}

/// What a field is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// What it means, with its unit.
    pub meaning: String,
}

/// Rows of cells under fields.
#[derive(Debug, Clone, Default)]
pub struct Sheet {
    fields: Vec<Field>,
    rows: Vec<Vec<Cell>>,
}

impl Sheet {
    /// Of the rows of a table, with all its columns.
    ///
    /// # Errors
    /// None that anybody has met: of columns that polars does not make.
    pub fn of<R: Row>(rows: &[R]) -> Result<Self> {
        let frame =
            R::to_frame(rows).map_err(|error| Error::internal(format!("a table has no frame: {error}")))?;
        let mut sheet = Self { fields: Vec::new(), rows: vec![Vec::new(); rows.len()] };
        for column in R::COLUMNS {
            let unit = if column.unit.is_empty() { String::new() } else { format!(", {}", column.unit) };
            sheet.add(column.name, &format!("{}{unit}", column.meaning), column_of(&frame, column.name));
        }
        Ok(sheet)
    }

    /// Adds a field with a cell for every row; those beyond the end are none.
    pub fn add(&mut self, name: &str, meaning: &str, cells: impl IntoIterator<Item = Cell>) {
        self.fields.push(Field { name: name.to_owned(), meaning: meaning.to_owned() });
        let cells = cells.into_iter().chain(std::iter::repeat(Cell::Empty));
        self.rows.iter_mut().zip(cells).for_each(|(row, cell)| row.push(cell));
    }

    /// Its fields, in order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The place of a field; of a path, the last part of its name does where one field alone ends so.
    pub fn find(&self, name: &str) -> Option<usize> {
        let exact = self.fields.iter().position(|field| field.name == name);
        exact.or_else(|| {
            let mut ends = (0..self.fields.len()).filter(|&at| {
                self.fields.get(at).is_some_and(|field| {
                    field.name.strip_suffix(name).is_some_and(|before| before.ends_with('.'))
                })
            });
            let first = ends.next()?;
            ends.next().is_none().then_some(first)
        })
    }

    /// The place of a field that somebody asked for with `option`.
    ///
    /// # Errors
    /// No such field: the nearest names; class `Input`.
    pub fn place(&self, name: &str, option: &str) -> Result<usize> {
        self.find(name).ok_or_else(|| {
            let names = || self.fields.iter().map(|field| field.name.as_str());
            let error = Error::input(format!("there is no field `{name}` ({option})"));
            match nearest(name, names()) {
                Some(near) => error.help(format!("did you mean `{near}`? --fields lists all")),
                None => error
                    .expected(names().take(12).collect::<Vec<_>>().join(", ") + ", ...")
                    .help("--fields lists all with what they mean"),
            }
        })
    }

    /// A cell.
    pub fn cell(&self, row: usize, field: usize) -> &Cell {
        self.rows.get(row).and_then(|row| row.get(field)).unwrap_or(&Cell::Empty)
    }

    /// Keeps the rows that `keeps` says.
    pub fn retain(&mut self, keeps: impl Fn(&[Cell]) -> bool) {
        self.rows.retain(|row| keeps(row));
    }

    /// Sorts by a field, stably; rows without a value come last.
    pub fn sort(&mut self, field: usize, descending: bool) {
        let of = |row: &Vec<Cell>| row.get(field).cloned().unwrap_or(Cell::Empty);
        self.rows.sort_by(|a, b| {
            let (a, b) = (of(a), of(b));
            match (a.is_there(), b.is_there()) {
                (true, true) if descending => b.compare(&a),
                (true, true) => a.compare(&b),
                (ours, theirs) => theirs.cmp(&ours),
            }
        });
    }

    /// Keeps the first rows alone. -> how many were left out
    pub fn truncate(&mut self, most: usize) -> usize {
        let left_out = self.rows.len().saturating_sub(most);
        self.rows.truncate(most);
        left_out
    }

    /// The rows with these fields, as people read them; numbers are aligned to the right.
    pub(crate) fn table(&self, fields: &[usize]) -> Table {
        let heading = |&field: &usize| {
            let is_number = |row: &Vec<Cell>| row.get(field).is_some_and(|cell| cell.number().is_some());
            let name = self.fields.get(field).map_or("", |field| field.name.as_str());
            if self.rows.iter().any(is_number) { format!(">{name}") } else { name.to_owned() }
        };
        let mut table = Table::new(fields.iter().map(heading));
        for row in 0..self.rows.len() {
            table.push(fields.iter().map(|&field| self.cell(row, field).shown()).collect());
        }
        table
    }

    /// Every row with these fields, for machines.
    pub fn json(&self, fields: &[usize]) -> Value {
        let row = |row: usize| {
            let field = |&field: &usize| {
                let name = self.fields.get(field)?.name.clone();
                Some((name, self.cell(row, field).json()))
            };
            Value::Object(fields.iter().filter_map(field).collect::<Map<_, _>>())
        };
        (0..self.rows.len()).map(row).collect()
    }
}

fn column_of(frame: &DataFrame, name: &str) -> Vec<Cell> {
    let Ok(column) = frame.column(name) else { return Vec::new() };
    (0..column.len())
        .map(|row| column.get(row).map_or(Cell::Empty, |value| Cell::of_polars(&value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RunRow;

    fn sheet() -> Sheet {
        let row = |arm: &str, val_bpb| RunRow { arm: arm.to_owned(), val_bpb, seed: 7, ..RunRow::default() };
        let mut sheet = Sheet::of(&[row("a", Some(2.5)), row("b", None), row("c", Some(2.25))]).unwrap();
        sheet.add("schedule.warmdown", "an axis", [Cell::Text("sqrt".into())]);
        sheet
    }

    fn arms(sheet: &Sheet) -> Vec<String> {
        let arm = sheet.find("arm").unwrap();
        (0..sheet.len()).map(|row| sheet.cell(row, arm).shown()).collect()
    }

    #[test]
    fn what_is_not_there_comes_last_either_way() {
        let mut sheet = sheet();
        let bpb = sheet.find("val_bpb").unwrap();
        sheet.sort(bpb, false);
        assert_eq!(arms(&sheet), ["c", "a", "b"]);
        sheet.sort(bpb, true);
        assert_eq!(arms(&sheet), ["a", "c", "b"]);
        assert_eq!((sheet.truncate(2), arms(&sheet)), (1, vec!["a".to_owned(), "c".to_owned()]));
    }

    #[test]
    fn fields_are_found_by_name_or_by_the_end_of_a_path() {
        let sheet = sheet();
        assert_eq!(sheet.find("warmdown"), sheet.find("schedule.warmdown"));
        let error = sheet.place("val_bbp", "--where").unwrap_err();
        assert!(error.to_string().contains("did you mean `val_bpb`"), "{error}");
        assert_eq!(error.class().exit_code(), 2);
    }

    #[test]
    fn numbers_read_well_and_machines_have_all_digits() {
        let shown = [0.0, 3.0, 2.345678, 12345.678, 1.5e9, 0.00012].map(shown);
        assert_eq!(shown, ["0", "3", "2.34568", "12346", "1.500e9", "1.200e-4"]);
        // The float32 nearest to 2.3, as every other number of ours in JSON: whoever reads it has its bits.
        assert_eq!(Cell::Single(2.3).json().to_string(), "2.299999952316284");
        assert_eq!(Cell::Number(f64::NAN).json(), Value::Null);
        assert_eq!(Cell::Whole(u64::MAX).json().to_string(), u64::MAX.to_string());
    }
}
