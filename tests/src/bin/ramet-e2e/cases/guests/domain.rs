//! Members of a domain, whose controller is a real one on the bridge.

use crate::{Case, cases::lifecycle};
use anyhow::{Context as _, Result, ensure};
use ramet_tests::{Background, Domain, World, contains, limited, string, succeeded, until};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    time::Duration,
};

pub(crate) const CASES: &[Case] =
    &[("guests::domain::samba_members", samba_members), ("guests::domain::sssd_members", sssd_members)];

/// Accounts from the directory to children and back: made, leased, used, given back, given new passwords, leased again;
/// and one whose password somebody else has set is no member. A controller whose clock is wrong makes no accounts.
fn samba_members(world: &World) -> Result<()> {
    let mut domain = Domain::start(&world.network)?;
    let office = Office::open(world, &domain, "samba", 3)?;
    let forked = office.fork(&["--count", "2"])?;
    let sids: BTreeSet<&str> =
        forked.iter().map(|child| string(child, "/identity/domain/sid")).collect::<Result<_>>()?;
    ensure!(sids.len() == 2, "{sids:?}");
    for child in &forked {
        office.is_a_member(child, "net ads testjoin && wbinfo -t && wbinfo -n $ACCOUNT")?;
    }
    ensure!(office.states()? == ["available", "in_use", "in_use"], "{:?}", office.states()?);

    let names: Vec<&str> = forked.iter().filter_map(|child| child["name"].as_str()).collect();
    world.remove(&names)?;
    ensure!(office.states()? == ["available", "quarantine", "quarantine"], "{:?}", office.states()?);
    let retired = world.json(&["domain", "retire", "--config", &office.config, "--pool", &office.pool])?;
    ensure!(retired.as_array().is_some_and(|retired| retired.len() == 2), "{retired}");
    ensure!(office.states()? == ["available"; 3], "{:?}", office.states()?);
    let reconcile = ["domain", "reconcile", "--config", &office.config];
    let differences = world.json(&[&reconcile[..], &["--dry-run"]].concat())?;
    ensure!(differences == Value::Array(Vec::new()), "{differences}");

    // Somebody else sets the passwords: the domain refuses the child, which is undone, and its account is set aside.
    for account in world.json(&["pool", "show", &office.pool])?.as_array().into_iter().flatten() {
        let hostname = string(account, "/hostname")?.to_ascii_uppercase();
        let set = ["user", "setpassword", &format!("{hostname}$"), "--newpassword=Other-1-Password"];
        succeeded(&mut domain.administrate(&set))?;
    }
    let error = world.fails(["fork", &office.guest, "--name", "stranger", "--pool", &office.pool])?;
    contains(&error, "refused")?;
    ensure!(office.states()? == ["available", "available", "quarantine"], "{:?}", office.states()?);
    let differences = world.json(&reconcile)?;
    ensure!(differences.as_array().is_some_and(|found| found.len() == 2), "{differences}");

    domain.restart_with_clock("+10m")?;
    let provision =
        ["domain", "provision", "--pool", &office.pool, "--count", "1", "--config", &office.config];
    contains(
        &world.fails(provision)?,
        "s ahead of this host's: set the clocks right (Kerberos allows 300 s)",
    )?;
    // A Kerberos client goes by the controller's clock (`kdc_timesync` in krb5.conf(5)).
    let again = office.fork(&["--name", "again"])?;
    office.is_a_member(&again[0], "net ads testjoin")?;
    ensure!(again[0]["identity"]["domain"]["kvno"].as_u64() > Some(2), "{again:?}");
    office.close()
}

/// A member for good: over a stop and a start, and over a reboot, it is who it was, users of the domain log in to it, its
/// key is in its keytab alone, and its account goes with it. And those who cannot become members: one whose domain is gone,
/// and one for whom there is no account.
fn sssd_members(world: &World) -> Result<()> {
    let domain = Domain::start(&world.network)?;
    let office = Office::open(world, &domain, "sssd", 2)?;
    let status = "sssctl domain-status ad.ramet.test -o";

    let forked = office.fork(&["--name", "member", "--persistent"])?;
    office.is_a_member(&forked[0], status)?;
    users_log_in(world, &domain, "member")?;

    let fork_late = ["fork", &office.guest, "--name", "late", "--pool", &office.pool];
    let mut late = world.ramet(fork_late);
    let late = Background::spawn(late.stdout(Stdio::null()).stderr(Stdio::null()))?;
    until(Duration::from_secs(120), || {
        let shown = world.json(&["show", "late"])?;
        ensure!(shown["timings_ms"]["identified"].is_u64(), "{shown}");
        Ok(())
    })?;
    // What it hears from the domain is nothing any more, which it says after two minutes, and is undone. Until then there is
    // time for what needs no domain.
    domain.disconnect()?;
    office.keeps_its_key(&forked[0])?;
    let ended = late.wait()?;
    ensure!(ended.code() == Some(1), "{ended}");
    ensure!(world.json(&["ls"])?.as_array().is_some_and(|listed| listed.len() == 1), "a child is left");
    domain.connect()?;
    ensure!(office.states()? == ["in_use", "quarantine"], "{:?}", office.states()?);
    // None is left.
    let error = world.fails(fork_late)?;
    contains(&error, "has 0 identities available")?;

    lifecycle::stays_who_it_is(world, "member", || {
        until(Duration::from_secs(60), || office.is_a_member(&forked[0], status))
    })?;

    world.ok(["rm", "member", "--config", &office.config])?;
    ensure!(office.states()? == ["quarantine", "retired"], "{:?}", office.states()?);
    let listed = world.json(&["domain", "ls", "--config", &office.config])?;
    ensure!(listed.as_array().is_some_and(|accounts| accounts.len() == 1), "{listed}");
    office.close()
}

/// A guest whose Samba is set up for another domain than the account's becomes no member of either.
pub(super) fn another_domain(world: &World, guest: &str) -> Result<()> {
    let domain = Domain::start(&world.network)?;
    domain.provision(world, "foreign", 1)?;
    let error = world.fails(["fork", guest, "--name", "foreign", "--pool", "foreign"])?;
    contains(&error, "Samba's realm is \"OTHER.RAMET.TEST\", and the computer account needs AD.RAMET.TEST")?;
    let shown = world.json(&["pool", "show", "foreign"])?;
    ensure!(string(&shown, "/0/state")? == "quarantine", "{shown}");
    Ok(())
}

/// A user of the domain logs in with a password, and is somebody there.
fn users_log_in(world: &World, domain: &Domain<'_>, child: &str) -> Result<()> {
    let files = tempfile::tempdir()?;
    let askpass = files.path().join("askpass");
    fs::write(&askpass, format!("#!/bin/sh\ncat '{}'\n", domain.password_file("alice").display()))?;
    fs::set_permissions(&askpass, fs::Permissions::from_mode(0o700))?;
    let mut ssh = limited(&world.ramet(["ssh", child, "-l", "alice", "--", "id -un; klist"]));
    let said = succeeded(ssh.env("SSH_ASKPASS", &askpass).env("SSH_ASKPASS_REQUIRE", "force"))?;
    ensure!(said.lines().next() == Some("alice"), "{said}");
    contains(&said, "krbtgt/AD.RAMET.TEST@AD.RAMET.TEST")
}

/// A pool of accounts and a template whose children can have them.
struct Office<'a> {
    world: &'a World,
    config: String,
    pool: String,
    guest: String,
}

impl<'a> Office<'a> {
    fn open(world: &'a World, domain: &Domain<'_>, client: &str, accounts: usize) -> Result<Self> {
        let config = domain.config().into_os_string().into_string().ok().context("a path")?;
        domain.provision(world, client, accounts)?;
        let guest = format!("debian13-{client}");
        world.create_template(&guest, &guest, "512M", &["bridge=ramete2e0"])?;
        Ok(Self { world, config, pool: client.to_owned(), guest })
    }

    fn fork(&self, args: &[&str]) -> Result<Vec<Value>> {
        let fork = [&["fork", &self.guest, "--pool", &self.pool], args].concat();
        let forked = self.world.json(&fork)?.as_array().context("an array")?.clone();
        for child in &forked {
            ensure!(child["timings_ms"]["joined"].is_u64(), "{child}");
            eprintln!("{} of {}: {}", child["name"], self.guest, child["timings_ms"]);
        }
        Ok(forked)
    }

    /// Fails unless the child works as the account that it was given; `questions` are asked of it, as root.
    fn is_a_member(&self, child: &Value, questions: &str) -> Result<()> {
        let (name, hostname) = (string(child, "/name")?, string(child, "/identity/hostname")?);
        let account = hostname.to_ascii_uppercase();
        ensure!(string(child, "/identity/domain/name")? == account, "{child}");
        let questions = format!(
            "ACCOUNT='{account}$'; hostname -f; kinit -c MEMORY: -k $ACCOUNT && id -u alice && {questions}"
        );
        contains(&self.world.ssh(name, &questions)?, &format!("{hostname}.ad.ramet.test"))?;
        let shown = self.world.json(&["show", name])?;
        ensure!(shown["joined"]["checks"].as_array().is_some_and(|checks| checks.len() > 1), "{shown}");
        let record = fs::read_to_string(self.world.child_file(name, "child.json"))?;
        for secret in ["\"keytab\"", "\"join\"", "\"password\""] {
            ensure!(!record.contains(secret), "{secret} is in the record: {record}");
        }
        Ok(())
    }

    /// Fails if the child's key is anywhere but in its keytab: in a file or the journal of the guest, in the environment or the
    /// arguments of what runs there, on its console, or on the host.
    fn keeps_its_key(&self, child: &Value) -> Result<()> {
        let name = string(child, "/name")?;
        let keys = self.world.ssh(name, "klist -k -K /etc/krb5.keytab")?;
        let key =
            keys.lines().find_map(|line| line.split_once("(0x")?.1.strip_suffix(')')).context("a key")?;
        ensure!(key.len() == 64, "no AES-256 key comes first: {}", key.len());
        // grep looks at lines: the longest part of it that has no end of one.
        let pairs: Vec<_> = key.as_bytes().chunks(2).map(String::from_utf8_lossy).collect();
        let part = pairs.split(|pair| pair == "0a").max_by_key(|part| part.len()).context("a key")?;
        let bytes = format!("\\x{}", part.join("\\x"));
        // In brackets, so that the pattern in an argument is no match.
        let pattern = format!("{bytes}|(?i)[{}]{}", &key[..1], &key[1..]);
        let found = self.world.ssh(
            name,
            &format!(
                "LC_ALL=C; export LC_ALL; grep -rlaP '{pattern}' /etc /home /root /run /tmp /var; \
                 for process in /proc/[0-9]*; do grep -laP '{pattern}' $process/cmdline $process/environ; done; true"
            ),
        )?;
        ensure!(found == "/etc/krb5.keytab", "the key is in {found}");
        for directory in [self.world.child_file(name, ""), self.world.state_dir().join("identities.db")] {
            let mut grep = Command::new("grep");
            grep.args(["-rlaP", "--exclude=disk.qcow2", &pattern]).arg(directory).env("LC_ALL", "C");
            let found = grep.output()?;
            ensure!(
                found.status.code() == Some(1),
                "the key is in {}",
                String::from_utf8_lossy(&found.stdout)
            );
        }
        Ok(())
    }

    /// The states of the pool's identities, sorted.
    fn states(&self) -> Result<Vec<String>> {
        let shown = self.world.json(&["pool", "show", &self.pool])?;
        let entries = shown.as_array().context("an array")?;
        let mut states: Vec<String> =
            entries.iter().map(|entry| Ok(string(entry, "/state")?.to_owned())).collect::<Result<_>>()?;
        states.sort();
        Ok(states)
    }

    fn close(&self) -> Result<()> {
        self.world.clear()?;
        self.world.ok(["template", "rm", &self.guest])?;
        self.world.nothing_left()
    }
}
