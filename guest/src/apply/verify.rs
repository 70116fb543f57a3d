//! Reading an identity back from where the system keeps it.

use super::{ApplyError, Order, clock, hostname, machine_id, nics, ssh};
use crate::{config::Config, netlink::Interface, root::Root, system::System};
use ramet_proto::{
    Evidence, InstanceId, SshPublicKey,
    message::{NicEvidence, RandomSample},
    text::Text,
};

/// What the system shows now. `instance_id` is what the agent remembers: the system has no place for it.
pub(crate) fn observe<S: System>(
    instance_id: InstanceId,
    root: &Root,
    system: &S,
) -> Result<Evidence, ApplyError> {
    let failed = |what| move |error| ApplyError::System(what, error);
    let name = system.hostname().map_err(failed("ask for the hostname"))?;
    let mut sample = [0; 32];
    system.random(&mut sample).map_err(failed("draw random bytes"))?;
    Ok(Evidence {
        instance_id,
        hostname: name
            .parse()
            .map_err(|error| ApplyError::Mismatch(format!("the kernel's hostname: {error}")))?,
        machine_id: machine_id::read(root)?,
        nics: system.interfaces()?.into_iter().filter_map(evidence).collect(),
        ssh_host_keys: ssh::public_keys(root)?,
        random_sample: RandomSample(sample),
        unix_time_ns: system.clock().map_err(failed("read the clock"))?,
        cid: system.local_cid().map_err(failed("ask for the context id"))?,
    })
}

fn evidence(interface: Interface) -> Option<NicEvidence> {
    let Interface { name, mac, up, addresses, .. } = interface;
    Some(NicEvidence { name: Text::new(&name), mac: mac?, up, addresses })
}

/// What the system shows, once it is found to be what was asked for.
pub(super) fn verify<S: System>(
    order: &Order<'_>,
    root: &Root,
    system: &S,
    config: &Config,
    inherited: &[SshPublicKey],
) -> Result<Evidence, ApplyError> {
    let identity = order.identity;
    let evidence = observe(identity.instance_id, root, system)?;
    clock::verify(order, evidence.unix_time_ns)?;
    if evidence.machine_id != identity.machine_id {
        return Err(ApplyError::Mismatch(format!("the machine-id is {}", evidence.machine_id)));
    }
    if evidence.hostname != identity.hostname {
        return Err(ApplyError::Mismatch(format!("the hostname is {}", evidence.hostname)));
    }
    hostname::verify(&identity.hostname, root)?;
    nics::verify(&identity.nics, &system.interfaces()?)?;
    ssh::verify(&evidence.ssh_host_keys, inherited, root, config)?;
    Ok(evidence)
}
