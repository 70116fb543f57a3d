//! The wall clock, which stood still while the template was suspended.

use super::{ApplyError, Order};
use crate::system::System;

/// The most it may be off after it was set, in nanoseconds.
const TOLERANCE_NS: u64 = 1_000_000_000;

/// What the clock should say now: the host's when it sent the identity, and the time since it came.
fn expected(order: &Order<'_>) -> i64 {
    let since = i64::try_from(order.received.elapsed().as_nanos()).unwrap_or(i64::MAX);
    order.identity.unix_time_ns.saturating_add(since)
}

pub(super) fn apply<S: System>(order: &Order<'_>, system: &S) -> Result<(), ApplyError> {
    if order.identity.unix_time_ns <= 0 {
        return Err(ApplyError::Malformed("a time before 1970".into()));
    }
    system.set_clock(expected(order)).map_err(|error| ApplyError::System("set the clock", error))
}

/// That the clock, which says `now`, is right.
pub(super) fn verify(order: &Order<'_>, now: i64) -> Result<(), ApplyError> {
    let off = now.abs_diff(expected(order));
    if off > TOLERANCE_NS {
        return Err(ApplyError::Mismatch(format!("the clock is off by {} ms", off / 1_000_000)));
    }
    Ok(())
}
