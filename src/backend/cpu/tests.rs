//! Every op.
