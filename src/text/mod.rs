//! Text for people: aligned tables and strings that are safe to print, whatever a manifest or a file put into them.

mod printable;
mod table;

pub(crate) use printable::{printable, shortened};
pub(crate) use table::Table;
