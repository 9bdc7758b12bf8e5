//! tmp
/// tmp
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Cursor;
/// tmp
#[derive(Debug, Clone)]
pub struct Batch { /// i
 pub inputs: Vec<i32>, /// t
 pub targets: Vec<i32>, /// r
 pub rows: usize, /// l
 pub len: usize, /// c
 pub cursor_after: Cursor }
