//! Asking again, later, whether a child is who it was made to be: the child itself, and those who see it from outside.

use crate::{
    agent::{Agent, AgentError},
    child::{self, Child},
    fork::{
        evidence::{self, Told},
        stages::now_ns,
    },
    net::NetSpec,
    qemu::qmp::Qmp,
    state::StateDir,
    template::Template,
};
use ramet_proto::{Evidence, MacAddr, SshPublicKey};
use serde::Serialize;
use std::{collections::BTreeSet, net::IpAddr, process::Stdio, time::Duration};

/// How long a child may take to answer. It may be busy with what it is for.
const ANSWER: Duration = Duration::from_secs(20);
/// How long sshd may take, in seconds.
const KEYSCAN: &str = "10";

/// What a look at a child found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Who was asked: `agent`, `qemu`, `sshd`, `arp`.
    pub seen_by: &'static str,
    /// How it compares with what is recorded.
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
}

/// How what was seen compares with what is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The same.
    Right,
    /// Something else.
    Wrong,
    /// There was nothing to be seen.
    Unknown,
}

impl Verdict {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Wrong => "wrong",
            Self::Unknown => "unknown",
        }
    }
}

fn finding(seen_by: &'static str, verdict: Verdict, detail: impl Into<String>) -> Finding {
    Finding { seen_by, verdict, detail: detail.into() }
}

/// Looks at a running child from every side there is.
pub async fn verify(state: &StateDir, child: &Child) -> Vec<Finding> {
    let (agent, evidence) = by_agent(state, child).await;
    let mut findings = vec![agent, by_qemu(child).await];
    let (Some(evidence), Some(reported)) = (evidence, &child.record.evidence) else { return findings };
    for (address, mac) in reachable(state, child, &evidence) {
        findings.push(by_sshd(address, &reported.ssh_host_keys).await);
        // Asking sshd has made the host's kernel ask who has the address.
        findings.extend(by_arp(address, mac));
    }
    findings
}

/// What the child reads back from its own system now, compared with what it was told and with its siblings.
async fn by_agent(state: &StateDir, child: &Child) -> (Finding, Option<Evidence>) {
    let record = &child.record;
    let from = now_ns();
    let asked = async {
        let mut agent: Agent = Agent::dial(record.cid, ANSWER, || Ok::<_, AgentError>(())).await?;
        agent.observe(ANSWER).await
    };
    let evidence = match asked.await {
        Ok(evidence) => evidence,
        Err(error) => return (finding("agent", Verdict::Unknown, crate::chain(&error)), None),
    };
    let told = Told { identity: &record.identity, cid: record.cid, exchange_ns: (from, now_ns()) };
    let siblings: Vec<_> =
        child::list(state).into_iter().flatten().filter_map(|(_, found)| Some(found.ok()?.record)).collect();
    let judged = evidence::check(&evidence, &told)
        .and_then(|()| evidence::compare(&record.name, &evidence, &siblings))
        .map_err(|error| error.to_string());
    let known = record.evidence.as_ref().map(|evidence| &evidence.ssh_host_keys);
    let found = match judged {
        Err(error) => finding("agent", Verdict::Wrong, error),
        Ok(()) if known.is_some_and(|keys| *keys != evidence.ssh_host_keys) => {
            finding("agent", Verdict::Wrong, "its SSH host keys are others than those it reported")
        }
        Ok(()) => {
            finding("agent", Verdict::Right, "it is who it was told to be, and like none of its siblings")
        }
    };
    (found, Some(evidence))
}

/// For which addresses QEMU's NICs receive.
async fn by_qemu(child: &Child) -> Finding {
    let asked = async { Qmp::connect(&child.dir).await?.macs().await };
    match asked.await {
        Ok(macs) => {
            let told: BTreeSet<String> = child.record.identity.macs.iter().map(ToString::to_string).collect();
            let seen: BTreeSet<String> = macs.iter().map(|mac| mac.to_lowercase()).collect();
            let verdict = if seen == told { Verdict::Right } else { Verdict::Wrong };
            finding("qemu", verdict, format!("receives for {}", join(&seen)))
        }
        Err(error) => finding("qemu", Verdict::Unknown, crate::chain(&error)),
    }
}

/// The child's addresses on bridges, which this host may be able to reach, with the MAC addresses they belong to.
fn reachable(state: &StateDir, child: &Child, evidence: &Evidence) -> Vec<(IpAddr, MacAddr)> {
    let Ok(template) = Template::read(state, &child.record.template) else { return Vec::new() };
    let nics = child.record.identity.macs.iter().zip(&template.manifest.nics);
    let bridged: Vec<_> = nics.filter(|(_, nic)| matches!(nic.net, NetSpec::Bridge(_))).collect();
    let on_bridge = |mac: MacAddr| bridged.iter().any(|(bridged, _)| **bridged == mac);
    let nics = evidence.nics.iter().filter(|nic| on_bridge(nic.mac));
    nics.flat_map(|nic| nic.addresses.iter().map(|address| (*address, nic.mac))).collect()
}

/// Which host keys sshd offers at `address` (ssh-keyscan(1)).
async fn by_sshd(address: IpAddr, reported: &[SshPublicKey]) -> Finding {
    let mut keyscan = tokio::process::Command::new("ssh-keyscan");
    keyscan.args(["-T", KEYSCAN]).arg(address.to_string()).stdin(Stdio::null()).kill_on_drop(true);
    let output = match keyscan.output().await {
        Ok(output) => output,
        Err(error) => return finding("sshd", Verdict::Unknown, format!("cannot run ssh-keyscan: {error}")),
    };
    judge_keys(address, &String::from_utf8_lossy(&output.stdout), reported)
}

/// Compares what ssh-keyscan printed, `ADDRESS TYPE BASE64` on each line, with what was reported.
fn judge_keys(address: IpAddr, printed: &str, reported: &[SshPublicKey]) -> Finding {
    let lines = printed.lines().filter(|line| !line.starts_with('#'));
    let offered: Vec<SshPublicKey> = lines.filter_map(|line| line.split_once(' ')?.1.parse().ok()).collect();
    if offered.is_empty() {
        return finding("sshd", Verdict::Unknown, format!("nobody answers at {address}"));
    }
    match offered.iter().find(|key| !reported.contains(key)) {
        Some(key) => {
            finding("sshd", Verdict::Wrong, format!("offers {key} at {address}, which was not reported"))
        }
        None => finding("sshd", Verdict::Right, format!("offers the reported keys at {address}")),
    }
}

/// Whose the host's kernel believes `address` to be (arp(7)); nothing of IPv6 addresses.
fn by_arp(address: IpAddr, mac: MacAddr) -> Option<Finding> {
    let IpAddr::V4(address) = address else { return None };
    let entry = procfs::net::arp().ok()?.into_iter().find(|entry| entry.ip_address == address)?;
    let seen = MacAddr::new(entry.hw_address?).ok()?;
    let verdict = if seen == mac { Verdict::Right } else { Verdict::Wrong };
    Some(finding("arp", verdict, format!("{address} is at {seen}")))
}

fn join(texts: &BTreeSet<String>) -> String {
    texts.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_were_not_reported_are_found_and_named() {
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let key = |body: &str| format!("ssh-ed25519 {body}").parse::<SshPublicKey>().unwrap();
        let reported = [key("AAAAone")];
        let verdict = |printed: &str| judge_keys(address, printed, &reported).verdict;
        assert_eq!(verdict("# 10.0.0.1:22 SSH-2.0\n10.0.0.1 ssh-ed25519 AAAAone\n"), Verdict::Right);
        assert_eq!(verdict("10.0.0.1 ssh-ed25519 AAAAone\n10.0.0.1 ssh-ed25519 AAAAtwo\n"), Verdict::Wrong);
        assert_eq!(verdict("# nothing\n"), Verdict::Unknown);
    }
}
