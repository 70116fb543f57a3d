//! Identities that are to be added: completed, and unlike everything that is in the store.

use super::{HostnamePattern, MacSource, NewEntry, NewPool, PoolError, entry::parsed};
use ramet_proto::{Hostname, MacAddr, Sid, domain::NetbiosName};
use sqlx::{AnyConnection, Row as _};
use std::collections::HashMap;

/// What somebody wants of an identity; the rest is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Its host name.
    pub hostname: Hostname,
    /// The addresses of its NICs; without them, from the pool's source.
    pub macs: Option<Vec<MacAddr>>,
    /// The machine's SID; without it, a random one.
    pub machine_sid: Option<Sid>,
}

/// Why an identity cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Its name is taken.
    #[error("the host name {0} is taken by {1}")]
    Hostname(Hostname, String),
    /// An address is taken.
    #[error("the MAC address {0} is taken by {1}")]
    Mac(MacAddr, String),
    /// Its SID is taken.
    #[error("the SID {0} is taken by {1}")]
    Sid(Sid, String),
    /// Its account is another identity's.
    #[error("the account {0} is taken by {1}")]
    Account(NetbiosName, String),
    /// It has not as many addresses as the pool wants.
    #[error("{hostname} has {given} MAC addresses, and the pool wants {nics} for each")]
    Nics {
        /// Whose.
        hostname: Hostname,
        /// How many it has.
        given: usize,
        /// How many the pool wants.
        nics: usize,
    },
}

/// What all identities of the store have, and who has it.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// In lower case.
    hostnames: HashMap<String, String>,
    macs: HashMap<MacAddr, String>,
    sids: HashMap<Sid, String>,
}

impl Taken {
    /// What is taken as this transaction sees it.
    pub(super) async fn read(connection: &mut AnyConnection) -> Result<Self, PoolError> {
        let rows =
            sqlx::query("SELECT pool, hostname, macs, machine_sid FROM entries WHERE state <> 'retired'")
                .fetch_all(connection)
                .await?;
        let mut taken = Self::default();
        for row in &rows {
            let macs: String = row.try_get("macs")?;
            let macs: Result<Vec<MacAddr>, _> = macs.split_whitespace().map(str::parse).collect();
            let macs = macs.map_err(|error| PoolError::Damaged { what: error.to_string() })?;
            let (hostname, machine_sid) = (parsed(row, "hostname")?, parsed(row, "machine_sid")?);
            let pool: String = row.try_get("pool")?;
            let owner = format!("{hostname} of the pool {pool}");
            taken.take(&NewEntry { hostname, macs, machine_sid }, &owner);
        }
        Ok(taken)
    }

    fn take(&mut self, entry: &NewEntry, owner: &str) {
        self.hostnames.insert(entry.hostname.as_str().to_ascii_lowercase(), owner.to_owned());
        self.macs.extend(entry.macs.iter().map(|mac| (*mac, owner.to_owned())));
        self.sids.insert(entry.machine_sid.clone(), owner.to_owned());
    }

    fn has_hostname(&self, hostname: &Hostname) -> bool {
        self.hostnames.contains_key(&hostname.as_str().to_ascii_lowercase())
    }

    /// What `entry` has that is taken.
    fn conflicts(&self, entry: &NewEntry) -> Vec<Conflict> {
        let hostname = self.hostnames.get(&entry.hostname.as_str().to_ascii_lowercase());
        let hostname = hostname.map(|owner| Conflict::Hostname(entry.hostname.clone(), owner.clone()));
        let sid = self.sids.get(&entry.machine_sid);
        let sid = sid.map(|owner| Conflict::Sid(entry.machine_sid.clone(), owner.clone()));
        let twice = |at: usize| entry.macs[..at].contains(&entry.macs[at]).then(|| "another NIC".to_owned());
        let macs = entry.macs.iter().enumerate().filter_map(|(at, mac)| {
            Some(Conflict::Mac(*mac, self.macs.get(mac).cloned().or_else(|| twice(at))?))
        });
        hostname.into_iter().chain(sid).chain(macs).collect()
    }

    /// The next `count` names of the pattern that nobody has.
    pub(super) fn names(&self, pattern: &HostnamePattern, count: usize) -> Result<Vec<Draft>, PoolError> {
        let mut drafts = Vec::with_capacity(count);
        for number in 1_u64.. {
            if drafts.len() == count {
                break;
            }
            let hostname = pattern.hostname(number)?;
            if !self.has_hostname(&hostname) {
                drafts.push(Draft { hostname, macs: None, machine_sid: None });
            }
        }
        Ok(drafts)
    }

    /// The drafts, completed; all that is wrong with them if anything is, by their place.
    pub(super) fn complete(mut self, pool: &NewPool, drafts: &[Draft]) -> Result<Vec<NewEntry>, PoolError> {
        // What the drafts ask for is nothing to be drawn for another.
        let asked: Vec<MacAddr> =
            drafts.iter().flat_map(|draft| draft.macs.iter().flatten().copied()).collect();
        let mut drawn = match pool.macs {
            None => Vec::new(),
            Some(source) => {
                let wanted = drafts.iter().filter(|draft| draft.macs.is_none()).count() * pool.nics;
                source.draw(wanted, |mac| !self.macs.contains_key(&mac) && !asked.contains(&mac))?
            }
        }
        .into_iter();
        let (mut entries, mut conflicts) = (Vec::new(), Vec::new());
        for (place, draft) in drafts.iter().enumerate() {
            let machine_sid = match &draft.machine_sid {
                Some(sid) => sid.clone(),
                None => random_sid()?,
            };
            let macs = match &draft.macs {
                Some(macs) => macs.clone(),
                None => drawn.by_ref().take(pool.nics).collect(),
            };
            let entry = NewEntry { hostname: draft.hostname.clone(), macs, machine_sid };
            let mut found = self.conflicts(&entry);
            found.extend(wrong_number(pool.macs, pool.nics, &entry));
            conflicts.extend(found.into_iter().map(|conflict| (place, conflict)));
            self.take(&entry, &format!("{}, which is added with it", entry.hostname));
            entries.push(entry);
        }
        if conflicts.is_empty() { Ok(entries) } else { Err(PoolError::Conflicts(conflicts)) }
    }
}

/// A pool with a source of addresses has so many for each; one without has what it is given.
fn wrong_number(source: Option<MacSource>, nics: usize, entry: &NewEntry) -> Option<Conflict> {
    let given = entry.macs.len();
    let wrong = source.is_some() && given != nics;
    wrong.then(|| Conflict::Nics { hostname: entry.hostname.clone(), given, nics })
}

fn random_sid() -> Result<Sid, PoolError> {
    let mut parts = [0; 3];
    for part in &mut parts {
        *part = getrandom::u32().map_err(|_| PoolError::Random)?;
    }
    Ok(Sid::machine(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(macs: Option<&str>, nics: usize) -> NewPool {
        NewPool {
            name: "lab".parse().unwrap(),
            hostnames: "vdi-{:02}".parse().unwrap(),
            macs: macs.map(|macs| macs.parse().unwrap()),
            nics,
        }
    }

    fn draft(hostname: &str, macs: Option<&[&str]>) -> Draft {
        Draft {
            hostname: hostname.parse().unwrap(),
            macs: macs.map(|macs| macs.iter().map(|mac| mac.parse().unwrap()).collect()),
            machine_sid: None,
        }
    }

    fn taken() -> Taken {
        let mut taken = Taken::default();
        let entry = NewEntry {
            hostname: "VDI-02".parse().unwrap(),
            macs: vec!["52:54:01:00:00:02".parse().unwrap()],
            machine_sid: Sid::machine([1, 2, 3]),
        };
        taken.take(&entry, "VDI-02 of the pool old");
        taken
    }

    #[test]
    fn names_and_addresses_that_are_taken_are_left_out() {
        let pool = pool(Some("52:54:01:00:00:01-52:54:01:00:00:09"), 2);
        let drafts = taken().names(&pool.hostnames, 3).unwrap();
        let entries = taken().complete(&pool, &drafts).unwrap();
        let shown: Vec<_> = entries.iter().map(|entry| (entry.hostname.as_str(), entry.macs.len())).collect();
        assert_eq!(shown, [("vdi-01", 2), ("vdi-03", 2), ("vdi-04", 2)]);
        let macs: Vec<_> = entries.iter().flat_map(|entry| &entry.macs).map(|mac| mac.octets()[5]).collect();
        assert_eq!(macs, [1, 3, 4, 5, 6, 7]);
        assert!(entries.iter().all(|entry| entry.machine_sid.is_machine()));
    }

    #[test]
    fn all_conflicts_are_told_each_with_its_place() {
        let drafts = [
            draft("web-1", Some(&["52:54:01:00:00:02"])),
            draft("vdi-02", Some(&["52:54:01:00:00:03", "52:54:01:00:00:03"])),
            draft("WEB-1", Some(&[])),
            Draft { machine_sid: Some(Sid::machine([1, 2, 3])), ..draft("web-4", None) },
        ];
        let Err(PoolError::Conflicts(found)) = taken().complete(&pool(None, 0), &drafts) else { panic!() };
        let places: Vec<_> = found.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [0, 1, 1, 2, 3]);
        assert_eq!(
            found[0].1.to_string(),
            "the MAC address 52:54:01:00:00:02 is taken by VDI-02 of the pool old"
        );
        assert!(matches!(&found[1].1, Conflict::Hostname(..)));
        assert!(matches!(&found[2].1, Conflict::Mac(_, owner) if owner == "another NIC"));
        assert!(matches!(&found[3].1, Conflict::Hostname(_, owner) if owner.starts_with("web-1")));
        assert!(matches!(&found[4].1, Conflict::Sid(..)));
    }

    #[test]
    fn a_pool_with_a_source_wants_an_address_for_each_nic() {
        let pool = pool(Some("52:54:01"), 2);
        let drafts = [draft("web-1", Some(&["52:54:02:00:00:02"]))];
        let error = Taken::default().complete(&pool, &drafts).unwrap_err();
        assert_eq!(
            error.to_string(),
            "nothing was added: web-1 has 1 MAC addresses, and the pool wants 2 for each"
        );
        // What one asks for is not drawn for another.
        let pool =
            NewPool { macs: Some("52:54:01:00:00:01-52:54:01:00:00:02".parse().unwrap()), nics: 1, ..pool };
        let drafts = [draft("web-1", None), draft("web-2", Some(&["52:54:01:00:00:01"]))];
        let entries = Taken::default().complete(&pool, &drafts).unwrap();
        assert_eq!(entries[0].macs[0].octets()[5], 2);
    }
}
