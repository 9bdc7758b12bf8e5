//! Initial values of a model's parameters, drawn as upstream draws them.

use super::param::{Init, ParamSpec};
use crate::error::Result;
use crate::rng::TorchGenerator;

/// Reads the values of one parameter.
pub type ReadValues = Box<dyn FnMut(&ParamSpec) -> Result<Vec<f32>>>;

/// Where the parameters of a model begin.
pub enum InitialValues {
    /// Drawn as each parameter's spec says, from torch's generator with this seed.
    Drawn {
        /// As for `torch.manual_seed`.
        seed: u64,
    },
    /// A vector a parameter, in the order of the specs.
    Given(Vec<Vec<f32>>),
    /// Read one after another, in the order of the specs: no more than one is in memory beside what is made of it.
    Read(ReadValues),
}

impl InitialValues {
    /// Calls `set` with the index and the values of every parameter, each once, and lets go of them: drawn ones in
    /// their draw order, so that no more than one is ever in memory. Constants consume no draws.
    ///
    /// # Errors
    /// Those of `set`, and of reading.
    pub fn for_each(
        self,
        specs: &[ParamSpec],
        mut set: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let seed = match self {
            Self::Drawn { seed } => seed,
            Self::Read(mut read) => {
                return specs.iter().enumerate().try_for_each(|(index, spec)| set(index, &read(spec)?));
            }
            Self::Given(values) => {
                return values.into_iter().enumerate().try_for_each(|(index, values)| set(index, &values));
            }
        };
        let mut generator = TorchGenerator::new(seed);
        let mut in_draw_order: Vec<usize> = (0..specs.len()).collect();
        in_draw_order.sort_by_key(|&index| specs[index].draw_order);

        // One buffer for all: memory is slow to come from the system.
        let mut buffer = vec![0.0; specs.iter().map(ParamSpec::numel).max().unwrap_or(0)];
        for index in in_draw_order {
            let spec = &specs[index];
            let drawn = &mut buffer[..spec.numel()];
            match &spec.init {
                Init::Values(given) => {
                    set(index, given)?;
                    continue;
                }
                Init::Constant(value) => drawn.fill(*value),
                Init::Normal { std } => generator.normal(drawn, *std),
                Init::Uniform { low, high } => generator.uniform(drawn, *low, *high),
            }
            set(index, drawn)?;
        }
        Ok(())
    }

    /// All of them, in the order of `specs`.
    ///
    /// # Errors
    /// Those of reading.
    pub fn all(self, specs: &[ParamSpec]) -> Result<Vec<Vec<f32>>> {
        if let Self::Given(values) = self {
            return Ok(values);
        }
        let mut all = vec![Vec::new(); specs.len()];
        self.for_each(specs, |index, values| {
            if let Some(slot) = all.get_mut(index) {
                *slot = values.to_vec();
            }
            Ok(())
        })?;
        Ok(all)
    }
}

/// The values of every parameter, in the order of `specs`, drawn with a seed.
pub fn initial_values(specs: &[ParamSpec], seed: u64) -> Vec<Vec<f32>> {
    // What is drawn cannot fail.
    InitialValues::Drawn { seed }.all(specs).unwrap_or_default()
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
