//! Every wait has an end.

use std::time::Duration;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The vsock device, until udev has found it and loaded its driver.
    pub(crate) device: Duration,
    /// A frame, from its first byte on.
    pub(crate) frame: Duration,
    /// A connection on which nothing is said.
    pub(crate) idle: Duration,
    /// The host, between `applied` and `open`.
    pub(crate) open: Duration,
    /// Services that start before the gate, once `prepare` came.
    pub(crate) settle: Duration,
    /// The network interfaces of a machine that boots again.
    pub(crate) nics: Duration,
    /// Boot, once the gate is open.
    pub(crate) boot: Duration,
    /// A domain account, once `join` came: until the network is there and the domain answers.
    pub(crate) join: Duration,
    /// Between two looks at what cannot be waited for.
    pub(crate) tick: Duration,
}

impl Limits {
    pub(crate) const DEFAULT: Self = Self {
        device: Duration::from_mins(1),
        frame: Duration::from_secs(10),
        idle: Duration::from_secs(30),
        open: Duration::from_secs(30),
        settle: Duration::from_mins(4),
        nics: Duration::from_mins(2),
        boot: Duration::from_mins(10),
        join: Duration::from_mins(2),
        tick: Duration::from_millis(500),
    };
}
