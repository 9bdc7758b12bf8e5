//! `optim_*_rank*.pt`: the optimizer's state, put together from the ranks that it is divided over.
//!
//! Upstream numbers parameters by optimizer group. AdamW's moments of a parameter of 1,024 values or more are sliced
//! along the first dimension, a slice a rank; smaller ones every rank has whole. Muon's buffers of all matrices of one
//! shape are one stack, divided into chunks of equal length, the last padded.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::model::param::{ParamGroup, ParamSpec};
use crate::pickle::{Node, NodeId};
use crate::tensors::SingleTensor;
use crate::torch_file::TorchFile;

/// Values of a parameter below which every rank has all of AdamW's moments.
pub(super) const WHOLE_BELOW: usize = 1024;

/// A group of upstream's optimizer: indices into the specs, in upstream's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) group: ParamGroup,
    pub(super) params: Vec<usize>,
}

/// Upstream's groups: one each of AdamW, then one a shape of Muon, by shape.
pub(super) fn groups(specs: &[ParamSpec]) -> Vec<Group> {
    let of = |wanted: ParamGroup| {
        specs.iter().enumerate().filter(move |(_, spec)| spec.group == wanted).map(|(index, _)| index)
    };
    let mut found: Vec<Group> =
        [ParamGroup::LmHead, ParamGroup::Wte, ParamGroup::ValueEmbeds, ParamGroup::Resid, ParamGroup::X0]
            .map(|group| Group { group, params: of(group).collect() })
            .to_vec();
    // Its gate first, then the lambdas.
    let mut smear: Vec<usize> = of(ParamGroup::Smear).collect();
    smear.sort_by_key(|&index| specs[index].shape.len() < 2);
    if !smear.is_empty() {
        found.push(Group { group: ParamGroup::Smear, params: smear });
    }
    let mut matrices: BTreeMap<&[usize], Vec<usize>> = BTreeMap::new();
    for index in of(ParamGroup::Matrix) {
        matrices.entry(&specs[index].shape).or_default().push(index);
    }
    found.extend(matrices.into_values().map(|params| Group { group: ParamGroup::Matrix, params }));
    found
}

/// One rank's file.
struct Rank {
    file: TorchFile,
    /// State of the parameters that have one, by upstream's number.
    state: BTreeMap<i64, BTreeMap<String, NodeId>>,
}

impl Rank {
    fn open(path: &Path, groups: &[Group]) -> Result<Self> {
        let file = TorchFile::open(path)?;
        let pickle = file.pickle();
        let unknown = |what: &str| {
            Error::input(format!("this is no state of upstream's optimizer: {what}"))
                .file(path)
                .expected("optim_NNNNNN_rankN.pt as base_train writes it")
        };
        let Some(Node::List(found)) = pickle.get(pickle.root(), "param_groups") else {
            return Err(unknown("it has no list of groups"));
        };
        let counts: Vec<Option<usize>> = found
            .iter()
            .map(|group| match pickle.get(pickle.node(*group), "params") {
                Some(Node::List(params)) => Some(params.len()),
                _ => None,
            })
            .collect();
        let expected: Vec<Option<usize>> = groups.iter().map(|group| Some(group.params.len())).collect();
        if counts != expected {
            let text = |counts: &[Option<usize>]| {
                counts.iter().map(|count| count.unwrap_or(0).to_string()).collect::<Vec<_>>().join(", ")
            };
            let what =
                format!("its groups have {} parameters, the model's {}", text(&counts), text(&expected));
            return Err(unknown(&what));
        }
        let Some(Node::Dict(items)) = pickle.get(pickle.root(), "state") else {
            return Err(unknown("it has no state"));
        };
        let mut state = BTreeMap::new();
        for (key, value) in items {
            let (Node::Int(number), Node::Dict(fields)) = (pickle.node(*key), pickle.node(*value)) else {
                return Err(unknown("a state of it is of another kind"));
            };
            let named = fields.iter().filter_map(|(name, value)| match pickle.node(*name) {
                Node::Str(name) => Some((name.clone(), *value)),
                _ => None,
            });
            state.insert(*number, named.collect());
        }
        Ok(Self { file, state })
    }

    /// A tensor of a parameter's state, with its shape.
    fn tensor(&mut self, number: i64, name: &str, parameter: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let full = format!("{parameter}.{name}");
        let found = self.state.get(&number).and_then(|state| state.get(name)).copied();
        let node = found.ok_or_else(|| {
            Error::input(format!("the optimizer's state lacks `{full}`")).file(self.file.path())
        })?;
        let tensor = self.file.tensor(&full, node)?;
        let values = self.file.f32(&tensor)?;
        Ok((tensor.shape, values))
    }

    /// Updates that AdamW has made to a parameter.
    fn steps(&self, number: i64) -> Option<i64> {
        let node = *self.state.get(&number)?.get("step")?;
        match self.file.pickle().node(node) {
            Node::Int(steps) => Some(*steps),
            _ => None,
        }
    }
}

/// The optimizer's state after `step` steps, by nanorun's names, from the files of all ranks.
///
/// # Errors
/// Files of another model, of another step, of more or fewer ranks; class `Input`.
pub(super) fn read(
    files: &[impl AsRef<Path>],
    specs: &[ParamSpec],
    step: u64,
) -> Result<Vec<SingleTensor<'static>>> {
    let groups = groups(specs);
    let mut ranks =
        files.iter().map(|path| Rank::open(path.as_ref(), &groups)).collect::<Result<Vec<_>>>()?;
    let mut states = Vec::new();
    let mut number = 0;
    for group in &groups {
        if group.group == ParamGroup::Matrix {
            states.extend(stacked(&mut ranks, number, group, specs)?);
            number += group.params.len() as i64;
            continue;
        }
        for &index in &group.params {
            let spec = &specs[index];
            for rank in &ranks {
                let steps = rank.steps(number);
                if steps != i64::try_from(step).ok() {
                    let found = steps.map_or_else(|| "no".to_owned(), |steps| steps.to_string());
                    let what =
                        format!("the optimizer has made {found} updates to `{}`, not {step}", spec.name);
                    return Err(Error::input(what).file(rank.file.path()));
                }
            }
            for name in ["exp_avg", "exp_avg_sq"] {
                states.push(sliced(&mut ranks, number, name, spec)?);
            }
            number += 1;
        }
    }
    Ok(states)
}

fn misfit(rank: &Rank, name: &str, found: &[usize], ranks: usize) -> Error {
    Error::input(format!("the optimizer's state `{name}` has shape {found:?} in a file of {ranks} ranks"))
        .file(rank.file.path())
        .help("bring the files of all ranks: optim_NNNNNN_rank0.pt, rank1 and so on")
}

/// A moment of AdamW: whole with every rank, or a slice with each.
fn sliced(ranks: &mut [Rank], number: i64, name: &str, spec: &ParamSpec) -> Result<SingleTensor<'static>> {
    let count = ranks.len();
    let full = format!("{}.{name}", spec.name);
    let mut values = Vec::with_capacity(spec.numel());
    for rank in ranks {
        let (shape, slice) = rank.tensor(number, name, &spec.name)?;
        if shape == spec.shape {
            // Every rank has the same: one is enough.
            return Ok(SingleTensor { name: full, shape, values: slice.into() });
        }
        let fits = shape.len() == spec.shape.len()
            && shape.first().zip(spec.shape.first()).is_some_and(|(part, all)| part * count == *all)
            && shape.get(1..) == spec.shape.get(1..);
        if !fits {
            return Err(misfit(rank, &full, &shape, count));
        }
        values.extend(slice);
    }
    if values.len() != spec.numel() {
        return Err(Error::internal(format!("the slices of `{full}` do not make it")));
    }
    Ok(SingleTensor { name: full, shape: spec.shape.clone(), values: values.into() })
}

/// The buffers of Muon for all matrices of one shape.
fn stacked(
    ranks: &mut [Rank],
    number: i64,
    group: &Group,
    specs: &[ParamSpec],
) -> Result<Vec<SingleTensor<'static>>> {
    let (count, matrices) = (ranks.len(), group.params.len());
    let chunk = matrices.div_ceil(count);
    let Some(first) = group.params.first().and_then(|&index| specs.get(index)) else { return Ok(Vec::new()) };
    let [rows, cols] = first.shape.as_slice() else {
        return Err(Error::internal(format!("`{}` is no matrix", first.name)));
    };
    let factored = if rows >= cols { vec![*rows, 1] } else { vec![1, *cols] };
    let mut states = Vec::new();
    for (name, shape) in [("momentum_buffer", first.shape.clone()), ("second_momentum_buffer", factored)] {
        let len: usize = shape.iter().product();
        let expected: Vec<usize> = std::iter::once(chunk).chain(shape.iter().copied()).collect();
        for (rank_index, rank) in ranks.iter_mut().enumerate() {
            let (found, values) = rank.tensor(number, name, &first.name)?;
            if found != expected {
                return Err(misfit(rank, &format!("{}.{name}", first.name), &found, count));
            }
            // What pads the last chunk is of no matrix.
            let own = group.params.iter().skip(rank_index * chunk);
            for (&index, matrix) in own.zip(values.chunks_exact(len.max(1))) {
                let name = format!("{}.{name}", specs[index].name);
                states.push(SingleTensor { name, shape: shape.clone(), values: matrix.to_vec().into() });
            }
        }
    }
    Ok(states)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::config::{GptConfig, GptInit, LayerRamp, ValueEmbedConfig};
    use crate::model::param::Init;
    use crate::precision::Precision;

    #[test]
    fn groups_are_upstreams() {
        let spec = |name: &str, shape: &[usize], group| ParamSpec {
            name: name.to_owned(),
            shape: shape.to_vec(),
            group,
            init: Init::Constant(0.0),
            draw_order: 0,
        };
        let specs = [
            spec("resid_lambdas", &[2], ParamGroup::Resid),
            spec("x0_lambdas", &[2], ParamGroup::X0),
            spec("smear_lambda", &[1], ParamGroup::Smear),
            spec("backout_lambda", &[1], ParamGroup::Smear),
            spec("wte", &[64, 8], ParamGroup::Wte),
            spec("c_q", &[8, 8], ParamGroup::Matrix),
            spec("c_fc", &[32, 8], ParamGroup::Matrix),
            spec("ve_gate", &[2, 12], ParamGroup::Matrix),
            spec("c_k", &[8, 8], ParamGroup::Matrix),
            spec("lm_head", &[64, 8], ParamGroup::LmHead),
            spec("smear_gate", &[1, 24], ParamGroup::Smear),
            spec("value_embeds.1", &[64, 8], ParamGroup::ValueEmbeds),
        ];
        let names: Vec<Vec<&str>> = groups(&specs)
            .iter()
            .map(|group| group.params.iter().map(|&index| specs[index].name.as_str()).collect())
            .collect();
        let expected: [&[&str]; 9] = [
            &["lm_head"],
            &["wte"],
            &["value_embeds.1"],
            &["resid_lambdas"],
            &["x0_lambdas"],
            &["smear_gate", "smear_lambda", "backout_lambda"],
            &["ve_gate"],
            &["c_q", "c_k"],
            &["c_fc"],
        ];
        assert_eq!(names, expected);
    }

    pub(in super::super) fn specs_of(config: &serde_json::Value) -> Vec<ParamSpec> {
        let size = |name: &str| config[name].as_u64().unwrap() as usize;
        let ramp = LayerRamp { first: 1.0, fall: 0.0 };
        crate::model::specs::gpt_specs(&GptConfig {
            sequence_len: size("sequence_len"),
            vocab_size: size("vocab_size"),
            padded_vocab_size: size("vocab_size"),
            n_layer: size("n_layer"),
            n_head: size("n_head"),
            n_kv_head: size("n_kv_head"),
            n_embd: size("n_embd"),
            windows: vec![size("sequence_len"); size("n_layer")],
            rotary_base: 1e5,
            rotary_precision: Precision::F32,
            qk_scale: 1.2,
            softcap: Some(15.0),
            value_embeds: Some(ValueEmbedConfig { gate_channels: 12, gate_scale: 3.0 }),
            smear_channels: Some(24),
            backout: true,
            norm_eps: 1e-6,
            init: GptInit {
                wte_std: 1.0,
                lm_head_std: 1.0,
                c_fc_scale: 1.0,
                ve_gate_max: 0.0,
                resid_lambda: ramp,
                x0_lambda: ramp,
                smear_gate_max: 0.0,
                smear_lambda: 0.0,
                backout_lambda: 0.0,
            },
        })
    }

    /// Four ranks' slices and chunks, of which the last of each shape are padding, make what one rank has.
    #[test]
    fn ranks_make_one() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/optimizer_ranks");
        let config = std::fs::read(directory.join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let (specs, steps) = (specs_of(&config), config["steps"].as_u64().unwrap());
        let file = |name: &str, rank: usize| directory.join(format!("{name}_rank{rank}.pt"));
        let one = read(&[file("one", 0)], &specs, steps).unwrap();
        let ranks: Vec<_> = (0..4).map(|rank| file("four", rank)).collect();
        let four = read(&ranks, &specs, steps).unwrap();
        assert_eq!(one.len(), 2 * specs.len());
        for (one, four) in one.iter().zip(&four) {
            assert_eq!((&one.name, &one.shape), (&four.name, &four.shape));
            let (ones, fours) = (one.values.wide(), four.values.wide());
            let largest = ones.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let worst = ones.iter().zip(&*fours).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(largest > 0.0 && worst <= 1e-5 * largest, "{}: {worst} of {largest}", one.name);
        }
        for (ranks, what) in [
            (&ranks[..3], "in a file of 3 ranks"),
            (&ranks[..1], "in a file of 1 ranks"),
            (&[file("one", 0), file("one", 0)][..], "in a file of 2 ranks"),
        ] {
            assert!(read(ranks, &specs, steps).unwrap_err().what().contains(what));
        }
        let error = read(&ranks, &specs, steps + 1).unwrap_err();
        assert!(
            error.what().starts_with("the optimizer has made 3 updates to `lm_head.weight`, not 4"),
            "{error}"
        );
        assert_eq!(error.class().exit_code(), 2);
        let error = read(&ranks, &specs[1..], steps).unwrap_err();
        assert!(error.what().contains("its groups have"), "{error}");
    }
}
