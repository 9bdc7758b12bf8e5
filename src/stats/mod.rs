//! Statistics as plain functions of numbers, in portable arithmetic: the same bits on every machine.

mod beta;
mod dunnett;
mod fisher;
mod memo;
mod normal;
mod power;
mod root;
mod student;
mod summary;

pub use dunnett::dunnett_quantile;
pub use fisher::f_upper_quantile;
pub use power::{detectable, seeds_for};
pub use student::t_quantile;
pub use summary::{mean, median, standard_deviation};
