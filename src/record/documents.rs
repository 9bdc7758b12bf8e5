//! `documents.parquet`: what a run's last evaluation comes to on the documents of its text. In no hash: results without it
//! are whole, only how much they owe to that text is then not known.

use super::column::{TableError, read_table, write_table};
use super::layout::{AttemptDir, RunDir};
use super::result::RunResult;
use super::tables::DocumentRow;
use crate::files::{ExactF64, FileResult, Files};
use crate::plan::evaluation::{VAL_BPB, VAL_LOSS};
use crate::train::document_losses::{DocumentLosses, GroupLosses};

/// Relative difference up to which sums that were added up in another order are the same.
const SAME: f64 = 1e-9;

/// What there is of a result's documents.
#[derive(Debug, Clone, PartialEq)]
pub enum KeptDocuments {
    /// They.
    Kept(DocumentLosses),
    /// Nothing: a version that kept none made the result, or somebody removed the file.
    Absent,
    /// A file that is not what was written; why, in words.
    Damaged(String),
}

/// Writes them, atomically, with a checksum. The same documents give the same bytes.
///
/// # Errors
/// File failures.
pub fn write_documents(
    files: &Files,
    attempt: &AttemptDir,
    losses: &DocumentLosses,
) -> Result<(), TableError> {
    let rows: Vec<DocumentRow> = losses
        .groups()
        .map(|(group, sums)| DocumentRow {
            group: u64::from(group),
            documents: sums.documents,
            targets: sums.targets,
            bytes: sums.bytes,
            nats: sums.nats.0,
            loss: sums.loss.0,
        })
        .collect();
    write_table(files, &attempt.documents(), &rows)
}

impl KeptDocuments {
    /// Of an attempt.
    pub fn read(files: &Files, attempt: &AttemptDir) -> Self {
        let path = attempt.documents();
        if !path.exists() {
            return Self::Absent;
        }
        let rows: Vec<DocumentRow> = match read_table(files, &path) {
            Ok(rows) => rows,
            Err(error) => return Self::Damaged(error.to_string()),
        };
        let groups = rows.iter().map(|row| {
            let sums = GroupLosses {
                documents: row.documents,
                targets: row.targets,
                bytes: row.bytes,
                nats: ExactF64(row.nats),
                loss: ExactF64(row.loss),
            };
            (u32::try_from(row.group).unwrap_or(u32::MAX), sums)
        });
        match DocumentLosses::of(groups) {
            Some(losses) => Self::Kept(losses),
            None => Self::Damaged(format!("the table `{}` has groups that are none", path.display())),
        }
    }

    /// Of the attempt that a result is from: the first whose documents come to the result's own values.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn of_result(files: &Files, run: &RunDir, result: &RunResult) -> FileResult<Self> {
        let mut found = Self::Absent;
        for attempt in run.attempts()? {
            match Self::read(files, &attempt) {
                Self::Kept(losses) if are_of(&losses, result) => return Ok(Self::Kept(losses)),
                Self::Absent | Self::Kept(_) => {}
                damaged @ Self::Damaged(_) => {
                    if found == Self::Absent {
                        found = damaged;
                    }
                }
            }
        }
        Ok(found)
    }
}

/// Whether these documents come to the values of a result.
fn are_of(losses: &DocumentLosses, result: &RunResult) -> bool {
    let same = |ours: f64, metric: &str| {
        result.final_value(metric).is_none_or(|theirs| (ours - theirs).abs() <= SAME * theirs.abs())
    };
    losses.values().is_some_and(|(bpb, loss)| same(bpb, VAL_BPB) && same(loss, VAL_LOSS))
}
