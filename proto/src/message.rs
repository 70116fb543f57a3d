//! The messages, in the order of a conversation.
//!
//! ```text
//!   ramet                                ramet-agent
//!     | hello {versions} ------------------> |
//!     | <-- hello {version, state, cid, ...} |
//!     |                                      |
//!     | prepare -----------------------------> the parent, before it is suspended
//!     | <------------------------- prepared  |
//!     |                                      |
//!     | identify {identity} -----------------> a child, right after it was resumed
//!     | <--------------- applied {evidence}  |   or failed {step, reason, retryable, detail}
//!     | open --------------------------------> the host found the evidence right: the gate may open
//!     | <---------------------------- ready  |   when boot is complete
//!     |                                      |
//!     | join --------------------------------> a member of a domain: try the account on the network
//!     | <-------------- joined {evidence}    |   or failed {step: join, reason, ...}
//!     |                                      |
//!     | observe -----------------------------> any time after that, on a connection of its own
//!     | <-------------- observed {evidence}  |
//! ```
//!
//! A host that hangs up between `applied` and `open` leaves a child that never opens.
//!
//! What the host says, the agent takes whole or not at all: a field that it does not know, it would not act upon, so it
//! refuses the message. What the agent says may have fields that a host does not know. `hello`, which comes before a
//! version is agreed on, may have them in both directions.

use crate::{
    domain::{DomainEvidence, DomainIdentity, JoinEvidence},
    identity::{BootId, Hostname, InstanceId, MacAddr, MachineId, Sid, SshPublicKey},
    login::UserKeys,
    network::IpConfig,
    secret::Secret,
    text::Text,
};
use serde::{Deserialize, Deserializer, Serialize};
use std::net::IpAddr;

/// From the host to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HostMessage {
    /// Opens every connection.
    Hello {
        /// The protocol versions the host speaks.
        versions: Vec<u16>,
    },
    /// Be ready to be suspended: let pre-gate services settle, write everything to disk.
    #[serde(deserialize_with = "nothing_else")]
    Prepare,
    /// Become this individual.
    Identify(Box<Identity>),
    /// The evidence is what was asked for and like no sibling's: open the gate.
    #[serde(deserialize_with = "nothing_else")]
    Open,
    /// Read the evidence again and say what it is now.
    #[serde(deserialize_with = "nothing_else")]
    Observe,
    /// Try the domain account on the network, as soon as there is one.
    #[serde(deserialize_with = "nothing_else")]
    Join,
}

/// A message without fields. serde lets a unit variant have any, whatever `deny_unknown_fields` says.
fn nothing_else<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    Nothing::deserialize(deserializer).map(|Nothing {}| ())
}

/// From the agent to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GuestMessage {
    /// Answers the host's hello.
    Hello {
        /// The version both will speak from here on.
        version: u16,
        /// The agent's own version, to show.
        agent: Text,
        /// Where the guest is on its way through the gate.
        state: GuestState,
        /// The guest's own context id, as it sees it now (vsock(7)).
        cid: u32,
        /// What it can do besides what its version says: [`crate::FEATURES`] of its build.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        features: Vec<Text>,
    },
    /// Everything is on disk and quiet: suspend me.
    Prepared {
        /// What the agent found in its system that a template's owner should know. Agents of before it was told leave it
        /// out.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        findings: Vec<Finding>,
    },
    /// The identity is in force; this is what the system shows when asked.
    Applied(Box<Evidence>),
    /// Boot is complete: getty prompts and sshd accepts.
    Ready,
    /// The domain accepts this machine's account.
    Joined(Box<JoinEvidence>),
    /// Answers observe.
    Observed(Box<Evidence>),
    /// The step failed. A child held at its gate powers off when it cannot become who it was told to be.
    Failed(Failure),
}

/// Where a guest is on its way through the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "snake_case")]
pub enum GuestState {
    /// Waiting at the gate for an identity.
    Held,
    /// Past the gate as this individual; boot goes on.
    Open {
        /// Which individual.
        instance_id: InstanceId,
    },
    /// Past the gate as this individual; boot is complete.
    Ready {
        /// Which individual.
        instance_id: InstanceId,
    },
}

/// What makes a child an individual.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Names this individual for its whole life; a child that reboots finds it on its disk.
    pub instance_id: InstanceId,
    /// Static and kernel hostname.
    pub hostname: Hostname,
    /// machine-id(5).
    pub machine_id: MachineId,
    /// One entry for each NIC of the template.
    pub nics: Vec<NicIdentity>,
    /// The machine's own SID, for guests with Samba.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_sid: Option<Sid>,
    /// The domain it is a member of, and as whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainIdentity>,
    /// Who may log in with which SSH keys, besides what the image allows to other users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorized_keys: Vec<UserKeys>,
    /// Seed for the kernel's random pool, credited (random(4), `RNDADDENTROPY`).
    pub entropy: Secret,
    /// The host's `CLOCK_REALTIME` when it sent this, in nanoseconds since 1970-01-01T00:00:00Z.
    pub unix_time_ns: i64,
}

impl Identity {
    /// The first version of the protocol whose agents know all that this says. Agents of version 1 ignore what they do
    /// not know, so they must not be told more: a new field has to be looked at here.
    #[must_use]
    pub fn version(&self) -> u16 {
        let Self {
            instance_id: _,
            hostname: _,
            machine_id: _,
            nics: _,
            machine_sid: _,
            domain: _,
            authorized_keys: _,
            entropy: _,
            unix_time_ns: _,
        } = self;
        1
    }
}

/// A NIC's new address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NicIdentity {
    /// The address it has in the template: how the agent finds it.
    pub parent: MacAddr,
    /// The address it is to have.
    pub mac: MacAddr,
    /// Its IP configuration; left out, it is as the image has it, which mostly means DHCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpConfig>,
}

/// What the agent reads back from the system after it has applied an identity, or later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// What the guest believes to be.
    pub instance_id: InstanceId,
    /// uname(2)'s nodename.
    pub hostname: Hostname,
    /// /etc/machine-id.
    pub machine_id: MachineId,
    /// `/proc/sys/kernel/random/boot_id`. Agents of before this was made unique do not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<BootId>,
    /// Every interface with a link-layer address, in the kernel's order.
    pub nics: Vec<NicEvidence>,
    /// The public host keys sshd will offer.
    pub ssh_host_keys: Vec<SshPublicKey>,
    /// 32 bytes from getrandom(2), hexadecimal. Siblings that share a random stream show equal ones.
    pub random_sample: RandomSample,
    /// `CLOCK_REALTIME` in nanoseconds since 1970-01-01T00:00:00Z.
    pub unix_time_ns: i64,
    /// The guest's own context id (vsock(7)).
    pub cid: u32,
    /// The machine's own SID, where Samba is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_sid: Option<Sid>,
    /// The account of a member of a domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainEvidence>,
    /// Everything else that no two guests may have alike, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unique: Vec<UniqueValue>,
    /// In `applied`: the steps that were taken, in their order. Agents of version 1 leave it out.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "known_steps")]
    pub steps: Vec<Step>,
}

/// Steps that a newer agent has besides are its own business.
fn known_steps<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Step>, D::Error> {
    let words = Vec::<Text>::deserialize(deserializer)?;
    let known = |word: &Text| Step::ALL.iter().find(|step| step.word() == word.as_str()).copied();
    Ok(words.iter().filter_map(known).collect())
}

/// A value that no other guest has under the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UniqueValue {
    /// What it is: `nvme_hostid`, for one, or `site/APPLIER/KEY`.
    pub name: Text,
    /// The value.
    pub value: Text,
}

/// What the kernel says of one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicEvidence {
    /// Its name in the guest.
    pub name: Text,
    /// Its address now.
    pub mac: MacAddr,
    /// Administratively up (netdevice(7), `IFF_UP`).
    pub up: bool,
    /// Its addresses, link-local ones left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
}

/// 32 random bytes, hexadecimal on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RandomSample(pub [u8; 32]);

impl From<RandomSample> for String {
    fn from(sample: RandomSample) -> Self {
        crate::text::to_hex(&sample.0)
    }
}

impl TryFrom<String> for RandomSample {
    type Error = &'static str;

    fn try_from(hex: String) -> Result<Self, Self::Error> {
        let bytes = crate::text::from_hex(&hex).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("a random sample that is not 32 bytes of hexadecimal")
    }
}

/// Something in a guest's system, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub grade: Grade,
    /// What is so.
    pub what: Text,
    /// What to do about it.
    pub fix: Text,
}

impl Finding {
    /// A finding.
    #[must_use]
    pub fn new(grade: Grade, what: &str, fix: &str) -> Self {
        Self { grade, what: Text::new(what), fix: Text::new(fix) }
    }
}

/// A step that failed, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("step {step} failed in the guest: {reason} ({detail})")]
pub struct Failure {
    /// What the agent was doing.
    pub step: Step,
    /// Why it failed, from a fixed list that scripts can match.
    pub reason: Reason,
    /// Whether the same request may succeed when sent again.
    pub retryable: bool,
    /// For people.
    pub detail: Text,
}

impl Failure {
    /// A failure that the same request would meet again.
    #[must_use]
    pub fn new(step: Step, reason: Reason, detail: &str) -> Self {
        Self { step, reason, retryable: false, detail: Text::new(detail) }
    }

    /// The same, of a request that may succeed when it is sent again.
    #[must_use]
    pub fn retryable(self) -> Self {
        Self { retryable: true, ..self }
    }
}

/// A list of names, each with its snake-case word for the wire and for people.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every variant.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its word.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// What an agent does.
    Step {
        /// Agreeing on a protocol version.
        Hello = "hello",
        /// Getting ready to be suspended.
        Prepare = "prepare",
        /// Seeding the kernel's random pool.
        Entropy = "entropy",
        /// Setting the wall clock.
        Clock = "clock",
        /// Writing the machine-id.
        MachineId = "machine_id",
        /// Giving this boot an id of its own.
        BootId = "boot_id",
        /// Setting the hostname.
        Hostname = "hostname",
        /// Changing link-layer addresses.
        Nics = "nics",
        /// Forgetting the template's leases and secrets, configuring static addresses.
        Network = "network",
        /// Making SSH host keys.
        SshHostKeys = "ssh_host_keys",
        /// Making names for iSCSI and `NVMe`.
        Names = "names",
        /// Telling cloud-init whose machine it is on.
        CloudInit = "cloud_init",
        /// Becoming a member of a domain.
        Domain = "domain",
        /// Setting the machine's own SID.
        MachineSid = "machine_sid",
        /// Writing SSH keys of users.
        AuthorizedKeys = "authorized_keys",
        /// Having the service manager take this machine for what it is now.
        Manager = "manager",
        /// Running the site's appliers.
        Site = "site",
        /// Recording on disk who this is.
        Record = "record",
        /// Reading everything back.
        Verify = "verify",
        /// Letting boot go on.
        Open = "open",
        /// Trying the domain account on the network.
        Join = "join",
    }
}

words! {
    /// How bad a finding is, the worst first.
    #[derive(PartialOrd, Ord)]
    Grade {
        /// Every child would end of it: no template is made.
        Fatal = "fatal",
        /// Something gets past the gate, or is in before it.
        Open = "open",
        /// The guest will not come up, or a child will not get what it was asked for.
        Broken = "broken",
        /// Good to know.
        Note = "note",
    }
}

words! {
    /// Why a step failed.
    Reason {
        /// No protocol version in common.
        Version = "version",
        /// A message that has no place here.
        Unexpected = "unexpected",
        /// A message that could not be read.
        Malformed = "malformed",
        /// An operation of the guest's system failed.
        System = "system",
        /// Something the identity names is not in the guest.
        Missing = "missing",
        /// What was read back is not what was applied.
        Mismatch = "mismatch",
        /// It took too long.
        Timeout = "timeout",
        /// The domain does not accept the account.
        Refused = "refused",
    }
}
