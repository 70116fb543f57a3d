//! Host library of Ramet: forks a suspended VM into individuals.
//!
//! Start reading at [`fork`], which has the picture; `docs/architecture.md` walks through it.

pub mod admission;
pub mod agent;
pub mod child;
pub mod console;
pub mod doctor;
pub mod domain;
pub mod fork;
pub mod fs;
pub mod identity;
pub mod lock;
pub mod name;
pub mod net;
mod patience;
pub mod pool;
pub mod provision;
pub mod qemu;
pub mod state;
pub mod template;
pub mod verify;
pub mod vsock;

/// Where the steps of a long operation are told, one line each.
pub struct Progress(Box<dyn Fn(&str) + Send + Sync>);

impl Progress {
    /// Tells each step to `say`.
    pub fn new(say: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Box::new(say))
    }

    /// Tells nobody.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(|_| {})
    }

    /// Tells that `step` begins or was reached.
    pub fn say(&self, step: &str) {
        (self.0)(step);
    }
}

/// An error with all its causes on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // A transparent error and its source say the same.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
