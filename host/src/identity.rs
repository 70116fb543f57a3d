//! Who a child is to be: read from a file, or generated.

use crate::{
    fs::{AtPath, FsError},
    name::Name,
};
use ramet_proto::{
    Hostname, InstanceId, MacAddr, MachineId, Sid,
    domain::DomainAccount,
    identity::InvalidIdentity,
    login::{AuthorizedKey, UserKeys, UserName},
    network::{DomainName, InterfaceAddress, IpConfig, UnicastIp},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    fs::File,
    io::Read as _,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// The public part of an identity: what is recorded of a child and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildIdentity {
    /// Names this individual for its whole life.
    pub instance_id: InstanceId,
    /// Its host name.
    pub hostname: Hostname,
    /// The addresses of its NICs, in the template's order.
    pub macs: Vec<MacAddr>,
    /// machine-id(5).
    pub machine_id: MachineId,
    /// The machine's own SID.
    pub machine_sid: Sid,
    /// The computer account it is in a domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainAccount>,
    /// The static IP configurations of its NICs, in the template's order; NICs without one, and those that are left
    /// out at the end, are as the image has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip: Vec<Option<IpConfig>>,
    /// Users' SSH keys, in place of the template's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorized_keys: Vec<UserKeys>,
}

impl ChildIdentity {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> + Clone {
        self.ip.iter().flatten().flat_map(|ip| ip.addresses.as_slice()).map(|address| address.ip())
    }
}

/// What a user asks for in an identity file; whatever is left out is generated.
///
/// ```toml
/// hostname = "web-1"
/// macs = ["52:54:00:12:34:56"]
/// machine_id = "0123456789abcdef0123456789abcdef"
/// machine_sid = "S-1-5-21-1-2-3"
///
/// [[ip]]
/// addresses = ["192.0.2.7/24"]
/// gateways = ["192.0.2.1"]
/// dns = ["192.0.2.53"]
/// search = ["example.org"]
///
/// [[authorized_keys]]
/// user = "root"
/// keys = ["ssh-ed25519 AAAA… jane"]
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityFile {
    /// Its host name; generated: the child's name.
    pub hostname: Option<Hostname>,
    /// One address for each of the template's NICs, in their order.
    pub macs: Option<Vec<MacAddr>>,
    /// machine-id(5).
    pub machine_id: Option<MachineId>,
    /// The machine's own SID, `S-1-5-21-…`.
    pub machine_sid: Option<Sid>,
    /// One static IP configuration for each of the template's NICs, in their order.
    #[serde(default)]
    pub ip: Vec<IpEntry>,
    /// SSH keys of users.
    #[serde(default)]
    pub authorized_keys: Vec<KeysEntry>,
}

/// The static IP configuration of a NIC; empty, it is as the image has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IpEntry {
    /// Addresses with the lengths of their prefixes.
    pub addresses: Vec<InterfaceAddress>,
    /// Where default routes go.
    pub gateways: Vec<UnicastIp>,
    /// Name servers.
    pub dns: Vec<UnicastIp>,
    /// Domains in which short names are looked up.
    pub search: Vec<DomainName>,
}

impl IpEntry {
    fn config(&self) -> Result<Option<IpConfig>, IdentityError> {
        if *self == Self::default() {
            return Ok(None);
        }
        let Self { addresses, gateways, dns, search } = self.clone();
        Ok(Some(IpConfig { addresses: addresses.try_into()?, gateways, dns, search }))
    }
}

/// The SSH keys of a user.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysEntry {
    /// Who; the guest must know the user.
    pub user: UserName,
    /// The keys, in place of those that the user has in the template.
    pub keys: Vec<AuthorizedKey>,
}

/// Why an identity cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The file is far larger than any identity.
    #[error("{} is larger than {} bytes: it is no identity file", .0.display(), MAX_FILE)]
    TooLarge(PathBuf),
    /// The file does not say what an identity file may say.
    #[error("{} is not an identity file", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A SID that no machine can have.
    #[error("{0} is not a machine's SID: it must be S-1-5-21 and three numbers")]
    NotMachineSid(Sid),
    /// The number of MAC addresses is not that of NICs.
    #[error(
        "the identity has {given} MAC addresses and the template {nics} NICs: give one for each, or none"
    )]
    MacCount {
        /// In the identity.
        given: usize,
        /// In the template.
        nics: usize,
    },
    /// More static IP configurations than NICs.
    #[error(
        "the identity has {given} entries [[ip]] and the template {nics} NICs: give at most one for each"
    )]
    IpCount {
        /// In the identity.
        given: usize,
        /// In the template.
        nics: usize,
    },
    /// An IP address that another child has.
    #[error("the IP address {ip} is in use by {owner}")]
    IpInUse {
        /// The address.
        ip: IpAddr,
        /// Who has it.
        owner: String,
    },
    /// The keys of one user in two places.
    #[error("the identity has two entries [[authorized_keys]] for {0}: make them one")]
    UserTwice(UserName),
    /// A host name that another child has.
    #[error("the host name {hostname} is in use by the child {child}")]
    HostnameInUse {
        /// The name.
        hostname: Hostname,
        /// Who has it.
        child: Name,
    },
    /// A MAC address that another child or the template has.
    #[error("the MAC address {mac} is in use by {owner}")]
    MacInUse {
        /// The address.
        mac: MacAddr,
        /// Who has it.
        owner: String,
    },
    /// A machine-id that another child has.
    #[error("the machine id {machine_id} is in use by the child {child}")]
    MachineIdInUse {
        /// The id.
        machine_id: MachineId,
        /// Who has it.
        child: Name,
    },
    /// A generated value came out invalid, or an entry `[[ip]]` has no address.
    #[error(transparent)]
    Invalid(#[from] InvalidIdentity),
    /// No randomness.
    #[error("the system has no random numbers")]
    Random,
}

/// The most bytes of an identity file.
const MAX_FILE: u64 = 64 * 1024;

impl IdentityFile {
    /// Reads and checks `path`.
    pub fn read(path: &Path) -> Result<Self, IdentityError> {
        let mut text = String::new();
        let file = File::open(path).at("read", path)?;
        file.take(MAX_FILE + 1).read_to_string(&mut text).at("read", path)?;
        if text.len() as u64 > MAX_FILE {
            return Err(IdentityError::TooLarge(path.to_owned()));
        }
        let identity: Self = toml::from_str(&text)
            .map_err(|source| IdentityError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        match &identity.machine_sid {
            Some(sid) if !sid.is_machine() => Err(IdentityError::NotMachineSid(sid.clone())),
            _ => Ok(identity),
        }
    }
}

/// Who has what on this host: children by their records, and the template.
#[derive(Debug, Default)]
pub struct InUse {
    /// The children's identities.
    pub children: Vec<(Name, ChildIdentity)>,
    /// The MAC addresses of all templates: a parent's address is never a child's.
    pub parents: Vec<(Name, MacAddr)>,
}

impl InUse {
    /// Fails if `identity` has something that somebody else has.
    pub fn check(&self, identity: &ChildIdentity) -> Result<(), IdentityError> {
        for (child, other) in &self.children {
            if other.hostname.same(&identity.hostname) {
                return Err(IdentityError::HostnameInUse {
                    hostname: identity.hostname.clone(),
                    child: child.clone(),
                });
            }
            if other.machine_id == identity.machine_id {
                return Err(IdentityError::MachineIdInUse {
                    machine_id: identity.machine_id,
                    child: child.clone(),
                });
            }
            if let Some(&mac) = identity.macs.iter().find(|mac| other.macs.contains(mac)) {
                return Err(IdentityError::MacInUse { mac, owner: format!("the child {child}") });
            }
            if let Some(ip) = identity.addresses().find(|ip| other.addresses().any(|theirs| theirs == *ip)) {
                return Err(IdentityError::IpInUse { ip, owner: format!("the child {child}") });
            }
        }
        for (template, mac) in &self.parents {
            if identity.macs.contains(mac) {
                return Err(IdentityError::MacInUse { mac: *mac, owner: format!("the template {template}") });
            }
        }
        let mut seen = HashSet::new();
        if let Some(ip) = identity.addresses().find(|ip| !seen.insert(*ip)) {
            return Err(IdentityError::IpInUse { ip, owner: "another NIC of the same child".to_owned() });
        }
        let mut seen = HashSet::new();
        match identity.macs.iter().find(|mac| !seen.insert(**mac)) {
            Some(&mac) => {
                Err(IdentityError::MacInUse { mac, owner: "another NIC of the same child".to_owned() })
            }
            None => Ok(()),
        }
    }

    fn has_mac(&self, mac: MacAddr) -> bool {
        self.children.iter().any(|(_, other)| other.macs.contains(&mac))
            || self.parents.iter().any(|(_, parent)| *parent == mac)
    }
}

/// The identity of the child `name` with `nics` NICs: what `file` asks for, the rest generated. Unlike everything
/// `in_use`, or an error.
pub fn complete(
    name: &Name,
    nics: usize,
    file: &IdentityFile,
    in_use: &InUse,
) -> Result<ChildIdentity, IdentityError> {
    let macs = match &file.macs {
        Some(macs) if macs.len() != nics => return Err(IdentityError::MacCount { given: macs.len(), nics }),
        Some(macs) => macs.clone(),
        None => (0..nics).map(|_| random_mac(in_use)).collect::<Result<_, _>>()?,
    };
    if file.ip.len() > nics {
        return Err(IdentityError::IpCount { given: file.ip.len(), nics });
    }
    let mut users = HashSet::new();
    if let Some(twice) = file.authorized_keys.iter().find(|entry| !users.insert(&entry.user)) {
        return Err(IdentityError::UserTwice(twice.user.clone()));
    }
    let identity = ChildIdentity {
        instance_id: InstanceId::random(),
        hostname: match &file.hostname {
            Some(hostname) => hostname.clone(),
            None => name.as_str().parse()?,
        },
        macs,
        machine_id: file.machine_id.unwrap_or_else(MachineId::random),
        machine_sid: match &file.machine_sid {
            Some(sid) => sid.clone(),
            None => Sid::machine([random_u32()?, random_u32()?, random_u32()?]),
        },
        domain: None,
        ip: file.ip.iter().map(IpEntry::config).collect::<Result<_, _>>()?,
        authorized_keys: file
            .authorized_keys
            .iter()
            .map(|entry| UserKeys { user: entry.user.clone(), keys: entry.keys.clone() })
            .collect(),
    };
    in_use.check(&identity)?;
    Ok(identity)
}

/// A MAC address that nobody in `in_use` has, from the range that QEMU and libvirt use for guests.
pub fn random_mac(in_use: &InUse) -> Result<MacAddr, IdentityError> {
    loop {
        let [a, b, c, _] = random_u32()?.to_be_bytes();
        let mac = MacAddr::new([0x52, 0x54, 0x00, a, b, c])?;
        if !in_use.has_mac(mac) {
            return Ok(mac);
        }
    }
}

fn random_u32() -> Result<u32, IdentityError> {
    getrandom::u32().map_err(|_| IdentityError::Random)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<IdentityFile, IdentityError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.toml");
        std::fs::write(&path, text).unwrap();
        IdentityFile::read(&path)
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// The whole chain of causes, as a user sees it.
    fn told(error: &dyn std::error::Error) -> String {
        error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", told(source)))
    }

    #[test]
    fn an_identity_file_is_taken_at_its_word_or_refused() {
        let good = file("hostname = \"web-1\"\nmacs = [\"52:54:00:00:00:01\"]").unwrap();
        assert_eq!(good.hostname.unwrap().as_str(), "web-1");
        for (bad, why) in [
            ("hostnam = \"web-1\"", "unknown field `hostnam`"),
            ("hostname = \"web_1\"", "only letters, digits, hyphens and dots"),
            ("macs = [\"01:00:00:00:00:01\"]", "multicast"),
            ("machine_id = \"1\"", "32 hexadecimal digits"),
            ("machine_sid = \"S-1\"", "SID"),
            ("machine_sid = \"S-1-5-32-544\"", "machine's SID"),
            ("[[ip]]\naddresses = [\"192.0.2.7\"]", "a slash"),
            ("[[ip]]\naddress = [\"192.0.2.7/24\"]", "unknown field `address`"),
            ("[[ip]]\ndns = [\"127.0.0.1\"]", "loopback"),
            ("[[authorized_keys]]\nuser = \"root\"", "missing field `keys`"),
            ("[[authorized_keys]]\nuser = \"a b\"\nkeys = []", "user name"),
            ("[[authorized_keys]]\nuser = \"root\"\nkeys = [\"AAAA\"]", "algorithm"),
            ("hostname = ", "identity.toml is not an identity file"),
        ] {
            let error = file(bad).unwrap_err();
            assert!(told(&error).contains(why), "{bad}: {}", told(&error));
        }
        assert!(matches!(file(&"#".repeat(70_000)), Err(IdentityError::TooLarge(_))));
        assert!(matches!(IdentityFile::read(Path::new("/nonexistent")), Err(IdentityError::Fs(_))));
    }

    #[test]
    fn what_is_left_out_is_generated_and_differs() {
        let in_use = InUse::default();
        let a = complete(&name("web-1"), 2, &IdentityFile::default(), &in_use).unwrap();
        let b = complete(&name("web-2"), 2, &IdentityFile::default(), &in_use).unwrap();
        assert_eq!(a.hostname.as_str(), "web-1");
        assert_eq!(a.macs.len(), 2);
        assert!(a.machine_sid.is_machine());
        assert_ne!(a.machine_id, b.machine_id);
        assert_ne!(a.machine_sid, b.machine_sid);
        assert_ne!(a.instance_id, b.instance_id);
        assert!(a.macs.iter().all(|mac| !b.macs.contains(mac)));
    }

    #[test]
    fn nothing_in_use_is_given_again() {
        let first = complete(&name("web-1"), 1, &IdentityFile::default(), &InUse::default()).unwrap();
        let parent: MacAddr = "52:54:00:00:00:09".parse().unwrap();
        let in_use =
            InUse { children: vec![(name("web-1"), first.clone())], parents: vec![(name("debian"), parent)] };
        let with = |file: IdentityFile| complete(&name("web-2"), 1, &file, &in_use).unwrap_err().to_string();
        let hostname = IdentityFile { hostname: Some("WEB-1".parse().unwrap()), ..IdentityFile::default() };
        assert!(with(hostname).contains("in use by the child web-1"));
        let mac = IdentityFile { macs: Some(first.macs.clone()), ..IdentityFile::default() };
        assert!(with(mac).contains("in use by the child web-1"));
        let parents = IdentityFile { macs: Some(vec![parent]), ..IdentityFile::default() };
        assert!(with(parents).contains("in use by the template debian"));
        let id = IdentityFile { machine_id: Some(first.machine_id), ..IdentityFile::default() };
        assert!(with(id).contains("machine id"));
        let with_ip = file("[[ip]]\naddresses = [\"192.0.2.7/24\"]").unwrap();
        let first = complete(&name("web-1"), 1, &with_ip, &InUse::default()).unwrap();
        let in_use = InUse { children: vec![(name("web-1"), first)], parents: Vec::new() };
        let again = complete(&name("web-2"), 1, &with_ip, &in_use).unwrap_err().to_string();
        assert_eq!(again, "the IP address 192.0.2.7 is in use by the child web-1");
        let count = IdentityFile { macs: Some(Vec::new()), ..IdentityFile::default() };
        assert!(with(count).contains("0 MAC addresses"));
    }

    #[test]
    fn static_addresses_and_keys_are_taken_over_or_refused() {
        let ip = |address: &str| format!("[[ip]]\naddresses = [\"{address}\"]\ngateways = [\"192.0.2.1\"]\n");
        let complete = |text: &str| {
            complete(&name("web-1"), 2, &file(text).unwrap(), &InUse::default()).map_err(|error| told(&error))
        };
        let identity = complete(&format!("[[ip]]\n{}", ip("192.0.2.7/24"))).unwrap();
        assert_eq!(identity.ip[0], None);
        assert_eq!(identity.addresses().collect::<Vec<_>>(), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        let keys = "[[authorized_keys]]\nuser = \"root\"\nkeys = [\"ssh-ed25519 AAAAC3Nz jane\"]\n";
        assert_eq!(complete(keys).unwrap().authorized_keys[0].keys.len(), 1);
        for (bad, why) in [
            (ip("192.0.2.7/24") + &ip("192.0.2.7/25"), "in use by another NIC"),
            (ip("192.0.2.7/24") + &ip("192.0.2.8/24") + &ip("192.0.2.9/24"), "3 entries [[ip]]"),
            ("[[ip]]\ndns = [\"192.0.2.53\"]".to_owned(), "it is empty"),
            (keys.repeat(2), "two entries [[authorized_keys]] for root"),
        ] {
            let error = complete(&bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
