//! The cases.

mod bad_input;
mod disk_full;
mod domain;
mod fail_closed;
mod gate;
mod guests;
mod identity;
mod killed;
mod lifecycle;
mod secrets;
mod template;
mod verify;

use crate::Case;

/// Those that are about children of the shared template, in any order.
pub(crate) fn shared() -> Vec<Case> {
    [
        bad_input::CASES,
        identity::CASES,
        gate::CASES,
        lifecycle::CASES,
        killed::CASES,
        secrets::CASES,
        disk_full::CASES,
        verify::CASES,
        template::CASES,
        domain::CASES,
    ]
    .concat()
}

/// Those that make templates of other guests.
pub(crate) fn guests() -> Vec<Case> {
    [guests::network::CASES, guests::domain::CASES].concat()
}

/// Those that look at what all others have left of the shared template.
pub(crate) fn last() -> Vec<Case> {
    template::LAST.to_vec()
}
