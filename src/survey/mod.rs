//! What is on disk of many experiments at once: lists of runs, the story of one, two side by side. Reads results and
//! writes nothing.

mod compared;
mod filter;
mod listing;
mod one;
mod rows;
mod scalars;
mod sheet;
mod story;

pub use compared::Compared;
pub use filter::{Filter, Order};
pub use listing::Listing;
pub use one::One;
pub use rows::{Listed, Survey, end_of};
pub use sheet::{Cell, Sheet};
pub use story::Story;
