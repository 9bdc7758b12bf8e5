//! Pages about experiments: one self-contained HTML file, and its figures as SVG.
//!
//! Works on plain data; knows nothing of how runs are trained. A page needs no network and no script: scripts only make
//! its drawings live. Whatever comes from manifests and samples gets in escaped ([`markup`]), and a content security
//! policy allows the page's own script and style by their hashes and nothing else.

mod curve;
mod curves_data;
mod forest;
mod lines;
mod markup;
mod page;
mod palette;
mod scale;
mod scaling;
mod sections;
mod subject;
mod svg;
mod table;
mod verdicts;
mod view;

#[cfg(test)]
mod tests;

pub use page::{figures, page};
#[cfg(test)]
use subject::Definition;
pub use subject::{Evaluated, Run, RunData, Subject};
