//! Reading an identity back from where the system keeps it.

use super::{
    ApplyError, Context, addresses, authorized_keys, boot_id, clock, cloud_init, domain, hostname,
    machine_id, machine_sid,
    manager::{self, Manager},
    names, network, nics, random, ssh,
};
use crate::{netlink::Interface, root::Root, system::System};
use ramet_proto::{
    BootId, Evidence, InstanceId,
    message::{Failure, RandomSample, Step, UniqueValue},
    text::Text,
};

/// What is the template's, read before anything is changed: none of it may be left.
pub(super) struct Inherited {
    /// As bytes: what is about to go need not be right.
    ssh_host_keys: Vec<Vec<u8>>,
    boot_id: Option<BootId>,
    unique: Vec<UniqueValue>,
}

impl Inherited {
    pub(super) fn read(root: &Root) -> Result<Self, Failure> {
        Ok(Self {
            ssh_host_keys: ssh::inherited(root).map_err(|error| error.at(Step::SshHostKeys))?,
            boot_id: boot_id::read(root).map_err(|error| error.at(Step::BootId))?,
            unique: unique(root).map_err(|error| error.at(Step::Names))?,
        })
    }
}

/// The values that no two guests may share, of the files there are.
fn unique(root: &Root) -> Result<Vec<UniqueValue>, ApplyError> {
    let values = network::values(root)?.into_iter().map(|(name, value)| (name.to_owned(), value));
    let values = values.chain(names::values(root)?);
    Ok(values.map(|(name, value)| UniqueValue { name: Text::new(&name), value: Text::new(&value) }).collect())
}

/// What the system shows now. `instance_id` is what the agent remembers: the system has no place for it.
pub(crate) fn observe<S: System>(
    instance_id: InstanceId,
    root: &Root,
    system: &S,
) -> Result<Evidence, ApplyError> {
    shown(instance_id, root, system, &system.interfaces()?, &manager::ask(system)?)
}

/// The same, where the interfaces and what the service manager takes this machine for are known.
fn shown<S: System>(
    instance_id: InstanceId,
    root: &Root,
    system: &S,
    interfaces: &[Interface],
    manager: &Manager,
) -> Result<Evidence, ApplyError> {
    let failed = |what| move |error| ApplyError::System(what, error);
    let name = system.hostname().map_err(failed("ask for the hostname"))?;
    let mut unique = unique(root)?;
    unique.push(UniqueValue { name: Text::new("pid1_machine_id"), value: Text::new(&manager.machine_id) });
    let boot_id = boot_id::read(root)?;
    // Where nothing needs it, its boot id is one that all siblings have.
    if boot_id.is_some_and(|id| manager.has_boot_id(id)) {
        unique.push(UniqueValue { name: Text::new("pid1_boot_id"), value: Text::new(&manager.boot_id) });
    }
    Ok(Evidence {
        instance_id,
        hostname: name
            .parse()
            .map_err(|error| ApplyError::Mismatch(format!("the kernel's hostname: {error}")))?,
        machine_id: machine_id::read(root)?,
        boot_id,
        nics: nics::evidence(interfaces),
        ssh_host_keys: ssh::public_keys(root)?,
        random_sample: RandomSample(random(system)?),
        cid: system.local_cid().map_err(failed("ask for the context id"))?,
        machine_sid: machine_sid::read(root, system)?,
        domain: domain::read(root)?,
        unique,
        steps: Vec::new(),
        // Last: asking Samba for its SID may take seconds, and this is compared with now.
        unix_time_ns: system.clock().map_err(failed("read the clock"))?,
    })
}

/// What the system shows, once it is found to be what was asked for.
pub(super) fn verify<S: System>(
    context: &Context<'_, S>,
    manager: &Manager,
    inherited: &Inherited,
) -> Result<Evidence, ApplyError> {
    let Context { order, root, system, config } = *context;
    let identity = order.identity;
    let interfaces = system.interfaces()?;
    let evidence = shown(identity.instance_id, root, system, &interfaces, manager)?;
    clock::verify(order, evidence.unix_time_ns)?;
    if evidence.machine_id != identity.machine_id {
        return Err(ApplyError::Mismatch(format!("the machine-id is {}", evidence.machine_id)));
    }
    if evidence.hostname != identity.hostname {
        return Err(ApplyError::Mismatch(format!("the hostname is {}", evidence.hostname)));
    }
    hostname::verify(&identity.hostname, root)?;
    boot_id::verify(evidence.boot_id, inherited.boot_id, root)?;
    nics::verify(&identity.nics, &interfaces)?;
    network::verify(root)?;
    names::verify(root)?;
    addresses::verify(identity, root, &interfaces)?;
    ssh::verify(&evidence.ssh_host_keys, &inherited.ssh_host_keys, root, config)?;
    if let Some(kept) = evidence.unique.iter().find(|one| inherited.unique.contains(one)) {
        return Err(ApplyError::Mismatch(format!("{} is still the template's", kept.name)));
    }
    cloud_init::verify(identity, root)?;
    domain::verify(evidence.domain.as_ref(), identity)?;
    machine_sid::verify(evidence.machine_sid.as_ref(), identity)?;
    authorized_keys::verify(identity, root)?;
    Ok(evidence)
}
