//! The machine's own SID, where Samba is installed (net(8)). Samba keeps it under the machine's name, so this comes after
//! the hostname.

use super::ApplyError;
use crate::{limits::programs, process::Run, root::Root, system::System};
use ramet_proto::{Sid, message::Identity};

const NET: &str = "usr/bin/net";

pub(super) fn apply<S: System>(identity: &Identity, root: &Root, system: &S) -> Result<(), ApplyError> {
    match &identity.machine_sid {
        Some(sid) if root.exists(NET)? => {
            let run = Run::new("net", &["setlocalsid", &sid.to_string()], programs::SAMBA);
            system.run(&run).map(drop).map_err(|error| ApplyError::System("set Samba's SID", error))
        }
        Some(_) | None => Ok(()),
    }
}

/// What Samba says; nothing without Samba.
pub(super) fn read<S: System>(root: &Root, system: &S) -> Result<Option<Sid>, ApplyError> {
    if !root.exists(NET)? {
        return Ok(None);
    }
    let run = Run::new("net", &["getlocalsid"], programs::SAMBA);
    let said = system.run(&run).map_err(|error| ApplyError::System("ask Samba for its SID", error))?;
    parse(&said)
        .map(Some)
        .ok_or_else(|| ApplyError::Mismatch(format!("net getlocalsid says {:?}", said.trim_end())))
}

pub(super) fn verify(shown: Option<&Sid>, identity: &Identity) -> Result<(), ApplyError> {
    match (shown, &identity.machine_sid) {
        (Some(shown), Some(told)) if shown != told => {
            Err(ApplyError::Mismatch(format!("Samba's SID is {shown}")))
        }
        (Some(_) | None, _) => Ok(()),
    }
}

/// The SID in "SID for domain NAME is: S-1-…", below warnings perhaps.
fn parse(said: &str) -> Option<Sid> {
    let mut lines = said.lines().filter(|line| line.starts_with("SID for domain "));
    lines.next()?.rsplit_once(" is: ")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_sid_is_found() {
        let said = "Unknown parameter encountered: \"x\"\nSID for domain WEB-1 is: S-1-5-21-1-2-3\n";
        assert_eq!(parse(said).unwrap().to_string(), "S-1-5-21-1-2-3");
        for bad in ["", "S-1-5-21-1-2-3", "SID for domain X is: none", "Can't fetch domain SID for name: X"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
