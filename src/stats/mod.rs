//! Statistics as plain functions of numbers, in portable arithmetic: the same bits on every machine.

mod beta;
mod dunnett;
mod fisher;
mod fit;
mod memo;
mod normal;
mod power;
mod holm;
mod resample;
mod root;
mod spending;
mod student;
mod summary;

pub use dunnett::{dunnett_p, dunnett_quantile};
pub use fisher::f_upper_quantile;
pub use fit::{Parabola, PowerLaw};
pub use holm::holm;
pub use power::{detectable, detectable_together, seeds_for};
pub use resample::resampled_deviation;
pub use spending::look_levels;
pub use student::{t_one_sided_p, t_quantile, t_two_sided_p};
pub use summary::{mean, median, slope, standard_deviation};
