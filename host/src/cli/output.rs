//! What is printed: JSON for scripts, tables for people.

use comfy_table::{Table, TableStyle};
use ramet::{
    child::{Child, Memory, State, record::Timings},
    name::Name,
};
use ramet_proto::{
    InstanceId, MacAddr, MachineId, Sid, SshPublicKey,
    domain::{DomainAccount, JoinEvidence},
};
use serde::Serialize;
use std::net::IpAddr;

/// A child, as scripts see it.
#[derive(Debug, Serialize)]
pub(crate) struct ChildView {
    pub(crate) name: Name,
    pub(crate) template: Name,
    pub(crate) state: State,
    /// `null` while it does not run.
    pub(crate) cid: Option<u32>,
    pub(crate) pid: Option<u32>,
    pub(crate) identity: IdentityView,
    pub(crate) timings_ms: Timings,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
}

/// An identity, as scripts see it.
#[derive(Debug, Serialize)]
pub(crate) struct IdentityView {
    pub(crate) instance_id: InstanceId,
    pub(crate) hostname: ramet_proto::Hostname,
    pub(crate) macs: Vec<MacAddr>,
    pub(crate) machine_id: MachineId,
    pub(crate) machine_sid: Sid,
    pub(crate) domain: Option<DomainAccount>,
    pub(crate) ssh_host_keys: Vec<SshPublicKey>,
}

/// A child and what was found out about it just now.
#[derive(Debug, Serialize)]
pub(crate) struct ShowView {
    #[serde(flatten)]
    pub(crate) child: ChildView,
    /// What it found when it tried its domain account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) joined: Option<JoinEvidence>,
    pub(crate) memory: Option<Memory>,
    /// What the guest says it has, if it answers.
    pub(crate) addresses: Vec<IpAddr>,
    /// The last lines of its console.
    pub(crate) console: Vec<String>,
}

impl From<Child> for ChildView {
    fn from(child: Child) -> Self {
        let record = child.record;
        let identity = record.identity;
        Self {
            name: record.name,
            template: record.template,
            state: child.state,
            cid: child.pid.map(|_| record.cid),
            pid: child.pid,
            identity: IdentityView {
                instance_id: identity.instance_id,
                hostname: identity.hostname,
                macs: identity.macs,
                machine_id: identity.machine_id,
                machine_sid: identity.machine_sid,
                domain: identity.domain,
                ssh_host_keys: record.evidence.map(|evidence| evidence.ssh_host_keys).unwrap_or_default(),
            },
            timings_ms: record.timings_ms,
            failure: record.failure,
        }
    }
}

/// Prints `value` as JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// Prints a table with `header`.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_header(header);
    table.add_rows(rows);
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    print(&lines.join("\n"))
}

/// Prints a line. A reader that has seen enough and hung up is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Milliseconds, or a dash.
pub(crate) fn ms(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |ms| ms.to_string())
}

/// Bytes in MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// Several values in one cell.
pub(crate) fn joined(values: &[impl ToString]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
