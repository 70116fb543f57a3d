//! What is made the child's own, or nobody's. First what one child could be another by, then what servers know it by, then
//! randomness.

use super::{
    New, Row,
    Shown::{self, Digest, No, Value},
    Unless::{self, Never},
    What::{self, Make, Remove, Set, Write},
    edit::Key::{Inline, Line},
};

/// A row, as short as it can be written.
const fn row(path: &'static str, what: What, shown: Shown, why: &'static str) -> Row {
    Row { path, what, shown, unless: Never, why }
}

const fn but(unless: Unless, row: Row) -> Row {
    Row { path: row.path, what: row.what, shown: row.shown, unless, why: row.why }
}

const SNAKEOIL: &[&str] = &["generate-default-snakeoil", "--force-overwrite"];
const RSAKEYS: &[&str] = &["xrdp", "/etc/xrdp/rsakeys.ini"];

/// unbound-control-setup(8) makes what is not there.
const UNBOUND: &[&str] = &[
    "etc/unbound/unbound_server.key",
    "etc/unbound/unbound_server.pem",
    "etc/unbound/unbound_control.key",
    "etc/unbound/unbound_control.pem",
];

/// A Puppet server's certificate authority is its clients' as well.
const PUPPET_CA: Unless = Unless::There(&[
    "etc/puppetlabs/puppet/ssl/ca/ca_key.pem",
    "etc/puppetlabs/puppetserver/ca/ca_key.pem",
    "var/lib/puppet/ssl/ca/ca_key.pem",
]);

/// Others know these by the ids of members: `tell.rs` names them.
const GLUSTER: Unless = Unless::There(&["var/lib/glusterd/peers/*", "var/lib/glusterd/vols/*"]);
const ZPOOL: Unless = Unless::There(&["etc/zfs/zpool.cache"]);
const HOMES: Unless = Unless::There(&["var/lib/systemd/home/*.identity", "home/*.homedir", "home/*.home"]);
const SALT_MASTER: Unless = Unless::There(&["etc/salt/pki/master/minions/*"]);
const WAZUH_MANAGER: Unless = Unless::There(&["var/ossec/bin/wazuh-authd", "var/ossec/bin/ossec-authd"]);

/// Every state and its policy.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    // Keys. Whoever has one can be every sibling.
    row("etc/ssl/private/ssl-cert-snakeoil.key", Make { files: &[], program: "usr/sbin/make-ssl-cert", arguments: SNAKEOIL }, Digest("snakeoil_key"),
        "make-ssl-cert(8): the key of Apache, PostgreSQL, xrdp, Dovecot and Exim of Debian, made when ssl-cert is installed; the certificate has the name"),
    row("etc/xrdp/rsakeys.ini", Make { files: &[], program: "usr/bin/xrdp-keygen", arguments: RSAKEYS }, Digest("xrdp_rsakeys"),
        "xrdp-keygen(8): the key of RDP's own encryption, made when the package is installed"),
    row("etc/unbound/unbound_control.key", Make { files: UNBOUND, program: "usr/sbin/unbound-control-setup", arguments: &[] }, Digest("unbound_control_key"),
        "unbound-control(8): who has it commands the resolver"),
    row("etc/bind/rndc.key", Set(Line("secret"), New::Base64(48)), Digest("rndc_key"), "rndc(8), Debian: made when bind9 is installed"),
    row("etc/rndc.key", Set(Line("secret"), New::Base64(48)), Digest("rndc_key_etc"), "rndc(8), others"),
    row("etc/pki/tls/private/localhost.key", Remove, No, "httpd-init.service(8) of Fedora and RHEL makes it when it is not there"),
    row("etc/pki/tls/certs/localhost.crt", Remove, No, "of that key"),
    row("etc/cockpit/ws-certs.d/0-self-signed*", Remove, No, "cockpit-certificate-ensure makes it at each start without one"),
    row("etc/pki/dovecot/private/dovecot.pem", Remove, No, "dovecot-init.service of Fedora and RHEL makes it when it is not there"),
    row("etc/pki/dovecot/certs/dovecot.pem", Remove, No, "of that key"),
    row("etc/cups/ssl/*.key", Remove, No, "cupsd makes one for the name that it is asked by (cups-files.conf(5), CreateSelfSignedCerts)"),
    row("etc/cups/ssl/*.crt", Remove, No, "of that key"),
    row("var/lib/fwupd/pki/secret.key", Remove, No, "fwupd signs its reports with it, and makes it when it is not there"),
    row("var/lib/fwupd/pki/client.pem", Remove, No, "of that key"),
    row("var/lib/tailscale/tailscaled.state", Remove, No, "the node's key: two with one push each other off the tailnet"),
    row("var/lib/tailscale/tailscaled.log.conf", Remove, No, "the private id of the node's log"),
    row("var/lib/zerotier-one/identity.secret", Remove, No, "the node's address is made of it"),
    row("var/lib/zerotier-one/identity.public", Remove, No, "the public half"),
    row("var/lib/zerotier-one/authtoken.secret", Remove, No, "of its local control"),
    but(HOMES, row("var/lib/systemd/home/local.private", Remove, No, "systemd-homed.service(8) signs home directories with it")),
    but(HOMES, row("var/lib/systemd/home/local.public", Remove, No, "the public half")),
    row("etc/docker/key.json", Remove, No, "the engine's key and id before Docker 23, made when it is not there"),
    row("etc/datadog-agent/auth_token", Remove, No, "of the agent's local API, made when it is not there"),
    row("etc/rancher/node/password", Write(New::Hex(16)), Digest("k3s_node_password"), "k3s: the server ties a node's name to it"),
    row("var/lib/rabbitmq/.erlang.cookie", Write(New::Hex(16)), No, "erl(1), -setcookie: who has it runs code in the node. No evidence: what a site makes a cluster of shares one on purpose"),
    row("var/lib/couchdb/.erlang.cookie", Write(New::Hex(16)), No, "likewise"),
    row("var/lib/ejabberd/.erlang.cookie", Write(New::Hex(16)), No, "likewise"),
    row("var/lib/pulse/.config/pulse/cookie", Remove, No, "of PulseAudio's system instance"),
    row("var/lib/gdm*/.config/pulse/cookie", Remove, No, "of the greeter's"),
    row("var/lib/lightdm/.config/pulse/cookie", Remove, No, "of the greeter's"),
    row("root/.config/pulse/cookie", Remove, No, "of root's"),
    row("var/lib/lightdm/.Xauthority", Remove, No, "Xsecurity(7): of a display that is no more"),
    row("var/lib/gdm*/.ICEauthority", Remove, No, "of a session that is no more"),
    row("root/.Xauthority", Remove, No, "likewise"),

    // Ids that servers and peers know a machine by.
    but(ZPOOL, row("etc/hostid", Write(New::Noise(4, 4)), Value("hostid"), "gethostid(3): ZFS, licence managers")),
    row("etc/popularity-contest.conf", Set(Line("MY_HOSTID"), New::Hex(16)), Digest("popcon_hostid"), "popularity-contest(8): it calls it a secret number"),
    row("var/lib/docker/engine-id", Write(New::Uuid), Value("docker_engine_id"), "Docker from 23 on; registries and licences"),
    row("var/lib/containerd/io.containerd.grpc.v1.introspection/uuid", Write(New::Uuid), Value("containerd_uuid"), "containerd's server id"),
    but(PUPPET_CA, row("etc/puppetlabs/puppet/ssl", Remove, No, "Puppet's agent: a new certificate is asked for")),
    but(PUPPET_CA, row("var/lib/puppet/ssl", Remove, No, "Puppet's agent of Debian")),
    row("etc/salt/minion_id", Remove, No, "Salt makes it of the host's name"),
    but(SALT_MASTER, row("etc/salt/pki/minion/minion.pem", Remove, No, "the minion's key, made when it is not there")),
    but(SALT_MASTER, row("etc/salt/pki/minion/minion.pub", Remove, No, "the public half")),
    row("etc/chef/client.pem", Remove, No, "the node's key; it registers with the validator's"),
    row("etc/cinc/client.pem", Remove, No, "likewise"),
    row("etc/pki/consumer", Remove, No, "subscription-manager(8): the system's certificate; it registers with an activation key"),
    row("etc/pki/entitlement", Remove, No, "of that registration"),
    row("etc/insights-client/machine-id", Remove, No, "insights-client makes it when it is not there"),
    row("etc/insights-client/.registered", Remove, No, "that the template was"),
    row("var/lib/landscape/client/broker.bpickle*", Remove, No, "has the secure id of the computer"),
    row("var/lib/ubuntu-advantage/private/machine-token.json", Remove, No, "the machine's token of Ubuntu Pro"),
    row("var/lib/ubuntu-advantage/machine-token.json", Remove, No, "its public part"),
    row("var/lib/whoopsie/whoopsie-id", Write(New::Hex(64)), Value("whoopsie_id"), "whoopsie(8) would make it of the SMBIOS UUID, which is the template's"),
    row("var/lib/mysql/auto.cnf", Set(Line("server-uuid"), New::Uuid), Value("mysql_server_uuid"), "replication refuses two servers with one"),
    but(Unless::Holds("usmUser "), row("var/lib/snmp/snmpd.conf", Set(Line("oldEngineID"), New::After("0x80001f8880", 8)), Value("snmp_engine_id"), "RFC 3411, SnmpEngineID, as net-snmp makes it")),
    but(Unless::Holds("usmUser "), row("var/lib/net-snmp/snmpd.conf", Set(Line("oldEngineID"), New::After("0x80001f8880", 8)), Value("net_snmp_engine_id"), "likewise, of Fedora and RHEL")),
    row("var/lib/netdata/registry/netdata.public.unique.id", Write(New::Uuid), Value("netdata_id"), "the node's id (Netdata, \"VM templates\")"),
    row("var/lib/netdata/cloud.d", Remove, No, "that the template was claimed"),
    row("var/lib/netdata/status-netdata.json", Remove, No, "Netdata takes its id back from here"),
    row("var/cache/netdata/status-netdata.json", Remove, No, "likewise"),
    row("var/lib/*beat/meta.json", Set(Inline("\"uuid\""), New::Uuid), Value("beat"), "Filebeat, Metricbeat and their like: agent.id"),
    but(WAZUH_MANAGER, row("var/ossec/etc/client.keys", Write(New::Nothing), Digest("wazuh_key"), "the agent's key; it enrols without one")),
    row("etc/openvswitch/system-id.conf", Write(New::Uuid), Value("ovs_system_id"), "ovs-ctl(8): the chassis of OVN"),
    row("var/lib/nomad/client/client-id", Write(New::Uuid), Value("nomad_id"), "Nomad's node"),
    row("var/lib/nomad/client/secret-id", Write(New::Uuid), Digest("nomad_secret"), "and its secret"),
    row("opt/nomad/data/client/client-id", Write(New::Uuid), Value("nomad_id_opt"), "of HashiCorp's package"),
    row("opt/nomad/data/client/secret-id", Write(New::Uuid), Digest("nomad_secret_opt"), "and its secret"),
    row("var/lib/consul/node-id", Write(New::Uuid), Value("consul_id"), "Consul's node: a second one with it is refused"),
    row("opt/consul/node-id", Write(New::Uuid), Value("consul_id_opt"), "of HashiCorp's package"),
    but(GLUSTER, row("var/lib/glusterd/glusterd.info", Set(Line("UUID"), New::Uuid), Value("gluster_id"), "a peer's id, of one without peers")),
    row("var/lib/teleport/host_uuid", Write(New::Uuid), Value("teleport_id"), "Teleport's node"),
    row("etc/teamviewer/global.conf", Remove, No, "has the ClientID"),
    row("opt/teamviewer/config/global.conf", Remove, No, "likewise"),
    row("etc/anydesk/service.conf", Remove, No, "has the key and the address"),
    row("etc/anydesk/system.conf", Remove, No, "likewise"),
    row("root/.config/rustdesk/RustDesk.toml", Remove, No, "has the id and the key"),
    row("etc/qualys/hostid", Remove, No, "the agent makes it when it is not there"),
    row("opt/splunkforwarder/etc/instance.cfg", Remove, No, "Splunk, \"clone-prep-clear-config\": has the guid"),
    row("opt/splunk/etc/instance.cfg", Remove, No, "likewise"),
    row("var/lib/amazon/ssm/Vault/Store", Remove, No, "the registration of the SSM agent"),
    row("var/lib/dnf/repos/*/countme", Remove, No, "dnf.conf(5), countme: all siblings would count in one week"),
    row("etc/modprobe.d/*.conf", Set(Inline("nfs4_unique_id"), New::Uuid), Value("nfs4_unique_id"), "nfs(5): two clients with one id take each other's locks"),
    row("var/lib/nfs/sm", Remove, No, "sm-notify(8): hosts that watched the template; they would be told that it rebooted"),
    row("var/lib/nfs/sm.bak", Remove, No, "likewise"),
    row("var/lib/nfs/state", Remove, No, "the template's count of reboots"),
    row("var/lib/libuuid/clock.txt", Remove, No, "uuidd(8): the clock sequence of time-based UUIDs (RFC 9562, section 6.1)"),

    // Randomness that is kept from boot to boot.
    row("boot/loader/random-seed", Write(New::Noise(32, 512)), Digest("boot_seed"), "systemd-boot(7)"),
    row("boot/efi/loader/random-seed", Write(New::Noise(32, 512)), Digest("boot_efi_seed"), "systemd-boot(7)"),
    row("efi/loader/random-seed", Write(New::Noise(32, 512)), Digest("efi_seed"), "systemd-boot(7)"),
    row("var/lib/urandom/random-seed", Write(New::Noise(32, 4096)), Digest("urandom_seed"), "of Debian's sysvinit"),
    row("var/lib/random-seed", Write(New::Noise(32, 4096)), Digest("random_seed"), "of others"),
    row("var/lib/seedrng/seed.*", Write(New::Noise(32, 512)), Digest("seedrng"), "SeedRNG"),
    row("var/lib/postfix/prng_exch", Write(New::Noise(32, 1024)), Digest("postfix_prng"), "tlsmgr(8)"),
    row("root/.rnd", Remove, No, "OpenSSL before 1.1.1"),
    row("root/.gnupg/random_seed", Remove, No, "gpg(1), FILES"),
];
