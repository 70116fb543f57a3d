//! The life of an identity in the store: which step is allowed where.
//!
//! ```text
//! intent ─provision─▶ available ─lease─▶ leased ─hand over─▶ handed ─use─▶ in use
//!   │                  │  ▲  ▲             │                   │             │
//!   │abandon     retire│  │  └──give back──┤                   ├──give back──┤ with an account: to quarantine,
//!   ▼                  │  │                │                   │             │ without: to available
//! retired ◀────────────┘  │                └───────lose────────┴─────────────┤
//!   ▲                     └─reset, release─┐                                 │
//!   └─────────────retire───────────── quarantine ◀───────────────────────────┘
//! ```
//!
//! A secret that was handed over may be known to a guest, so the account goes to quarantine and is of no use to anybody
//! until its password is another. One whose host is lost is never given again by itself: its child may still run.

use std::{fmt, str::FromStr};

/// Where an identity is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its account is about to be made in the directory, or was.
    Intent,
    /// It can be leased.
    Available,
    /// It belongs to a child that has not been told yet.
    Leased,
    /// Its password was handed to the command that is about to send it to the guest.
    Handed,
    /// The guest has it, and the store has no password.
    InUse,
    /// It was a child's, and may not be given to another as it is.
    Quarantine,
    /// It is not used again; its names are free.
    Retired,
}

impl State {
    /// All of them, in the order of life.
    pub const ALL: [Self; 7] = [
        Self::Intent,
        Self::Available,
        Self::Leased,
        Self::Handed,
        Self::InUse,
        Self::Quarantine,
        Self::Retired,
    ];

    /// The word for it, in the store, on the command line and in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Available => "available",
            Self::Leased => "leased",
            Self::Handed => "handed",
            Self::InUse => "in_use",
            Self::Quarantine => "quarantine",
            Self::Retired => "retired",
        }
    }

    /// Whether a child has it.
    #[must_use]
    pub fn is_lease(self) -> bool {
        match self {
            Self::Leased | Self::Handed | Self::InUse => true,
            Self::Intent | Self::Available | Self::Quarantine | Self::Retired => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let state = Self::ALL.into_iter().find(|state| state.word() == text);
        state.ok_or_else(|| UnknownState(text.chars().take(80).collect()))
    }
}

/// A text that is no [`State`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no state of an identity")]
pub struct UnknownState(String);

/// What happens to an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its account was made, and its password is in the store.
    Provision,
    /// Its account was not made, or is gone again.
    Abandon,
    /// A child gets it.
    Lease,
    /// Its password goes to the command that sends it to the guest.
    HandOver,
    /// The guest has it.
    Use,
    /// The child is gone.
    GiveBack,
    /// The child's host is lost, and whether the child is gone nobody knows.
    Lose,
    /// Its account has another password, which is in the store.
    Reset,
    /// An administrator says that its child is gone.
    Release,
    /// It is done with; an account was deleted or disabled.
    Retire,
}

impl Step {
    /// As a verb.
    #[must_use]
    pub fn verb(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Abandon => "abandon",
            Self::Lease => "lease",
            Self::HandOver => "hand over",
            Self::Use => "use",
            Self::GiveBack => "give back",
            Self::Lose => "quarantine",
            Self::Reset => "reset",
            Self::Release => "release",
            Self::Retire => "retire",
        }
    }
}

/// Where `step` leads from `state`; `None` if it is not allowed there. Steps that a command repeats because it did not
/// hear whether they were done lead to where they led.
#[must_use]
pub fn next(state: State, step: Step, has_account: bool) -> Option<State> {
    use State::{Available, Handed, InUse, Intent, Leased, Quarantine, Retired};
    let to = match step {
        Step::Provision => matches!(state, Intent).then_some(Available),
        Step::Abandon => matches!(state, Intent).then_some(Retired),
        Step::Lease => matches!(state, Available).then_some(Leased),
        Step::HandOver => match state {
            Leased | Handed => Some(Handed),
            // Nothing of it is secret: a child that lost its power before its gate opened is told again.
            InUse if !has_account => Some(InUse),
            Intent | Available | InUse | Quarantine | Retired => None,
        },
        Step::Use => matches!(state, Handed | InUse).then_some(InUse),
        Step::GiveBack => match state {
            Leased => Some(Available),
            Handed | InUse => Some(if has_account { Quarantine } else { Available }),
            Intent | Available | Quarantine | Retired => None,
        },
        Step::Lose => state.is_lease().then_some(Quarantine),
        // One that is available may have been given another password by somebody else.
        Step::Reset => (matches!(state, Quarantine | Available) && has_account).then_some(Available),
        Step::Release => (matches!(state, Quarantine) && !has_account).then_some(Available),
        Step::Retire => matches!(state, Available | Quarantine).then_some(Retired),
    };
    // An intent is one to make an account.
    to.filter(|_| has_account || state != Intent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STEPS: [Step; 10] = [
        Step::Provision,
        Step::Abandon,
        Step::Lease,
        Step::HandOver,
        Step::Use,
        Step::GiveBack,
        Step::Lose,
        Step::Reset,
        Step::Release,
        Step::Retire,
    ];

    /// What is true of an account, whatever the store says.
    #[derive(Default)]
    struct World {
        /// Children that may run and know the password that is in force.
        knowing: usize,
        /// A child has it.
        held: bool,
        /// It exists no more, as far as anybody should rely on it.
        gone: bool,
    }

    impl World {
        fn live(&mut self, step: Step) {
            match step {
                Step::Provision | Step::Use => {}
                Step::Lease => self.held = true,
                Step::HandOver => self.knowing = 1,
                Step::GiveBack | Step::Lose => self.held = false,
                Step::Reset | Step::Release => self.knowing = 0,
                Step::Abandon | Step::Retire => self.gone = true,
            }
        }
    }

    proptest! {
        #[test]
        fn no_account_is_available_while_anybody_may_know_it(
            steps in prop::collection::vec(prop::sample::select(STEPS.to_vec()), 0..60),
        ) {
            let (mut state, mut world) = (State::Intent, World::default());
            for step in steps {
                let Some(to) = next(state, step, true) else { continue };
                world.live(step);
                state = to;
                prop_assert_eq!(world.held, state.is_lease());
                prop_assert_eq!(world.gone, state == State::Retired);
                prop_assert!(state != State::Available || world.knowing == 0, "after {:?}", step);
                prop_assert!(!matches!(state, State::Handed | State::InUse) || world.knowing == 1);
            }
        }
    }

    #[test]
    fn nothing_leaves_retirement_and_everything_else_can_be_left() {
        for account in [true, false] {
            for state in State::ALL {
                let ways = STEPS.into_iter().filter_map(|step| next(state, step, account));
                let out = ways.filter(|to| *to != state).count();
                let expected_none = state == State::Retired || (state == State::Intent && !account);
                assert_eq!(out == 0, expected_none, "{state}, account {account}");
            }
        }
    }

    #[test]
    fn without_an_account_nothing_is_secret_and_the_identity_is_available_at_once() {
        for state in [State::Leased, State::Handed, State::InUse] {
            assert_eq!(next(state, Step::GiveBack, false), Some(State::Available));
            // But the addresses of a child on a lost host may still be in use.
            assert_eq!(next(state, Step::Lose, false), Some(State::Quarantine));
        }
        assert_eq!(next(State::InUse, Step::HandOver, false), Some(State::InUse));
        assert_eq!(next(State::InUse, Step::HandOver, true), None);
        assert_eq!(next(State::Quarantine, Step::Release, true), None);
        assert_eq!(next(State::Quarantine, Step::Reset, false), None);
    }

    #[test]
    fn states_have_words_that_are_read_again() {
        for state in State::ALL {
            assert_eq!(state.word().parse(), Ok(state));
        }
        assert!("gone".parse::<State>().is_err());
    }
}
