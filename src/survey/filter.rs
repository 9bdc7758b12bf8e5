//! `--where FIELD OP VALUE` and `--sort FIELD[:desc]`: which rows somebody wants to see, and in which order.

use super::sheet::{Cell, Sheet};
use crate::error::{Error, Result};

/// How a field is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Less,
    AtMost,
    More,
    AtLeast,
    Is,
    IsNot,
    Has,
    HasNot,
}

/// In the order in which they are looked for: the longer ones first.
const OPS: [(&str, Op); 9] = [
    ("<=", Op::AtMost),
    (">=", Op::AtLeast),
    ("!=", Op::IsNot),
    ("!~", Op::HasNot),
    ("==", Op::Is),
    ("<", Op::Less),
    (">", Op::More),
    ("=", Op::Is),
    ("~", Op::Has),
];

const EXPECTED: &str = "FIELD OP VALUE, such as 'val_bpb<2.6', status=finished or arm~sqrt, with one of <, <=, >, >=, =, !=, ~ (has the text) \
     and !~ (has it not)";

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// The field.
    pub field: String,
    op: Op,
    value: String,
}

impl Filter {
    /// Reads `val_bpb<2.6`.
    ///
    /// # Errors
    /// What is no condition; class `Input`.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::input(format!("`--where {text}` is no condition")).expected(EXPECTED);
        let name = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '.' | '-' | ' ');
        let end = text.find(|letter| !name(letter)).ok_or_else(bad)?;
        let (field, rest) = text.split_at(end);
        let (spelled, op) = OPS.into_iter().find(|(spelled, _)| rest.starts_with(spelled)).ok_or_else(bad)?;
        let value = rest.strip_prefix(spelled).unwrap_or(rest).trim();
        let value = value.trim_matches(['"', '\'']);
        let field = field.trim();
        if field.is_empty() || value.is_empty() {
            return Err(bad());
        }
        Ok(Self { field: field.to_owned(), op, value: value.to_owned() })
    }

    /// Whether a row with this cell is to be seen. One without a value is only where it is asked for what is not.
    fn keeps(&self, cell: &Cell) -> bool {
        if !cell.is_there() {
            return matches!(self.op, Op::IsNot | Op::HasNot);
        }
        let folded = |text: &str| text.to_lowercase();
        match self.op {
            Op::Has => return folded(&cell.shown()).contains(&folded(&self.value)),
            Op::HasNot => return !folded(&cell.shown()).contains(&folded(&self.value)),
            _ => {}
        }
        let order = match cell {
            // What it was rounded to.
            Cell::Single(ours) => self.value.parse::<f32>().ok().and_then(|value| ours.partial_cmp(&value)),
            cell => match cell.number() {
                Some(ours) => number(&self.value).and_then(|value| ours.partial_cmp(&value)),
                None => match cell {
                    Cell::Flag(flag) => Some(is_so(*flag, &self.value)),
                    _ => Some(cell.shown().as_str().cmp(self.value.as_str())),
                },
            },
        };
        // A number that is none is neither less nor more nor the same.
        let Some(order) = order else { return self.op == Op::IsNot };
        match self.op {
            Op::Less => order.is_lt(),
            Op::AtMost => order.is_le(),
            Op::More => order.is_gt(),
            Op::AtLeast => order.is_ge(),
            Op::Is => order.is_eq(),
            Op::IsNot => order.is_ne(),
            Op::Has | Op::HasNot => false,
        }
    }

    /// Keeps the rows of a sheet that are to be seen.
    ///
    /// # Errors
    /// A field that there is not; a number compared with what is none.
    pub fn apply(&self, sheet: &mut Sheet) -> Result<()> {
        let place = sheet.place(&self.field, "--where")?;
        let numbers = (0..sheet.len()).map(|row| sheet.cell(row, place)).find(|cell| cell.is_there());
        let compares = !matches!(self.op, Op::Has | Op::HasNot);
        if compares && numbers.is_some_and(|cell| cell.number().is_some()) && number(&self.value).is_none() {
            return Err(Error::input(format!("`{}` is a number and {:?} is none", self.field, self.value))
                .expected(EXPECTED));
        }
        sheet.retain(|row| self.keeps(row.get(place).unwrap_or(&Cell::Empty)));
        Ok(())
    }
}

/// As people write numbers: `1e9`, `2_048`.
fn number(text: &str) -> Option<f64> {
    text.replace('_', "").parse::<f64>().ok().filter(|number| !number.is_nan())
}

fn is_so(flag: bool, value: &str) -> std::cmp::Ordering {
    let wanted = matches!(value.to_ascii_lowercase().as_str(), "yes" | "true" | "1");
    flag.cmp(&wanted)
}

/// `--sort FIELD[:desc]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    field: String,
    descending: bool,
}

impl Order {
    /// Reads it.
    ///
    /// # Errors
    /// An order that is none; class `Input`.
    pub fn parse(text: &str) -> Result<Self> {
        let (field, descending) = match text.rsplit_once(':') {
            None => (text, false),
            Some((field, "asc")) => (field, false),
            Some((field, "desc")) => (field, true),
            Some((_, other)) => {
                return Err(Error::input(format!("there is no order `{other}` in --sort {text}"))
                    .expected("FIELD, FIELD:asc or FIELD:desc"));
            }
        };
        Ok(Self { field: field.to_owned(), descending })
    }

    /// The field.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Sorts a sheet.
    ///
    /// # Errors
    /// A field that there is not.
    pub fn apply(&self, sheet: &mut Sheet) -> Result<()> {
        let place = sheet.place(&self.field, "--sort")?;
        sheet.sort(place, self.descending);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeps(filter: &str, cell: &Cell) -> bool {
        Filter::parse(filter).unwrap().keeps(cell)
    }

    #[test]
    fn conditions() {
        let bpb = || Cell::Number(2.5);
        for (filter, expected) in [
            ("val_bpb<2.6", true),
            ("val_bpb<2.5", false),
            ("val_bpb<=2.5", true),
            ("val_bpb >= 2.5", true),
            ("val_bpb>2.5", false),
            ("val_bpb=2.5", true),
            ("val_bpb==2.50", true),
            ("val_bpb!=2.5", false),
            ("val_bpb<1e9", true),
        ] {
            assert_eq!(keeps(filter, &bpb()), expected, "{filter}");
            assert_eq!(keeps(filter, &Cell::Empty), filter.contains("!="), "{filter}");
        }
        let text = || Cell::Text("warmdown=sqrt".into());
        assert!(
            keeps("arm~SQRT", &text()) && !keeps("arm!~sqrt", &text()) && keeps("arm=warmdown=sqrt", &text())
        );
        assert!(keeps("finished>=2026-01", &Cell::Text("2026-02-01T00:00:00Z".into())));
        assert!(keeps("alone=true", &Cell::Flag(true)) && keeps("alone=no", &Cell::Flag(false)));
        assert!(keeps("final_loss=2.3", &Cell::Single(2.3)));
        assert!(!keeps("val_bpb<3", &Cell::Number(f64::NAN)) && keeps("val_bpb!=3", &Cell::Number(f64::NAN)));
    }

    #[test]
    fn what_is_no_condition_is_said() {
        for bad in ["", "val_bpb", "<2", "val_bpb<", "val_bpb?2", "val_bpb=''"] {
            let error = Filter::parse(bad).unwrap_err();
            assert!(error.what().contains("is no condition"), "{bad}: {error}");
        }
        assert!(Order::parse("val_bpb:down").is_err());
        assert_eq!(Order::parse("val_bpb:desc").unwrap().field(), "val_bpb");
    }
}
