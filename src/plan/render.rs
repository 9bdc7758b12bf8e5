//! The plan as a person reads it, and as JSON.
