//! What no agent can make right: keys that somebody has to give, members of clusters, what breaks when a machine with
//! another name or id boots again. It is left as it is, and told of while the image is made.

use super::{
    ApplyError, Finding,
    Grade::{self, Broken, Note, Open},
    Root, any, edit,
};
use crate::glob;

#[derive(Clone, Copy)]
struct Row {
    path: &'static str,
    /// What the file has, in lines that are no comments: all of these.
    holds: &'static [&'static str],
    /// Only if one of these is there, too.
    with: &'static [&'static str],
    grade: Grade,
    what: &'static str,
    fix: &'static str,
}

const fn row(path: &'static str, grade: Grade, what: &'static str, fix: &'static str) -> Row {
    Row { path, holds: &[], with: &[], grade, what, fix }
}

const fn holding(holds: &'static [&'static str], row: Row) -> Row {
    Row { holds, ..row }
}

const fn with(with: &'static [&'static str], row: Row) -> Row {
    Row { with, ..row }
}

const KEY: &str = "it is a private key, and the same in all children: each can be every other";
const KEY_FIX: &str =
    "take it out of the image, and give each child its own in a site's applier or past the gate";
const MEMBER: &str = "the template is a member of a cluster: its children are so many members with one id";
const MEMBER_FIX: &str = "leave the cluster in the image, and join past the gate";
const ENROLLED: &str = "the template is enrolled with a server, which takes all children for it";
const ENROL_FIX: &str = "enrol past the gate, or withdraw the enrolment in a site's applier";
const HOME: &str = "it is a user's, and the same in all children";
const HOME_FIX: &str = "remove it in the image; homes are not touched";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Keys that others know, or that only their owner can have signed.
    holding(&["PrivateKey"], row("etc/wireguard/*.conf", Open, KEY, KEY_FIX)),
    row("etc/wireguard/*.key", Open, KEY, KEY_FIX),
    holding(&["PrivateKey"], row("etc/systemd/network/*.netdev", Open, KEY, KEY_FIX)),
    holding(&["private-key"], row("etc/NetworkManager/system-connections/*", Open, KEY, KEY_FIX)),
    row("etc/netbird/config.json", Open, KEY, KEY_FIX),
    row("var/lib/netbird/*.json", Open, KEY, KEY_FIX),
    row("etc/nebula/*.key", Open, KEY, KEY_FIX),
    row("etc/ipsec.d/private/*", Open, KEY, KEY_FIX),
    holding(&[": "], row("etc/ipsec.secrets", Note, "secrets of IPsec are the same in all children", KEY_FIX)),
    row("etc/swanctl/private/*", Open, KEY, KEY_FIX),
    row("etc/swanctl/rsa/*", Open, KEY, KEY_FIX),
    row("etc/swanctl/ecdsa/*", Open, KEY, KEY_FIX),
    row("etc/openvpn/*.key", Open, KEY, KEY_FIX),
    row("etc/openvpn/*/*.key", Open, KEY, KEY_FIX),
    holding(&["<key>"], row("etc/openvpn/*.conf", Open, KEY, KEY_FIX)),
    holding(&["<key>"], row("etc/openvpn/*/*.conf", Open, KEY, KEY_FIX)),
    row("etc/letsencrypt/live/*/privkey.pem", Open, KEY, KEY_FIX),
    row("etc/letsencrypt/accounts/*", Note, "an ACME account is the same in all children", KEY_FIX),
    row("var/lib/caddy/.local/share/caddy/certificates/*", Open, KEY, KEY_FIX),
    row("etc/traefik/acme.json", Open, KEY, KEY_FIX),
    row("etc/webmin/miniserv.pem", Open, KEY, "remove it; `make-ssl-cert` or Webmin makes another"),
    row("etc/tinyssh/sshkeydir/*", Open, KEY, "remove it; tinysshd-makekey(8) makes another"),
    row("etc/dropbear/initramfs/dropbear_*_host_key", Open, "the initrd's SSH has the same key in all children", "make it and the initrd anew past the gate: dropbearkey(1), update-initramfs(8)"),
    row("etc/dropbear-initramfs/dropbear_*_host_key", Open, "the initrd's SSH has the same key in all children", "make it and the initrd anew past the gate: dropbearkey(1), update-initramfs(8)"),
    row("etc/gnome-remote-desktop/*.key", Open, KEY, KEY_FIX),
    row("var/lib/gnome-remote-desktop/.local/share/gnome-remote-desktop/certificates/*", Open, KEY, KEY_FIX),
    row("etc/cloudflared/*.json", Open, KEY, KEY_FIX),
    row("var/lib/icinga2/certs/*.key", Open, KEY, KEY_FIX),
    row("etc/puppetlabs/puppetserver/ca/ca_key.pem", Open, "the CA's key is the same in all children, and is left where it is, with the agent's", KEY_FIX),
    row("usr/NX/etc/keys/host/nx_host_rsa_key", Open, KEY, "nxserver --keygen"),
    row("var/lib/systemd/home/*.identity", Note, "home directories are signed with one key in all children", "homectl remove, or keep homes out of the image"),
    row("var/lib/certmonger/requests/*", Note, "certmonger renews the template's certificates in every child", KEY_FIX),
    row("etc/ipa/default.conf", Broken, ENROLLED, "ipa-client-install --uninstall in the image; enrol past the gate"),

    // Enrolled, and nothing to take it back by.
    row("etc/elastic-agent/fleet.enc", Open, ENROLLED, ENROL_FIX),
    row("opt/Elastic/Agent/fleet.enc", Open, ENROLLED, ENROL_FIX),
    row("opt/CrowdStrike/falconstore", Broken, ENROLLED, "falconctl -d -f --aid, the last thing in the image"),
    row("var/opt/microsoft/mdatp/*", Note, ENROLLED, ENROL_FIX),
    row("var/lib/cmk-agent/registered_connections.json", Note, ENROLLED, ENROL_FIX),
    row("var/lib/snapd/device/private-keys-v1/*", Note, "snapd has a device's key and serial, the same in all children", "build the image without a first start of snapd"),
    row("var/osquery/osquery.db", Note, "osquery keeps an id of its host, the same in all children", "remove it in the image"),
    row("var/lib/teleport/proc", Open, ENROLLED, ENROL_FIX),
    row("var/lib/rustdesk-server/id_ed25519", Open, KEY, KEY_FIX),
    row("etc/zypp/credentials.d/SCCcredentials", Note, ENROLLED, "SUSEConnect --cleanup in the image"),

    // Members.
    row("var/lib/docker/swarm/docker-state.json", Broken, MEMBER, "docker swarm leave --force"),
    row("var/lib/etcd/member", Broken, MEMBER, MEMBER_FIX),
    row("etc/kubernetes/kubelet.conf", Broken, MEMBER, "kubeadm reset in the image; kubeadm join past the gate"),
    row("var/lib/rancher/k3s/server/db", Broken, MEMBER, MEMBER_FIX),
    row("var/lib/rancher/rke2/server/db", Broken, MEMBER, MEMBER_FIX),
    row("var/snap/microk8s/current/var/kubernetes/backend/*", Broken, MEMBER, MEMBER_FIX),
    row("var/lib/glusterd/peers/*", Broken, MEMBER, "gluster peer detach"),
    row("var/lib/glusterd/vols/*", Broken, MEMBER, MEMBER_FIX),
    row("etc/corosync/corosync.conf", Note, MEMBER, MEMBER_FIX),
    row("var/lib/pacemaker/cib/cib.xml", Broken, MEMBER, MEMBER_FIX),
    holding(&["on "], row("etc/drbd.d/*.res", Broken, "DRBD knows its hosts by name, and a child has another", MEMBER_FIX)),
    row("var/lib/ceph/mon/*", Broken, MEMBER, MEMBER_FIX),
    row("var/lib/ceph/osd/*", Broken, MEMBER, MEMBER_FIX),
    row("var/lib/consul/raft/*", Broken, MEMBER, MEMBER_FIX),
    row("opt/consul/raft/*", Broken, MEMBER, MEMBER_FIX),
    row("var/lib/nomad/server/raft/*", Broken, MEMBER, MEMBER_FIX),
    row("opt/nomad/data/server/raft/*", Broken, MEMBER, MEMBER_FIX),
    row("opt/vault/data/raft/*", Broken, MEMBER, MEMBER_FIX),
    row("var/lib/elasticsearch/_state", Broken, "its node id is the same in all children, which cannot be in one cluster", "start Elasticsearch for the first time past the gate"),
    row("var/lib/elasticsearch/nodes/*", Broken, "its node id is the same in all children, which cannot be in one cluster", "start Elasticsearch for the first time past the gate"),
    row("var/lib/kafka/*/meta.properties", Broken, "the broker's id is the same in all children", MEMBER_FIX),
    row("var/lib/zookeeper/myid", Note, "the server's number is the same in all children", MEMBER_FIX),
    row("var/lib/rabbitmq/mnesia/rabbit@*", Broken, "RabbitMQ keeps its data by the host's name, so a child begins with none", "set NODENAME in /etc/rabbitmq/rabbitmq-env.conf, or start it for the first time past the gate"),
    row("var/lib/cassandra/data/system/local-*", Broken, MEMBER, MEMBER_FIX),
    row("etc/pve/corosync.conf", Broken, MEMBER, MEMBER_FIX),
    holding(&["usmUser "], row("var/lib/snmp/snmpd.conf", Broken, "SNMPv3 users are bound to the engine id (RFC 3414, section 2.6), so all children have one", "create the users past the gate")),
    holding(&["usmUser "], row("var/lib/net-snmp/snmpd.conf", Broken, "SNMPv3 users are bound to the engine id (RFC 3414, section 2.6), so all children have one", "create the users past the gate")),

    // What a child's next boot stumbles over.
    holding(&["system_id_source", "uname"], row("etc/lvm/lvm*.conf", Broken, "volume groups belong to a name that no child has: at its next boot they are foreign (lvmsystemid(7))", "system_id_source = \"none\", and vgchange --systemid \"\"")),
    holding(&["system_id_source", "machineid"], row("etc/lvm/lvm*.conf", Broken, "volume groups belong to a machine-id that no child has: at its next boot they are foreign (lvmsystemid(7))", "system_id_source = \"none\", and vgchange --systemid \"\"")),
    with(&["dev/md/*", "sys/block/md*"], holding(&["HOMEHOST", "<system>"], row("etc/mdadm/mdadm.conf", Broken, "arrays belong to the template's name: at a child's next boot their names are others (mdadm.conf(5), HOMEHOST)", "HOMEHOST <ignore>, and update the initrd"))),
    with(&["dev/md/*", "sys/block/md*"], holding(&["HOMEHOST", "<system>"], row("etc/mdadm.conf", Broken, "arrays belong to the template's name: at a child's next boot their names are others (mdadm.conf(5), HOMEHOST)", "HOMEHOST <ignore>, and update the initrd"))),
    with(&["etc/hostid"], row("etc/zfs/zpool.cache", Broken, "pools are in use by this /etc/hostid, so it is left, and siblings share it: multihost does not protect them from each other", "zpool export before the template is made, and import past the gate")),
    with(&["boot/initramfs-*.img"], holding(&["hostonly=\"yes\""], row("usr/lib/dracut/dracut.conf.d/*.conf", Note, "the initrd is for this host only: at a child's boot it begins with the template's name and machine-id (dracut.conf(5), hostonly)", "hostonly=no in /etc/dracut.conf.d, or `dracut -f` past the gate"))),
    with(&["boot/initramfs-*.img"], holding(&["hostonly=\"yes\""], row("etc/dracut.conf.d/*.conf", Note, "the initrd is for this host only: at a child's boot it begins with the template's name and machine-id (dracut.conf(5), hostonly)", "hostonly=no in /etc/dracut.conf.d, or `dracut -f` past the gate"))),
    row("boot/initramfs-*kdump.img", Note, "kdump's initrd has the template's name in it", "touch /etc/kdump.conf past the gate, and it is made anew"),
    row("sys/module/nfs/parameters/nfs4_unique_id", Note, "the NFS client was loaded in the template: it keeps its id until it is loaded again", "mount nothing by NFS before the gate"),

    // Users' own. Homes are not touched.
    row("home/*/.config/pulse/cookie", Note, HOME, HOME_FIX),
    row("home/*/.Xauthority", Note, HOME, HOME_FIX),
    row("home/*/.ICEauthority", Note, HOME, HOME_FIX),
    row("home/*/.vnc/*.pem", Open, KEY, HOME_FIX),
    row("home/*/.ssh/id_*", Note, "a user's private key is the same in all children", HOME_FIX),
    row("root/.ssh/id_*", Note, "root's private key is the same in all children", "take it out of the image"),
    row("home/*/.gnupg/random_seed", Note, HOME, HOME_FIX),
    row("home/*/.rnd", Note, HOME, HOME_FIX),
    row("home/*/.local/share/keyrings/*.keyring", Note, HOME, HOME_FIX),
    row("home/*/.local/share/gnome-remote-desktop/*", Open, KEY, HOME_FIX),
    row("home/*/.config/chrome-remote-desktop/host#*.json", Open, ENROLLED, HOME_FIX),
    row("home/*/.config/rustdesk/RustDesk.toml", Note, HOME, HOME_FIX),
    row("home/*/.anydesk/service.conf", Note, HOME, HOME_FIX),
    row("home/*/.dropbox", Note, HOME, HOME_FIX),
    row("var/lib/bluetooth/*", Note, "pairings of the template's adapter are in every child", "remove them in the image"),
];

/// What is there of all that.
pub(super) fn check(root: &Root) -> Result<Vec<Finding>, ApplyError> {
    let mut found: Vec<Finding> = Vec::new();
    for row in ROWS {
        if !row.with.is_empty() && !any(row.with, root)? {
            continue;
        }
        for path in glob::expand(root, row.path)? {
            if row.holds.is_empty() || has(row.holds, &path, root)? {
                let finding = Finding::new(row.grade, &format!("/{path}: {}", row.what), row.fix);
                if !found.contains(&finding) {
                    found.push(finding);
                }
            }
        }
    }
    Ok(found)
}

/// Whether the file at `path` has all of `texts`. What cannot be read has none: it is not the agent that reads it.
fn has(texts: &[&str], path: &str, root: &Root) -> Result<bool, ApplyError> {
    if root.is_dir(path)? {
        return Ok(false);
    }
    let bytes = root.read(path).ok().flatten().unwrap_or_default();
    Ok(texts.iter().all(|text| edit::holds(&bytes, text)))
}

#[cfg(test)]
pub(super) fn samples()
-> impl Iterator<Item = (&'static str, &'static [&'static str], &'static [&'static str])> {
    ROWS.iter().map(|row| (row.path, row.holds, row.with))
}
