//! Guests other than the shared template's.
//!
//! A template costs a cold boot, so there is one for each guest, and what is asked of its children is asked in one case.
//! These take about as long as all others together: `cargo xtask test` runs them beside those, in a lab of their own.

pub(super) mod domain;
pub(super) mod network;
