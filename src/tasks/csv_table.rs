//! `eval_meta_data.csv`: how often guessing is right, by task.

use std::collections::BTreeMap;

/// The column of labels, and that of what guessing reaches, in percent.
const COLUMNS: [&str; 2] = ["Eval Task", "Random baseline"];

/// Fields of a record at most: upstream's have eight.
const MOST_FIELDS: usize = 256;

/// Percent by label.
///
/// # Errors
/// What is wrong with it, in words, and the line where that is known.
pub(super) fn read(bytes: &[u8]) -> Result<BTreeMap<String, f64>, (String, Option<usize>)> {
    let mut records = Records::of(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
    let (_, head) = records.next().transpose()?.ok_or_else(|| ("it is empty".to_owned(), None))?;
    let mut places = [0; 2];
    for (place, column) in places.iter_mut().zip(COLUMNS) {
        let found = head.iter().position(|name| name == column);
        *place = found.ok_or_else(|| (format!("it has no column `{column}`"), Some(1)))?;
    }
    let mut baselines = BTreeMap::new();
    for record in records {
        let (line, fields) = record?;
        let [label, baseline] = places.map(|place| fields.get(place).map_or("", String::as_str));
        // Of 100 there is nothing left to be better by.
        let percent = baseline.trim().parse::<f64>().ok().filter(|percent| (0.0..100.0).contains(percent));
        let Some(percent) = percent else {
            let what = format!("the random baseline of `{label}` is {baseline:?}, not 0 to below 100");
            return Err((what, Some(line)));
        };
        // As Python's dictionary does it, the last of several counts.
        baselines.insert(label.to_owned(), percent);
    }
    Ok(baselines)
}

/// The records of a table, each with the line that it begins in.
struct Records<'a> {
    reader: csv_core::Reader,
    rest: &'a [u8],
    /// Room for the text of a record: none is longer than the table.
    text: Vec<u8>,
    /// Room for the ends of its fields.
    ends: [usize; MOST_FIELDS],
}

impl<'a> Records<'a> {
    fn of(rest: &'a [u8]) -> Self {
        let (text, ends) = (vec![0; rest.len()], [0; MOST_FIELDS]);
        Self { reader: csv_core::Reader::new(), rest, text, ends }
    }
}

impl Iterator for Records<'_> {
    type Item = Result<(usize, Vec<String>), (String, Option<usize>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let (mut texts, mut fields) = (0, 0);
        let line = usize::try_from(self.reader.line()).unwrap_or(usize::MAX);
        loop {
            let (text, ends) = (self.text.get_mut(texts..)?, self.ends.get_mut(fields..)?);
            let (found, read, written, ended) = self.reader.read_record(self.rest, text, ends);
            self.rest = self.rest.get(read..).unwrap_or_default();
            (texts, fields) = (texts + written, fields + ended);
            match found {
                // An empty input is the end of the last record.
                csv_core::ReadRecordResult::InputEmpty => {}
                csv_core::ReadRecordResult::Record => break,
                csv_core::ReadRecordResult::End => return None,
                csv_core::ReadRecordResult::OutputFull | csv_core::ReadRecordResult::OutputEndsFull => {
                    return Some(Err(("a record of it is too long".to_owned(), Some(line))));
                }
            }
        }
        let mut start = 0;
        let text = &self.text;
        let fields = self.ends.iter().take(fields).map(|&end| {
            let field = text.get(start..end).unwrap_or_default().to_vec();
            start = end;
            String::from_utf8(field).map_err(|_| ("it is not UTF-8".to_owned(), Some(line)))
        });
        Some(fields.collect::<Result<_, _>>().map(|fields: Vec<String>| (line, fields)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_fields_and_further_columns_are_passed_over() {
        let text = "Eval Task,Task Category,Random baseline,Description\nboolq,\"a, b\",62,\"line\nbreak\"\nx,,0.5,\n";
        let found = read(text.as_bytes()).unwrap();
        assert_eq!(found, BTreeMap::from([("boolq".to_owned(), 62.0), ("x".to_owned(), 0.5)]));
    }

    #[test]
    fn what_is_refused() {
        for (text, told, line) in [
            ("Eval Task,Other\n", "no column `Random baseline`", 1),
            ("Eval Task,Random baseline\na,many\n", "`a` is \"many\"", 2),
            ("Eval Task,Random baseline\na,1\nb\n", "`b` is \"\"", 3),
            ("Eval Task,Random baseline\na,100\n", "100", 2),
            ("Eval Task,Random baseline\na,nan\n", "nan", 2),
        ] {
            let (what, at) = read(text.as_bytes()).unwrap_err();
            assert!(what.contains(told), "{what}");
            assert_eq!(at, Some(line));
        }
        assert!(read(b"Eval Task,Random baseline\n\xff,1\n").is_err());
    }
}
