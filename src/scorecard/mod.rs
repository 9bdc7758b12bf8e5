//! scorecard.
