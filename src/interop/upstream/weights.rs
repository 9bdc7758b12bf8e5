//! `model_*.pt`: parameters by name, read one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::{Error, Result};
use crate::model::param::ParamSpec;
use crate::pickle::Node;
use crate::torch_file::{Dtype, Tensor, TorchFile};

/// What torch.compile puts before every name.
const COMPILED: &str = "_orig_mod.";

/// The token embedding, which upstream stores in what it computes in.
pub const TOKEN_TABLE: &str = "transformer.wte.weight";

/// What upstream's own loader gives models from before these parameters were there.
const ADDED_SINCE: [(&str, f32); 2] = [("resid_lambdas", 1.0), ("x0_lambdas", 0.0)];

/// The parameters of a checkpoint.
#[derive(Debug)]
pub struct Weights {
    file: TorchFile,
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// Opens the file and reads names and shapes.
    ///
    /// # Errors
    /// A file that is no state dict of floats, or has a name twice; class `Input`.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = TorchFile::open(path)?;
        let no_state = |what: &str| {
            Error::input(format!("this is no model of upstream's: {what}"))
                .file(path)
                .expected("a state dict: parameters by their names")
        };
        let Node::Dict(items) = file.pickle().root().clone() else {
            return Err(no_state("it holds something other than a dict"));
        };
        let mut tensors = BTreeMap::new();
        for (key, value) in items {
            let Node::Str(name) = file.pickle().node(key) else {
                return Err(no_state("a key of it is no text"));
            };
            let name = name.strip_prefix(COMPILED).unwrap_or(name).to_owned();
            let tensor = file.tensor(&name, value)?;
            if tensors.contains_key(&name) {
                return Err(no_state(&format!("the parameter `{name}` is there twice")));
            }
            tensors.insert(name, tensor);
        }
        Ok(Self { file, tensors })
    }

    /// The shape of a parameter, where it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| tensor.shape.as_slice())
    }

    /// Whether a parameter is stored in bfloat16, where it is there.
    pub fn is_bf16(&self, name: &str) -> bool {
        self.tensors.get(name).is_some_and(|tensor| tensor.dtype == Dtype::Bf16)
    }

    /// Whether any parameter's name begins so.
    pub(super) fn has_any(&self, prefix: &str) -> bool {
        self.tensors.keys().any(|name| name.starts_with(prefix))
    }

    /// Checks that these are exactly a model's parameters, in name and shape.
    ///
    /// # Errors
    /// Parameters that are missing, unknown or of another shape: which, and how many; class `Input`.
    pub fn check(&self, specs: &[ParamSpec]) -> Result<()> {
        let error = |what: String| Error::input(what).file(self.file.path());
        let known: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let unknown: Vec<&str> =
            self.tensors.keys().map(String::as_str).filter(|name| !known.contains(name)).collect();
        let added = |name: &str| ADDED_SINCE.iter().any(|(since, _)| *since == name);
        let missing: Vec<&str> = specs
            .iter()
            .map(|spec| spec.name.as_str())
            .filter(|name| !self.tensors.contains_key(*name) && !added(name))
            .collect();
        for (names, what) in
            [(unknown, "the model has no parameter"), (missing, "the checkpoint lacks the parameter")]
        {
            if let Some(first) = names.first() {
                let others = match names.len() - 1 {
                    0 => String::new(),
                    others => format!(", and {others} more"),
                };
                return Err(error(format!("{what} `{first}`{others}"))
                    .expected(format!("the {} parameters of this configuration", specs.len()))
                    .help("nothing of it was loaded: it is of another commit (--commit) or has other features (--set)"));
            }
        }
        for spec in specs {
            if let Some(shape) = self.shape(&spec.name).filter(|shape| *shape != spec.shape) {
                return Err(error(format!("the parameter `{}` has shape {shape:?}", spec.name))
                    .expected(format!("{:?} by the metadata beside it", spec.shape)));
            }
        }
        Ok(())
    }

    /// The values of a parameter in single precision; what upstream has added since, as its own loader fills it in.
    ///
    /// # Errors
    /// A parameter that is not there, values that cannot be read; class `Input`.
    pub fn values(&mut self, spec: &ParamSpec) -> Result<Vec<f32>> {
        match self.tensors.get(&spec.name) {
            Some(tensor) => self.file.f32(tensor),
            None => match ADDED_SINCE.iter().find(|(name, _)| *name == spec.name) {
                Some((_, value)) => Ok(vec![*value; spec.numel()]),
                None => Err(Error::input(format!("the checkpoint lacks the parameter `{}`", spec.name))
                    .file(self.file.path())),
            },
        }
    }
}
