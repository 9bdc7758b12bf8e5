//! `optim_*_rank*.pt` as upstream's ranks save them, each its part; [`super::optimizer`] puts them together again.

use std::borrow::Cow;

use super::optimizer::{WHOLE_BELOW, groups};
use crate::error::{Error, Result};
use crate::interop::exported::{Exported, Tensor};
use crate::model::param::{ParamGroup, ParamSpec};
use crate::optim::config::{AdamWConfig, GroupConfig, MuonConfig};
use crate::torch_file::Saved;

/// The state of all ranks: Muon's buffers stacked.
pub(super) struct SavedOptimizer {
    ranks: usize,
    /// By upstream's number of the parameter.
    state: Vec<(i64, Vec<State>)>,
    /// Settings, multiplier of the learning rate, and numbers of the parameters.
    groups: Vec<(GroupConfig, f64, Vec<i64>)>,
    steps: i64,
    momentum: f64,
    weight_decay: f64,
}

/// One tensor of it.
struct State {
    name: &'static str,
    shape: Vec<usize>,
    values: Vec<f32>,
    /// Whether each rank has its part of the first dimension; else every rank has it whole.
    divided: bool,
}

/// What one rank has of a tensor.
struct Part<'s> {
    name: &'static str,
    shape: Vec<usize>,
    values: Cow<'s, [f32]>,
}

/// What one rank has, by upstream's numbers.
pub(super) struct Parts<'s>(Vec<(i64, Vec<Part<'s>>)>);

impl State {
    /// Equal parts, of which the last ones are filled up with zeros, as upstream fills up Muon's stacks.
    fn of_rank(&self, rank: usize, ranks: usize) -> Part<'_> {
        let (name, mut shape) = (self.name, self.shape.clone());
        let Some(first) = shape.first_mut().filter(|_| self.divided) else {
            return Part { name, shape, values: Cow::Borrowed(&self.values) };
        };
        *first = first.div_ceil(ranks);
        let len = shape.iter().product::<usize>();
        let own = self.values.chunks(len.max(1)).nth(rank).unwrap_or_default();
        let mut values = Cow::Borrowed(own);
        if own.len() < len {
            values.to_mut().resize(len, 0.0);
        }
        Part { name, shape, values }
    }
}

impl SavedOptimizer {
    /// The state of a model, for `ranks` ranks.
    ///
    /// # Errors
    /// State that is not there; ranks that do not divide a parameter's rows as upstream does; class `Input`.
    pub(super) fn new(exported: &Exported<'_>, specs: &[ParamSpec], ranks: usize) -> Result<Self> {
        let config = exported.config;
        // What the last step consumed.
        let taken = exported.step.saturating_sub(config.schedule.steps_before);
        let values = config.schedule.step_values(taken.saturating_sub(1));
        let (mut found, mut number) = (Vec::new(), 0_i64);
        for group in groups(specs) {
            let by = config.optimizer.groups.iter().find(|(kind, _)| *kind == group.group);
            let (_, by) =
                by.ok_or_else(|| Error::internal(format!("no optimizer for group {:?}", group.group)))?;
            let numbers: Vec<i64> = (number..).take(group.params.len()).collect();
            number += numbers.len() as i64;
            found.push((by.clone(), values.lr_multiplier, numbers));
        }
        Ok(Self {
            ranks,
            state: state(&exported.optimizer, specs, ranks)?,
            groups: found,
            steps: exported.step as i64,
            momentum: values.muon_momentum,
            weight_decay: values.muon_weight_decay,
        })
    }

    /// How many files there are.
    pub(super) fn ranks(&self) -> usize {
        self.ranks
    }

    /// What one rank has of it.
    pub(super) fn parts(&self, rank: usize) -> Parts<'_> {
        parts(&self.state, rank, self.ranks)
    }

    /// What a rank saves.
    pub(super) fn saved<'s>(&'s self, parts: &'s Parts<'_>) -> Saved<'s> {
        let groups = self.groups.iter().map(|(config, multiplier, numbers)| {
            let float = |name: &'static str, value: f64| (Saved::Str(name), Saved::Float(value));
            let mut fields = match config {
                GroupConfig::Adamw(AdamWConfig { lr, beta1, beta2, eps, weight_decay }) => vec![
                    (Saved::Str("kind"), Saved::Str("adamw")),
                    float("lr", lr * multiplier),
                    (
                        Saved::Str("betas"),
                        Saved::Pair(Box::new([Saved::Float(*beta1), Saved::Float(*beta2)])),
                    ),
                    float("eps", *eps),
                    float("weight_decay", *weight_decay),
                    float("initial_lr", *lr),
                ],
                GroupConfig::Muon(MuonConfig { lr, beta2, ns_steps, .. }) => vec![
                    (Saved::Str("kind"), Saved::Str("muon")),
                    float("lr", lr * multiplier),
                    float("momentum", self.momentum),
                    (Saved::Str("ns_steps"), Saved::Int(*ns_steps as i64)),
                    float("beta2", *beta2),
                    float("weight_decay", self.weight_decay),
                    float("initial_lr", *lr),
                ],
                GroupConfig::Sgd(_) => Vec::new(),
            };
            let numbers = numbers.iter().map(|&number| Saved::Int(number)).collect();
            fields.push((Saved::Str("params"), Saved::List(numbers)));
            Saved::Dict(fields)
        });
        Saved::Dict(vec![
            (Saved::Str("state"), saved_state(parts, self.steps)),
            (Saved::Str("param_groups"), Saved::List(groups.collect())),
        ])
    }
}

fn parts(state: &[(i64, Vec<State>)], rank: usize, ranks: usize) -> Parts<'_> {
    let mut found = Vec::with_capacity(state.len());
    for (number, tensors) in state {
        found.push((*number, tensors.iter().map(|tensor| tensor.of_rank(rank, ranks)).collect()));
    }
    Parts(found)
}

/// The field `state` of one rank's file.
fn saved_state<'s>(parts: &'s Parts<'_>, steps: i64) -> Saved<'s> {
    let mut state = Vec::new();
    for (number, tensors) in &parts.0 {
        let mut fields = Vec::new();
        if tensors.iter().any(|tensor| tensor.name == "exp_avg") {
            fields.push((Saved::Str("step"), Saved::Int(steps)));
        }
        fields.extend(
            tensors
                .iter()
                .map(|tensor| (Saved::Str(tensor.name), Saved::Tensor(tensor.shape.clone(), &tensor.values))),
        );
        state.push((Saved::Int(*number), Saved::Dict(fields)));
    }
    Saved::Dict(state)
}

/// The tensors of nanorun's names, as upstream numbers and divides them.
fn state(optimizer: &[Tensor<'_>], specs: &[ParamSpec], ranks: usize) -> Result<Vec<(i64, Vec<State>)>> {
    let find = |name: String| {
        let (_, shape, values) = Exported::find(optimizer, &name)
            .ok_or_else(|| Error::input(format!("the checkpoint lacks the optimizer state `{name}`")))?;
        if shape.iter().product::<usize>() != values.len() {
            return Err(Error::internal(format!("`{name}` has not as many values as its shape")));
        }
        Ok((shape, values))
    };
    let (mut found, mut number) = (Vec::new(), 0_i64);
    for group in groups(specs) {
        if group.group == ParamGroup::Matrix {
            let mut buffers = Vec::new();
            for name in ["momentum_buffer", "second_momentum_buffer"] {
                let (mut shape, mut values) = (vec![group.params.len()], Vec::new());
                for &index in &group.params {
                    let (one, of_one) = find(format!("{}.{name}", specs[index].name))?;
                    if shape.len() > 1 && shape[1..] != one[..] {
                        let what = format!("`{}.{name}` is not shaped as those beside it", specs[index].name);
                        return Err(Error::input(what));
                    }
                    shape.truncate(1);
                    shape.extend(one);
                    values.extend_from_slice(of_one);
                }
                buffers.push(State { name, shape, values, divided: ranks > 1 });
            }
            found.push((number, buffers));
            number += group.params.len() as i64;
            continue;
        }
        for &index in &group.params {
            let spec = &specs[index];
            let divided = ranks > 1 && spec.numel() >= WHOLE_BELOW;
            if let Some(rows) = spec.shape.first().filter(|rows| divided && !rows.is_multiple_of(ranks)) {
                return Err(Error::input(format!(
                    "{ranks} ranks do not divide the {rows} rows of `{}`, of whose moments upstream gives each a slice",
                    spec.name
                ))
                .expected(format!("a number of ranks that divides {rows}"))
                .help("give one as --ranks, at the least --ranks 1"));
            }
            let mut moments = Vec::new();
            for name in ["exp_avg", "exp_avg_sq"] {
                let (shape, values) = find(format!("{}.{name}", spec.name))?;
                if *shape != spec.shape {
                    return Err(Error::input(format!(
                        "`{}.{name}` is not shaped as its parameter",
                        spec.name
                    )));
                }
                moments.push(State { name, shape: shape.clone(), values: values.to_vec(), divided });
            }
            found.push((number, moments));
            number += 1;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::optimizer::{read, tests::specs_of};
    use super::*;
    use crate::pickle::{Node, NodeId};
    use crate::torch_file::{TorchFile, save};

    /// Names and shapes of the tensors in a file's state, by upstream's numbers, and what else there is in it.
    fn shapes(path: &Path) -> Vec<(i64, String, Option<Vec<usize>>)> {
        let mut file = TorchFile::open(path).unwrap();
        let pickle = file.pickle();
        let Some(Node::Dict(items)) = pickle.get(pickle.root(), "state") else { panic!("no state") };
        let mut nodes = Vec::new();
        for (number, fields) in items {
            let (Node::Int(number), Node::Dict(fields)) = (pickle.node(*number), pickle.node(*fields)) else {
                panic!("another kind")
            };
            for (name, value) in fields {
                let Node::Str(name) = pickle.node(*name) else { panic!("another kind") };
                nodes.push((*number, name.clone(), *value));
            }
        }
        nodes.sort();
        let shape = |(number, name, node): (i64, String, NodeId)| {
            let shape = file.tensor(&name, node).ok().map(|tensor| tensor.shape);
            (number, name, shape)
        };
        nodes.into_iter().map(shape).collect()
    }

    /// Upstream's state of one rank, divided over four, has the shapes of what four of upstream's ranks save, and makes
    /// the same again.
    #[test]
    fn ranks_have_what_upstreams_have() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/optimizer_ranks");
        let config = std::fs::read(directory.join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let (specs, steps) = (specs_of(&config), config["steps"].as_u64().unwrap());
        let one = read(&[directory.join("one_rank0.pt")], &specs, steps).unwrap();
        let tensors: Vec<Tensor<'_>> =
            one.iter().map(|t| (t.name.clone(), t.shape.clone(), t.values.wide())).collect();
        let place = tempfile::tempdir().unwrap();
        let groups = || {
            let one = |group: &super::super::optimizer::Group| {
                let params = group.params.iter().map(|_| Saved::Int(0)).collect();
                Saved::Dict(vec![(Saved::Str("params"), Saved::List(params))])
            };
            Saved::List(groups(&specs).iter().map(one).collect())
        };
        for ranks in [1, 2, 4] {
            let state = state(&tensors, &specs, ranks).unwrap();
            let paths: Vec<_> =
                (0..ranks).map(|rank| place.path().join(format!("{ranks}_{rank}.pt"))).collect();
            for (rank, path) in paths.iter().enumerate() {
                let parts = parts(&state, rank, ranks);
                let state = saved_state(&parts, steps as i64);
                let file =
                    Saved::Dict(vec![(Saved::Str("state"), state), (Saved::Str("param_groups"), groups())]);
                save(std::fs::File::create(path).unwrap(), &file).unwrap();
                let theirs = match ranks {
                    1 => directory.join("one_rank0.pt"),
                    4 => directory.join(format!("four_rank{rank}.pt")),
                    _ => continue,
                };
                let shapes = [path, &theirs].map(|path| shapes(path));
                assert!(shapes[0].iter().any(|(.., shape)| shape.is_some()));
                assert_eq!(shapes[0], shapes[1], "rank {rank} of {ranks}");
            }
            let again = read(&paths, &specs, steps).unwrap();
            assert_eq!(again.len(), one.len());
            for (again, one) in again.iter().zip(&one) {
                assert_eq!((&again.name, &again.shape), (&one.name, &one.shape));
                assert!(again.values == one.values, "{} of {ranks} ranks", one.name);
            }
        }
        let refused = state(&tensors, &specs, 3).err().unwrap();
        assert!(refused.what().starts_with("3 ranks do not divide the 64 rows of `"), "{refused}");
        assert_eq!(refused.class().exit_code(), 2);
    }
}
