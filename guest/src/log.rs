//! The journal, by way of standard error.
//!
//! Nothing here can fail or wait: standard error is a stream of journald's, which is closed when journald's socket was
//! stopped (systemd.service(5) has services be ready for that) and full while journald is. A line is lost then, the
//! process is not.

use std::{
    fmt::Arguments,
    io::{self, Write as _},
};

/// Writes a line to the journal. Use [`log!`](crate::log!).
pub(crate) fn line(arguments: Arguments<'_>) {
    // Tests show it with the one that fails.
    if cfg!(test) {
        return eprintln!("{arguments}");
    }
    // In one piece: a line that is written in pieces is several for journald.
    let _ = io::stderr().write_all(format!("{arguments}\n").as_bytes());
}

/// Has a journal that takes nothing more lose lines rather than keep the agent waiting. Only for a process whose standard
/// error nobody else reads: the mode is the open file's, shared by all that have it (`fcntl(2)`).
pub(crate) fn never_wait() {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let stderr = io::stderr();
    if let Ok(flags) = fcntl(&stderr, FcntlArg::F_GETFL) {
        let _ = fcntl(&stderr, FcntlArg::F_SETFL(OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK));
    }
}

/// Writes a line to the journal; it may be lost, and nothing ends for that.
#[macro_export]
macro_rules! log {
    ($($argument:tt)*) => { $crate::log::line(format_args!($($argument)*)) };
}
