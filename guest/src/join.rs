//! Trying a domain account on the network, which is what `join` asks for: one command after the other, each again until it
//! succeeds or the time is over.
//!
//! A trial goes on in small pieces between which the agent hears its host, since a domain that does not answer takes long.
//! It may begin while boot goes on: the account is tried at once then, and the clients when they are up.

use crate::{
    apply::domain::{self, Client, Tool, krb5},
    config::DomainClient,
    error::chain,
    limits::programs,
    record::Record,
    root::{FileError, RUNTIME, Root},
    system::System,
};
use ramet_proto::{
    domain::{DomainAccount, JoinCheck, JoinEvidence},
    message::{Failure, Reason, Step},
    text::Text,
};
use std::{
    collections::VecDeque,
    error::Error,
    io,
    time::{Duration, Instant},
};

/// krb5.conf(5) that pins the domain controller that knows the account.
const PINNED: &str = "run/ramet-agent/krb5.conf";

/// A unit that starts winbindd at boot.
const WINBIND_IS_WANTED: &str = "etc/systemd/system/multi-user.target.wants/winbind.service";

/// Where winbindd listens (winbindd(8)).
const WINBIND_LISTENS: &str = "run/samba/winbindd/pipe";

/// SSSD's tools, and what they ask (sssd-ifp(5)): packages of their own, which not everybody has.
const SSSD_STATUS: [&str; 2] =
    ["usr/sbin/sssctl", "usr/share/dbus-1/system-services/org.freedesktop.sssd.infopipe.service"];

/// What sssctl(8) says if sssd does not run.
const SSSD_IS_DOWN: &str = "SSSD needs to be running";

/// What kinit(1) says if the domain does not accept the account: its password is another one, it is not there any more,
/// it is disabled, or the clocks differ (MIT krb5, `krb5_err.et`).
const REFUSALS: &[&str] = &[
    "Preauthentication failed",
    "not found in Kerberos database",
    "have been revoked",
    "Clock skew too great",
    "Password has expired",
    "no suitable keys",
    "Decrypt integrity check failed",
];

/// What succeeds when the account is a working one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Kinit,
    TestJoin,
    TestSecret,
    Status,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Another command, at once.
    Next,
    /// The same, after a pause.
    Again,
    /// Nothing: this is the answer.
    Over(Result<JoinEvidence, Failure>),
}

/// An account being tried.
pub(crate) struct Trial {
    account: DomainAccount,
    checks: VecDeque<Check>,
    done: Vec<JoinCheck>,
    begun: Instant,
    limit: Duration,
    /// When it is over: `limit` after it has begun, or after the end of boot.
    deadline: Instant,
    /// How often the first command of `checks` has failed.
    failed: u32,
}

impl Trial {
    /// A trial of the account on record, for `limit` at most.
    pub(crate) fn begin(root: &Root, client: DomainClient, limit: Duration) -> Result<Self, Failure> {
        let failed = |error: &dyn Error| Failure::new(Step::Join, Reason::System, &chain(error));
        let record = Record::present(root).map_err(|error| failed(&error))?;
        let account = record.and_then(|record| record.domain).ok_or_else(|| {
            Failure::new(Step::Join, Reason::Missing, "this machine was given no account of a domain")
        })?;
        let client = domain::installed(root, client).map_err(|error| error.at(Step::Join))?;
        Self::new(account, client, root, limit).map_err(|error| failed(&error))
    }

    fn new(account: DomainAccount, client: Client, root: &Root, limit: Duration) -> Result<Self, FileError> {
        root.make_dir(RUNTIME, 0o755)?;
        root.replace(PINNED, krb5::pinned(&account).as_bytes(), 0o644)?;
        let mut checks = VecDeque::from([Check::Kinit]);
        match client {
            Client::Samba => {
                checks.push_back(Check::TestJoin);
            }
            Client::Sssd => {
                let [sssctl, ifp] = SSSD_STATUS;
                if root.exists(sssctl)? && root.exists(ifp)? {
                    checks.push_back(Check::Status);
                }
            }
        }
        let begun = Instant::now();
        Ok(Self { account, checks, done: Vec::new(), begun, limit, deadline: begun + limit, failed: 0 })
    }

    /// Runs one command. While boot goes on (not `booted`) that is kinit and no other: a client that is not up yet can only
    /// fail, and takes the processor from what starts it.
    pub(crate) fn step<S: System>(&mut self, root: &Root, system: &S, booted: bool) -> Progress {
        let Some(check) = self.checks.front().copied() else {
            return Progress::Over(Ok(JoinEvidence { checks: std::mem::take(&mut self.done) }));
        };
        if !booted {
            self.deadline = Instant::now() + self.limit;
            if check != Check::Kinit {
                return Progress::Again;
            }
        }
        // The controller that knows the account, and in turn any: the first may be down. What another says is not the
        // last word: the account may not have come to it yet.
        let pinned = self.failed.is_multiple_of(2);
        let tool = match check {
            Check::Kinit => Tool::Kinit {
                account: &self.account,
                config: pinned.then(|| root.outside(PINNED)),
                limit: if booted { programs::KINIT.1 } else { programs::KINIT.0 },
            },
            Check::TestJoin => Tool::TestJoin,
            Check::TestSecret => Tool::TestSecret,
            Check::Status => Tool::Status(&self.account),
        };
        let run = tool.run();
        let said = if has_network(system) {
            system.run(&run)
        } else {
            Err(io::Error::other("no network interface has an address yet"))
        };
        let said = match said {
            Ok(said) if holds(check, &said) => {
                let after_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                let command = Text::new(&run.to_string());
                self.done.push(JoinCheck { command, printed: end_of(&said), after_ms });
                self.checks.pop_front();
                // Only now: a winbindd that anything else starts is not there before the end of boot.
                let has_winbind =
                    || Ok::<_, FileError>(root.exists(WINBIND_IS_WANTED)? || root.exists(WINBIND_LISTENS)?);
                if check == Check::TestJoin && has_winbind().unwrap_or(true) {
                    self.checks.push_front(Check::TestSecret);
                }
                self.failed = 0;
                return Progress::Next;
            }
            Ok(said) => {
                // It went offline before there was a network. Told too often it would get nowhere. A help, so nothing fails.
                if check == Check::Status && self.failed.is_multiple_of(10) {
                    let _ = system.run(&Tool::GoOnline.run());
                }
                end_of(&said).to_string()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let detail = format!("{run}: the program is not installed");
                return Progress::Over(Err(Failure::new(Step::Join, Reason::Missing, &detail)));
            }
            Err(error) => {
                let said = error.to_string();
                // It gives up where its processes take long to start, as they may while many machines boot, and systemd does
                // not start it again.
                if check == Check::Status && said.contains(SSSD_IS_DOWN) && self.failed.is_multiple_of(10) {
                    let _ = system.run(&Tool::StartSssd.run());
                }
                said
            }
        };
        self.failed += 1;
        let refused = REFUSALS.iter().any(|words| said.contains(words));
        let is_over = booted && Instant::now() >= self.deadline;
        let over = |reason, retryable| {
            let failure = Failure::new(Step::Join, reason, &format!("{run}: {said}"));
            Progress::Over(Err(Failure { retryable, ..failure }))
        };
        if refused && (is_over || (pinned && check == Check::Kinit)) {
            over(Reason::Refused, false)
        } else if is_over {
            over(Reason::Timeout, true)
        } else {
            Progress::Again
        }
    }
}

/// Whether there is an address to speak from. Commands fail without, but take a process each to say so.
fn has_network(system: &impl System) -> bool {
    let interfaces = system.interfaces().unwrap_or_default();
    interfaces.iter().any(|one| one.addresses.iter().any(|address| !address.is_loopback()))
}

/// Whether a command that ended well has found what it should.
fn holds(check: Check, said: &str) -> bool {
    match check {
        Check::Kinit | Check::TestJoin | Check::TestSecret => true,
        Check::Status => said.lines().any(|line| line.trim() == "Online status: Online"),
    }
}

/// The last line that is not empty.
fn end_of(said: &str) -> Text {
    Text::new(said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default())
}

#[cfg(test)]
mod tests;
