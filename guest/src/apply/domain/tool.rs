//! The programs of Samba, SSSD and MIT Kerberos that are run, and how.

use super::keytab;
use crate::{limits::programs, process::Run};
use ramet_proto::{Secret, domain::DomainAccount};
use std::{path::PathBuf, time::Duration};

/// A program, and what it is to do.
#[derive(Debug)]
pub(crate) enum Tool<'a> {
    /// Show Samba's settings, defaults included (testparm(1)).
    Settings,
    /// Take on the account in the blob of an offline join (net(8), `offlinejoin requestodj`).
    RequestJoin(&'a Secret),
    /// Get a ticket with the keytab, and forget it (kinit(1)).
    Kinit {
        account: &'a DomainAccount,
        /// krb5.conf(5) whose settings go before the system's.
        config: Option<PathBuf>,
        /// How long it may take.
        limit: Duration,
    },
    /// Log in to a domain controller with Samba's password (net(8), `ads testjoin`).
    TestJoin,
    /// Have winbindd check its secret with a domain controller (wbinfo(1), `-t`).
    TestSecret,
    /// Ask SSSD whether it reaches the domain (sssctl(8), `domain-status`).
    Status(&'a DomainAccount),
    /// Have SSSD try again at once (sssd(8), "SIGUSR2"): by itself it would after a minute.
    GoOnline,
    /// Start SSSD, and do not wait for it.
    StartSssd,
}

impl Tool<'_> {
    /// What is run.
    pub(crate) fn run(&self) -> Run<'_> {
        let (program, arguments) = self.argv();
        let variable = match self {
            Self::Kinit { config: Some(config), .. } => {
                let mut paths = config.clone().into_os_string();
                paths.push(":/etc/krb5.conf");
                Some(("KRB5_CONFIG", paths))
            }
            Self::Kinit { config: None, .. }
            | Self::Settings
            | Self::RequestJoin(_)
            | Self::TestJoin
            | Self::TestSecret
            | Self::Status(_)
            | Self::GoOnline
            | Self::StartSssd => None,
        };
        Run { program, arguments, variable, input: self.input(), limit: self.limit() }
    }

    /// What it reads on standard input.
    fn input(&self) -> Option<&[u8]> {
        match self {
            Self::RequestJoin(blob) => Some(blob.expose()),
            Self::Settings
            | Self::Kinit { .. }
            | Self::TestJoin
            | Self::TestSecret
            | Self::Status(_)
            | Self::GoOnline
            | Self::StartSssd => None,
        }
    }

    /// How long it may take. Those that ask the network are run again if they fail, and kinit is the first to notice that
    /// nobody answers.
    fn limit(&self) -> Duration {
        match self {
            Self::Kinit { limit, .. } => *limit,
            Self::Settings | Self::RequestJoin(_) => programs::SAMBA,
            Self::TestJoin | Self::TestSecret | Self::Status(_) | Self::GoOnline | Self::StartSssd => {
                programs::DOMAIN
            }
        }
    }

    fn argv(&self) -> (&'static str, Vec<String>) {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match self {
            // The checks would fail for directories that services make when they start.
            Self::Settings => {
                let only = ["--suppress-prompt", "--skip-logic-checks", "--verbose", "--section-name=global"];
                ("testparm", words(&only))
            }
            // Samba before 4.19 has no option for standard input. Debug output may have the password in it. Keytabs are
            // what Samba would ask a domain controller for.
            Self::RequestJoin(_) => {
                let offline = ["--debuglevel=0", "--option=kerberos method=secrets only"];
                ("net", words(&[offline[0], offline[1], "offlinejoin", "requestodj", "loadfile=/dev/stdin"]))
            }
            Self::Kinit { account, .. } => {
                let keytab = format!("/{}", keytab::PATH);
                ("kinit", words(&["-k", "-t", &keytab, "-c", "MEMORY:", &account.principal()]))
            }
            Self::TestJoin => ("net", words(&["--debuglevel=0", "ads", "testjoin", "-P"])),
            Self::TestSecret => ("wbinfo", words(&["-t"])),
            Self::Status(account) => {
                ("sssctl", words(&["domain-status", &account.realm.dns_domain(), "--online"]))
            }
            Self::StartSssd => ("systemctl", words(&["--no-block", "start", "sssd.service"])),
            Self::GoOnline => {
                ("systemctl", words(&["kill", "--kill-who=main", "--signal=USR2", "sssd.service"]))
            }
        }
    }
}
