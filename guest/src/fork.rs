//! Noticing, in a guest, that it has been forked: its context id is another one.
//!
//! A guest re-reads its context id when its transport is reset, which QEMU does when a child resumes (virtio 1.3,
//! section 5.10.6.7). Until an identity is there, a child is nobody, so from then on it has not forever.

use std::time::{Duration, Instant};

/// Watches the context id of a guest that may be suspended.
#[derive(Debug, Default)]
pub(crate) struct ForkWatch {
    prepared: Option<u32>,
    forked: Option<Instant>,
}

impl ForkWatch {
    /// The guest said it can be suspended, and was `cid` then.
    pub(crate) fn prepared(&mut self, cid: u32) {
        *self = Self { prepared: Some(cid), forked: None };
    }

    /// Whether there is a change to watch for.
    pub(crate) fn is_on(&self) -> bool {
        self.prepared.is_some()
    }

    /// Whether a fork was seen at least `limit` ago. A context id that cannot be told just now tells nothing.
    pub(crate) fn is_overdue(&mut self, cid: Option<u32>, now: Instant, limit: Duration) -> bool {
        if self.forked.is_none() && self.prepared.is_some() && cid.is_some() && cid != self.prepared {
            self.forked = Some(now);
        }
        self.forked.is_some_and(|forked| now.saturating_duration_since(forked) >= limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_runs_from_the_fork_on() {
        const LIMIT: Duration = Duration::from_secs(10);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = ForkWatch::default();
        assert!(!watch.is_overdue(Some(3), at(0), LIMIT), "not prepared");
        watch.prepared(3);
        assert!(watch.is_on());
        assert!(!watch.is_overdue(Some(3), at(1000), LIMIT), "the parent waits as long as it likes");
        assert!(!watch.is_overdue(None, at(1000), LIMIT));
        assert!(!watch.is_overdue(Some(4), at(1001), LIMIT), "forked");
        assert!(!watch.is_overdue(Some(4), at(1010), LIMIT));
        assert!(watch.is_overdue(None, at(1011), LIMIT));
        assert!(watch.is_overdue(Some(3), at(1012), LIMIT), "there is no way back");
    }
}
