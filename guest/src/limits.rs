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

/// How long each program may take that the agent runs itself.
pub(crate) mod programs {
    use std::time::Duration;

    /// ssh-keygen(1): RSA on a slow machine.
    pub(crate) const KEYGEN: Duration = Duration::from_mins(1);
    /// What makes a key of a package's anew (`make-ssl-cert(8)`, for one).
    pub(crate) const MAKE: Duration = Duration::from_mins(1);
    /// net(8) and testparm(1) without a network.
    pub(crate) const SAMBA: Duration = Duration::from_mins(1);
    /// What asks a domain controller. It is run again if it fails.
    pub(crate) const DOMAIN: Duration = Duration::from_secs(30);
    /// kinit(1), which is the first to notice that nobody answers: while boot goes on, that its host can hear of the end
    /// of boot, and after.
    pub(crate) const KINIT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(20));
    /// systemctl(1) and udevadm(8).
    pub(crate) const SYSTEMCTL: Duration = Duration::from_secs(20);
    /// A service manager that reads all its units again, and until it is there again.
    pub(crate) const RELOAD: Duration = Duration::from_secs(30);
    /// Those that only tell what to read ahead.
    pub(crate) const WARM: Duration = Duration::from_secs(20);
}
