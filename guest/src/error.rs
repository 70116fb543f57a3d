//! What an error says, with its causes.

use std::{error::Error, fmt::Write};

/// What an error says, and what its causes say.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
