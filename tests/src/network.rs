//! A bridge with DHCP on it, and a record of every frame that crossed it.

use super::{Background, succeeded};
use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// The network of the cases. Its processes and its bridge go with it.
pub struct Network {
    files: TempDir,
    dnsmasq: Background,
    _tcpdump: Background,
}

impl Network {
    /// The bridge's name.
    pub const BRIDGE: &str = "ramete2e0";

    /// Makes the bridge and starts what serves and watches it.
    pub fn make() -> Result<Self> {
        let files = tempfile::tempdir()?;
        // One that was killed has left its bridge; there is none otherwise.
        let _ = ip(&["link", "del", Self::BRIDGE]);
        ip(&["link", "add", Self::BRIDGE, "type", "bridge"])?;
        ip(&["addr", "add", "10.77.0.1/24", "dev", Self::BRIDGE])?;
        ip(&["link", "set", Self::BRIDGE, "up"])?;
        let leases = files.path().join("leases");
        let options = files.path().join("options");
        fs::write(&options, "")?;
        let mut dnsmasq = Command::new("dnsmasq");
        dnsmasq.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--port=0",
            "--bind-interfaces",
            "--no-ping",
        ]);
        dnsmasq.args(["--except-interface=lo", "--pid-file=", "--dhcp-authoritative"]);
        dnsmasq.arg(format!("--interface={}", Self::BRIDGE));
        dnsmasq.arg("--dhcp-range=10.77.0.10,10.77.0.250,255.255.255.0,1h");
        dnsmasq.arg(format!("--dhcp-leasefile={}", leases.display()));
        dnsmasq.arg(format!("--dhcp-optsfile={}", options.display()));
        dnsmasq.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut tcpdump = Command::new("tcpdump");
        tcpdump.args(["-Z", "root", "-U", "-n", "-i", Self::BRIDGE, "-w"]).arg(files.path().join("frames"));
        tcpdump.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self {
            files,
            dnsmasq: Background::spawn(&mut dnsmasq)?,
            _tcpdump: Background::spawn(&mut tcpdump)?,
        })
    }

    /// The address that the DHCP server has given to each MAC address.
    pub fn leases(&self) -> Result<BTreeMap<String, String>> {
        self.lease_field(2)
    }

    /// The client identifier (RFC 4361) that each MAC address has shown the DHCP server.
    pub fn client_ids(&self) -> Result<BTreeMap<String, String>> {
        self.lease_field(4)
    }

    /// A field of each line of dnsmasq's file, by the second, which is the MAC address.
    fn lease_field(&self, field: usize) -> Result<BTreeMap<String, String>> {
        let text = fs::read_to_string(self.files.path().join("leases")).context("no DHCP leases yet")?;
        let fields = |line: &str| -> Option<(String, String)> {
            let fields: Vec<_> = line.split(' ').collect();
            Some(((*fields.get(1)?).to_owned(), (*fields.get(field)?).to_owned()))
        };
        Ok(text.lines().filter_map(fields).collect())
    }

    /// Has the DHCP server tell clients these options from now on, one a line (`dhcp-optsfile` in dnsmasq(8)), and no
    /// others.
    pub fn tell(&self, options: &str) -> Result<()> {
        fs::write(self.files.path().join("options"), options)?;
        self.dnsmasq.signal(Signal::SIGHUP)
    }

    /// How many of the frames that crossed the bridge match a filter (pcap-filter(7)).
    pub fn frames(&self, filter: &str) -> Result<usize> {
        let frames: PathBuf = self.files.path().join("frames");
        let printed = succeeded(Command::new("tcpdump").args(["-n", "-e", "-r"]).arg(frames).arg(filter))?;
        Ok(printed.lines().count())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = ip(&["link", "del", Self::BRIDGE]) {
            eprintln!("{error:?}");
        }
    }
}

pub(super) fn ip(args: &[&str]) -> Result<()> {
    succeeded(Command::new("ip").args(args)).map(drop)
}
