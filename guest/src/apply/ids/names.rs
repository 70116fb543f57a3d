//! Files in which programs keep the machine's name. Where it is the template's, short or full, it becomes the child's; any
//! other name is somebody's choice and stays.

use super::{ApplyError, Finding, Grade, Renaming, Root, content, edit};
use crate::glob;

struct Row {
    path: &'static str,
    /// By which the name is found; in every line if there are none.
    keys: &'static [&'static str],
    /// Lines that begin with white space go on with the one before (postconf(5)).
    folded: bool,
}

const fn keys(path: &'static str, keys: &'static [&'static str]) -> Row {
    Row { path, keys, folded: false }
}

/// Every word of it is a name.
const fn all(path: &'static str) -> Row {
    keys(path, &[])
}

const ROWS: &[Row] = &[
    // Mail.
    all("etc/mailname"),
    all("etc/mail/local-host-names"),
    all("etc/nullmailer/me"),
    all("etc/nullmailer/defaulthost"),
    all("etc/qmail/me"),
    all("etc/news/server"),
    all("etc/news/whoami"),
    Row { path: "etc/postfix/main.cf", keys: &["myhostname", "mydestination", "myorigin"], folded: true },
    keys("etc/exim4/update-exim4.conf.conf", &["dc_other_hostnames", "dc_readhost", "dc_visiblename"]),
    keys("etc/ssmtp/ssmtp.conf", &["hostname"]),
    // What the network is told.
    keys("etc/dhcp/dhclient.conf", &["send host-name", "send fqdn.fqdn", "supersede host-name"]),
    keys("etc/dhclient.conf", &["send host-name", "send fqdn.fqdn"]),
    keys("etc/dhcp/dhclient-*.conf", &["send host-name", "send fqdn.fqdn"]),
    keys("etc/dhcpcd.conf", &["hostname", "fqdn"]),
    keys("etc/sysconfig/network", &["HOSTNAME", "DHCP_HOSTNAME"]),
    keys("etc/sysconfig/network/dhcp", &["DHCLIENT_HOSTNAME_OPTION", "DHCLIENT6_HOSTNAME_OPTION"]),
    keys("etc/sysconfig/network-scripts/ifcfg-*", &["DHCP_HOSTNAME", "DHCP_FQDN", "HOSTNAME"]),
    keys("etc/systemd/network/*.network", &["Hostname"]),
    keys("etc/NetworkManager/system-connections/*", &["dhcp-hostname"]),
    keys("etc/NetworkManager/NetworkManager.conf", &["hostname"]),
    keys("etc/network/interfaces", &["hostname"]),
    keys("etc/network/interfaces.d/*", &["hostname"]),
    keys("etc/avahi/avahi-daemon.conf", &["host-name"]),
    keys("etc/systemd/dnssd/*.dnssd", &["Name"]),
    keys("etc/samba/smb.conf", &["netbios name", "netbios aliases", "server string"]),
    // Logs and monitoring: what their servers call this machine.
    keys("etc/rsyslog.conf", &["$LocalHostName"]),
    keys("etc/rsyslog.d/*.conf", &["$LocalHostName"]),
    keys("etc/audit/auditd.conf", &["name"]),
    keys("etc/audisp/audispd.conf", &["name"]),
    keys("etc/zabbix/zabbix_agentd.conf", &["Hostname", "HostMetadata"]),
    keys("etc/zabbix/zabbix_agent2.conf", &["Hostname", "HostMetadata"]),
    keys("etc/zabbix/zabbix_agentd.conf.d/*.conf", &["Hostname"]),
    keys("etc/zabbix/zabbix_proxy.conf", &["Hostname"]),
    keys("etc/collectd.conf", &["Hostname"]),
    keys("etc/collectd/collectd.conf", &["Hostname"]),
    keys("etc/munin/munin-node.conf", &["host_name"]),
    keys("etc/telegraf/telegraf.conf", &["hostname"]),
    keys("etc/netdata/netdata.conf", &["hostname"]),
    keys("etc/datadog-agent/datadog.yaml", &["hostname"]),
    keys("etc/newrelic-infra.yml", &["display_name", "override_hostname", "override_hostname_short"]),
    keys("etc/snmp/snmpd.conf", &["sysName"]),
    keys("etc/icinga2/constants.conf", &["const NodeName", "const ZoneName"]),
    keys("etc/*beat/*beat.yml", &["name", "agent.name"]),
    keys("opt/splunkforwarder/etc/system/local/server.conf", &["serverName"]),
    keys("opt/splunkforwarder/etc/system/local/inputs.conf", &["host"]),
    // Managed by.
    keys("etc/puppetlabs/puppet/puppet.conf", &["certname", "node_name_value"]),
    keys("etc/puppet/puppet.conf", &["certname", "node_name_value"]),
    keys("etc/salt/minion", &["id"]),
    keys("etc/salt/minion.d/*.conf", &["id"]),
    keys("etc/chef/client.rb", &["node_name"]),
    keys("etc/cinc/client.rb", &["node_name"]),
    keys("etc/landscape/client.conf", &["computer_title"]),
    keys("etc/consul.d/*", &["node_name", "\"node_name\""]),
    keys("etc/nomad.d/*", &["name", "\"name\""]),
    keys("etc/teleport.yaml", &["nodename"]),
    keys("etc/rancher/k3s/config.yaml", &["node-name"]),
    keys("etc/rancher/rke2/config.yaml", &["node-name"]),
    keys("etc/elasticsearch/elasticsearch.yml", &["node.name"]),
    // A server's own name. Not those of virtual hosts: they are a service's, whichever machine it is on.
    keys("etc/apache2/apache2.conf", &["ServerName"]),
    keys("etc/apache2/conf-available/*.conf", &["ServerName"]),
    keys("etc/httpd/conf/httpd.conf", &["ServerName"]),
    keys("etc/cups/cupsd.conf", &["ServerName", "ServerAlias"]),
    keys("etc/proftpd/proftpd.conf", &["ServerName"]),
];

/// machine-info(5): the name for people is the machine's, whatever it was. A child called "Golden" would be every child.
const MACHINE_INFO: &str = "etc/machine-info";
const PRETTY: edit::Key = edit::Key::Line("PRETTY_HOSTNAME");

/// The files that another name changes, and what they become.
pub(super) fn changed(to: &Renaming, root: &Root) -> Result<Vec<(String, Vec<u8>)>, ApplyError> {
    let mut changed = Vec::new();
    for row in ROWS {
        for path in glob::expand(root, row.path)? {
            let Some(before) = content(&path, root)? else { continue };
            let after = edit::rename(&before, row.keys, row.folded, to);
            if after != before {
                changed.push((path, after));
            }
        }
    }
    if let Some(before) = content(MACHINE_INFO, root)? {
        let after = edit::set(&before, &PRETTY, to.new_name().as_bytes());
        if after != before {
            changed.push((MACHINE_INFO.to_owned(), after));
        }
    }
    Ok(changed)
}

/// Immutable files with a name of the template's: it stays there.
pub(super) fn check(root: &Root) -> Result<Vec<Finding>, ApplyError> {
    let mut found = Vec::new();
    let to = crate::apply::hostname::names_of_template(root)?;
    for (path, _) in changed(&to, root)? {
        if root.is_immutable(&path)? {
            let what = format!("/{path} is immutable: the template's name stays in it, in every child");
            found.push(Finding::new(Grade::Broken, &what, &format!("chattr -i /{path}")));
        }
    }
    Ok(found)
}

#[cfg(test)]
pub(super) fn paths() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    ROWS.iter().map(|row| (row.path, row.keys))
}
