//! The cases.

mod bad_input;
mod disk_full;
mod fail_closed;
mod gate;
mod guests;
mod identity;
mod killed;
mod lifecycle;
mod template;
mod verify;

use crate::Case;

/// Those that run in any order.
pub(crate) fn all() -> Vec<Case> {
    [
        bad_input::CASES,
        identity::CASES,
        gate::CASES,
        lifecycle::CASES,
        killed::CASES,
        disk_full::CASES,
        fail_closed::CASES,
        verify::CASES,
        template::CASES,
        guests::network::CASES,
        guests::domain::CASES,
    ]
    .concat()
}

/// Those that look at what all others have left.
pub(crate) fn last() -> Vec<Case> {
    template::LAST.to_vec()
}
