//! How often a run reads its data: what a budget of hundreds of epochs looks like before it is spent.

use serde::{Deserialize, Serialize};

/// How much text a run's splits hold and how often it goes through them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DataUse {
    /// Over the whole run.
    pub train: SplitUse,
    /// Over one evaluation.
    pub validation: SplitUse,
}

/// One split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SplitUse {
    /// Files, or parts of one.
    pub files: usize,
    /// Documents.
    pub documents: u64,
    /// UTF-8 bytes of its documents.
    pub bytes: u64,
    /// Whether `bytes` is what the first documents have, over all.
    pub bytes_are_estimated: bool,
    /// How many times all documents are read.
    pub epochs: f64,
    /// Whether `epochs` goes by the documents that rows of the first ones take.
    pub epochs_are_estimated: bool,
}

impl DataUse {
    /// What a plan says of it.
    pub(super) fn line(&self) -> String {
        format!(
            "{}, read {}; validation on {}, of which an evaluation reads {}",
            self.train.size(),
            self.train.times(),
            self.validation.size(),
            self.validation.times()
        )
    }

    /// What is probably not meant.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.train.epochs > 1.0 {
            let times = self.train.times();
            warnings.push(format!(
                "the training text is read {times}: more shards or a smaller budget avoid that"
            ));
        }
        if self.validation.epochs > 1.0 {
            let times = self.validation.times();
            warnings.push(format!(
                "an evaluation reads the validation split {times}: eval.tokens goes beyond it"
            ));
        }
        warnings
    }
}

impl SplitUse {
    /// How much it is.
    pub(crate) fn size(&self) -> String {
        let about = if self.bytes_are_estimated { "about " } else { "" };
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        format!(
            "{} document{} ({about}{}) in {} file{}",
            self.documents,
            plural(self.documents),
            bytes(self.bytes),
            self.files,
            plural(self.files as u64)
        )
    }

    /// How often it is read.
    pub(crate) fn times(&self) -> String {
        let about = if self.epochs_are_estimated { "about " } else { "" };
        match self.epochs {
            few if few < 0.01 => "less than 0.01 times".to_owned(),
            few if few < 10.0 => format!("{about}{few:.2} times"),
            many => format!("{about}{many:.0} times"),
        }
    }
}

/// `5.1 MB`.
fn bytes(bytes: u64) -> String {
    let value = bytes as f64;
    for (limit, unit) in [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")] {
        if value >= limit {
            return format!("{:.1} {unit}", value / limit);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_told_and_above_one_warned_of() {
        let split = |epochs| SplitUse {
            files: 2,
            documents: 1200,
            bytes: 5_120_000,
            bytes_are_estimated: true,
            epochs,
            epochs_are_estimated: true,
        };
        let once = DataUse { train: split(0.25), validation: SplitUse { files: 1, ..split(0.001) } };
        assert_eq!(
            once.line(),
            "1200 documents (about 5.1 MB) in 2 files, read about 0.25 times; validation on 1200 documents (about \
             5.1 MB) in 1 file, of which an evaluation reads less than 0.01 times"
        );
        assert!(once.warnings().is_empty());
        let often = DataUse { train: split(312.4), validation: split(1.5) };
        assert_eq!(
            often.warnings(),
            [
                "the training text is read about 312 times: more shards or a smaller budget avoid that",
                "an evaluation reads the validation split about 1.50 times: eval.tokens goes beyond it",
            ]
        );
    }
}
