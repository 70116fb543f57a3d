//! End-to-end test framework.
