//! A checkpoint as the start of a run: which files are taken over, and what their digest is.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::directory::UpstreamCheckpoint;
use super::meta::{LoaderState, Meta};
use super::optimizer;
use crate::data::Position;
use crate::error::{Error, Result};
use crate::hash::{Canonical, Digest};
use crate::model::param::ParamSpec;
use crate::tensors::SingleTensor;

/// Bytes that are hashed at a time.
const PIECE: usize = 1 << 20;

impl UpstreamCheckpoint {
    /// The files that a run takes over: the model's alone, or, where it is trained on, metadata and optimizer too.
    ///
    /// # Errors
    /// An optimizer that is not there; class `Input`.
    pub fn files(&self, resumes: bool) -> Result<Vec<PathBuf>> {
        if !resumes {
            return Ok(vec![self.model()]);
        }
        let optimizer = self.optimizer();
        if optimizer.is_empty() {
            return Err(Error::input("the optimizer's state is not beside this checkpoint")
                .file(&self.dir)
                .expected(format!("optim_{:06}_rank0.pt, and those of the other ranks", self.step))
                .help("take over its weights alone: model.init = { checkpoint = \"...\" }"));
        }
        Ok([self.model(), self.meta()].into_iter().chain(optimizer).collect())
    }

    /// Digest of those files, in their order.
    ///
    /// # Errors
    /// A file that cannot be read; class `Input`. A stop asked for meanwhile.
    pub fn digest(&self, resumes: bool) -> Result<Digest> {
        let mut canonical = Canonical::new("nanorun foreign checkpoint");
        for path in self.files(resumes)? {
            canonical.digest("file", &digest_of(&path)?);
        }
        Ok(canonical.finish())
    }

    /// The optimizer's state, by nanorun's names.
    ///
    /// # Errors
    /// State that is not of this model, this step, or all ranks; class `Input`.
    pub fn optimizer_state(&self, specs: &[ParamSpec]) -> Result<Vec<SingleTensor<'static>>> {
        optimizer::read(&self.optimizer(), specs, self.step)
    }

    /// Where the data go on: after the row group that was read last, as upstream's own resume does.
    ///
    /// # Errors
    /// Metadata that cannot be read; class `Input`.
    pub fn position(&self) -> Result<Option<Position>> {
        let meta = Meta::read(&self.meta())?;
        Ok(meta.dataloader_state_dict.map(|LoaderState { pq_idx, rg_idx, epoch }| Position {
            epoch,
            file: pq_idx,
            group: rg_idx.saturating_add(1),
            batch: 0,
        }))
    }
}

fn digest_of(path: &Path) -> Result<Digest> {
    let cannot =
        |error: std::io::Error| Error::input("cannot read a checkpoint's file").file(path).because(error);
    let mut file = File::open(path).map_err(cannot)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        crate::stop::check()?;
        match file.read(&mut piece).map_err(cannot)? {
            0 => return Ok(Digest::from(<[u8; 32]>::from(hash.finalize()))),
            len => hash.update(piece.get(..len).unwrap_or_default()),
        }
    }
}
