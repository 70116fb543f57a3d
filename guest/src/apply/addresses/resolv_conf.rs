//! resolv.conf(5), where no service writes it.

use super::{
    NOTE, Nic, Planned, each, list,
    owner::{Owners, Service},
    paths::real,
};
use crate::{apply::ApplyError, root::Root};

const PATH: &str = "etc/resolv.conf";

/// The file that is to be written, if one is. Its name servers are those of the NICs whose service has no means to pass
/// them on.
pub(super) fn planned(
    root: &Root,
    owners: &Owners<'_>,
    nics: &[(Service, &Nic<'_>)],
) -> Result<Option<Planned>, ApplyError> {
    let resolvconf = root.exists("usr/sbin/resolvconf")? || root.exists("sbin/resolvconf")?;
    let resolved = owners.resolved()?;
    // systemd-resolved never writes the file (systemd-resolved.service(8), "/ETC/RESOLV.CONF"): programs find it by a link.
    let is_file = root.is_regular(PATH)?;
    let is_passed_on = |service: Service| match service {
        Service::Networkd => resolved && !is_file,
        Service::NetworkManager => owners.manager.resolves(),
        Service::Ifupdown => resolvconf,
    };
    let with_dns: Vec<_> = nics.iter().filter(|(_, nic)| !nic.ip.dns.is_empty()).collect();
    let Some((_, first)) = with_dns.first() else { return Ok(None) };
    let left: Vec<_> =
        with_dns.iter().filter(|(service, _)| !is_passed_on(*service)).map(|(_, nic)| *nic).collect();
    // Whoever it is that would write it.
    let by_hand = !left.is_empty() || with_dns.iter().any(|(service, _)| *service != Service::Networkd);
    if by_hand && root.is_immutable(PATH)? {
        return Err(first.refused(&format!(
            "it has name servers, and /{PATH} is immutable (chattr(1)): take the flag away in the image, or give the \
             identity no dns"
        )));
    }
    if left.is_empty() {
        return Ok(None);
    }
    if let Some(link) = root.link(PATH)? {
        let to = real(root, PATH)?;
        let owner = if to.starts_with("run/systemd/resolve/") {
            resolved.then_some("systemd-resolved")
        } else if to.starts_with("run/NetworkManager/") {
            Some("NetworkManager").filter(|_| owners.manages())
        } else if to.starts_with("run/resolvconf/") || to.starts_with("etc/resolvconf/") {
            resolvconf.then_some("resolvconf")
        } else if to.starts_with("run/") {
            None
        } else {
            Some("somebody who is not known here")
        };
        if let Some(owner) = owner {
            return Err(first.refused(&format!(
                "it has name servers, and /{PATH} is a link to {link}, which belongs to {owner}, whom its network \
                 service does not tell: make it a file in the image, or give the identity no dns"
            )));
        }
    } else if root.is_dir(PATH)? {
        return Err(first.refused(&format!("/{PATH} is a directory: make it a file in the image")));
    }
    let mut text = NOTE.to_owned();
    let search: Vec<_> = left.iter().flat_map(|nic| &nic.ip.search).collect();
    list(&mut text, "search ", &search, " ");
    for nic in &left {
        each(&mut text, "nameserver ", &nic.ip.dns);
    }
    Ok(Some(Planned::new(PATH.into(), text.into_bytes(), 0o644)))
}
