//! Initial values of a model's parameters, drawn as upstream draws them.

use super::param::{Init, ParamSpec};
use crate::rng::TorchGenerator;

/// The values of every parameter, in the order of `specs`, from one torch generator seeded with `seed`, which the
/// parameters use in their draw order. Constants consume no draws.
pub fn initial_values(specs: &[ParamSpec], seed: u64) -> Vec<Vec<f32>> {
    let mut generator = TorchGenerator::new(seed);
    let mut in_draw_order: Vec<usize> = (0..specs.len()).collect();
    in_draw_order.sort_by_key(|&index| specs[index].draw_order);

    let mut values = vec![Vec::new(); specs.len()];
    for index in in_draw_order {
        let spec = &specs[index];
        values[index] = match &spec.init {
            Init::Values(given) => given.clone(),
            Init::Constant(value) => vec![*value; spec.numel()],
            Init::Normal { std } => {
                let mut drawn = vec![0.0; spec.numel()];
                generator.normal(&mut drawn, *std);
                drawn
            }
            Init::Uniform { low, high } => {
                let mut drawn = vec![0.0; spec.numel()];
                generator.uniform(&mut drawn, *low, *high);
                drawn
            }
        };
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::MicrogptConfig;
    use crate::model::param::ParamGroup;
    use crate::model::specs::microgpt_specs;

    fn spec(name: &str, init: Init, draw_order: usize) -> ParamSpec {
        ParamSpec { name: name.into(), shape: vec![4, 8], group: ParamGroup::Matrix, init, draw_order }
    }

    #[test]
    fn draws_follow_draw_order_and_constants_draw_nothing() {
        let uniform = Init::Uniform { low: 0.0, high: 1.0 };
        let alone = initial_values(&[spec("a", uniform.clone(), 0)], 3);
        let specs = [
            spec("b", Init::Normal { std: 1.0 }, 2),
            spec("c", Init::Constant(0.5), 0),
            spec("a", uniform, 1),
        ];
        let values = initial_values(&specs, 3);
        assert_eq!(values[2], alone[0]);
        assert_eq!(values[1], [0.5; 32]);
        assert_ne!(values[0], initial_values(&specs[..1], 3)[0]);
    }

    #[test]
    fn microgpt_switches_remove_parameters() {
        let mut config = MicrogptConfig {
            sequence_len: 8,
            vocab_size: 27,
            n_layer: 1,
            n_head: 2,
            n_embd: 8,
            norm_eps: 1e-5,
            tie_lm_head: false,
            input_rmsnorm: true,
            init_std: 0.08,
        };
        let untied = microgpt_specs(&config);
        config.tie_lm_head = true;
        let tied = microgpt_specs(&config);
        assert_eq!((untied.len(), tied.len()), (9, 8));
        assert!(tied.iter().all(|spec| spec.name != "lm_head"));
        assert_eq!(initial_values(&tied, 1)[0], initial_values(&untied, 1)[0]);
    }
}
