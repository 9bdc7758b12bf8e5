//! A results directory belongs to one experiment: two manifests of one name would replace each other's plan and tables.

use std::path::{Path, PathBuf};

use super::Experiment;
use crate::error::{Error, Result};
use crate::record::PlanRecord;
use crate::toml_text;

/// Another manifest of the same name whose results these are.
pub(super) struct OtherOwner {
    manifest: PathBuf,
    dir: PathBuf,
}

impl OtherOwner {
    /// In words, for who only reads.
    pub(super) fn note(&self) -> String {
        format!(
            "`{}` holds the results of another manifest of this name, {}: its runs are listed where they are these too",
            self.dir.display(),
            self.manifest.display()
        )
    }

    fn error(&self, this: &Path) -> Error {
        let what =
            format!("the directory holds the results of another manifest, {}", self.manifest.display());
        Error::input(what)
            .file(&self.dir)
            .expected(format!("a directory of its own for {}", this.display()))
            .help("give it another name, as with --set name=NAME, or another place with --results DIR")
    }
}

impl Experiment {
    /// The other manifest that the results belong to; none where they are this one's or nobody's. A manifest that was
    /// moved, or is there in two equal copies, is one manifest.
    pub(super) fn other_owner(&self) -> Option<OtherOwner> {
        let record = PlanRecord::read(&self.files, &self.dir).ok()?;
        let then = PathBuf::from(&record.manifest);
        let then = match &record.directory {
            Some(directory) => Path::new(directory).join(then),
            None => then,
        };
        // One that is gone is nobody's.
        let (theirs, ours) = (then.canonicalize().ok()?, self.manifest.file.canonicalize().ok()?);
        if theirs == ours {
            return None;
        }
        let text = self.files.read_if_there(&theirs).ok()??;
        let named = toml_text::from_slice::<toml::Table>(&text).ok()?;
        let is_of_this_name = named.get("name").and_then(toml::Value::as_str) == Some(record.name.as_str());
        (is_of_this_name && text != self.manifest.text.as_bytes())
            .then(|| OtherOwner { manifest: then, dir: self.dir.path().to_owned() })
    }

    /// Refuses to replace what another manifest of this name left.
    ///
    /// # Errors
    /// There is one.
    pub(super) fn require_own_directory(&self) -> Result<()> {
        match self.other_owner() {
            Some(other) => Err(other.error(&self.manifest.file)),
            None => Ok(()),
        }
    }

    /// That the directory is another manifest's, for a plan; none where it is not.
    pub fn not_its_own(&self) -> Option<String> {
        self.other_owner().map(|other| other.error(&self.manifest.file).what().to_owned())
    }
}
