//! Members of a domain, whose controller is a real one on the bridge.

use crate::Case;
use anyhow::{Context as _, Result, ensure};
use ramet_tests::{Domain, Network, World, contains, string, succeeded, until};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path, process::Stdio, time::Duration};
use tempfile::TempDir;

pub(crate) const CASES: &[Case] = &[
    ("domain::a_controller_serves_and_leaves_nothing", a_controller_serves),
    ("domain::samba_members", samba_members),
    ("domain::sssd_members", sssd_members),
];

/// Accounts from the directory to children and back: made, leased, used, given back, given new passwords, leased again;
/// and one whose password somebody else has set is no member.
fn samba_members(world: &World) -> Result<()> {
    let domain = Domain::start(&world.network)?;
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
    let again = office.fork(&["--name", "again"])?;
    ensure!(again[0]["identity"]["domain"]["kvno"].as_u64() > Some(2), "{again:?}");
    office.close()
}

fn sssd_members(world: &World) -> Result<()> {
    let domain = Domain::start(&world.network)?;
    let office = Office::open(world, &domain, "sssd", 1)?;
    let forked = office.fork(&["--name", "member"])?;
    office.is_a_member(&forked[0], "sssctl domain-status ad.ramet.test -o")?;
    // None is left.
    let error = world.fails(["fork", &office.guest, "--name", "one-more", "--pool", &office.pool])?;
    contains(&error, "has 0 identities available")?;
    office.close()
}

/// A pool of accounts and a template whose children can have them.
struct Office<'a> {
    world: &'a World,
    _files: TempDir,
    config: String,
    pool: String,
    guest: String,
}

impl<'a> Office<'a> {
    fn open(world: &'a World, domain: &Domain<'_>, client: &str, accounts: usize) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let config = files.path().join("domain.toml");
        fs::write(&config, settings(domain))?;
        let (pool, guest) = (format!("pool-{client}"), format!("debian13-{client}"));
        let config = config.into_os_string().into_string().ok().context("a path")?;
        world.ok(["pool", "create", &pool, "--hostnames", &format!("{client}-{{:02}}")])?;
        let count = accounts.to_string();
        let provision = ["domain", "provision", "--config", &config, "--pool", &pool, "--count", &count];
        let made = world.json(&provision)?;
        ensure!(made["made"].as_array().is_some_and(|made| made.len() == accounts), "{made}");
        let disk = world.images.join(format!("{guest}.qcow2"));
        let mut create = world.ramet(["template", "create", &guest, "--memory", "512M", "--disk"]);
        succeeded(create.arg(disk).arg("--net").arg(format!("bridge={}", Network::BRIDGE)))?;
        Ok(Self { world, _files: files, config, pool, guest })
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

/// What an administrator writes into `domain.toml`.
fn settings(domain: &Domain<'_>) -> String {
    let quoted = |path: &Path| Value::from(path.display().to_string()).to_string();
    format!(
        "realm = \"{}\"\nservers = [\"{}\"]\nca_file = {}\nou = \"{}\"\nuser = \"ramet@ad.ramet.test\"\n\
         password_file = {}\n",
        Domain::REALM,
        domain.url(),
        quoted(&domain.ca_file()),
        Domain::OU,
        quoted(&domain.password_file("ramet")),
    )
}

fn a_controller_serves(world: &World) -> Result<()> {
    let computer = ["computer", "create", "left-over"];
    let show = ["computer", "show", "left-over"];
    let domain = Domain::start(&world.network)?;
    let mut kinit = domain.command("kinit");
    let password = fs::File::open(domain.password_file("alice"))?;
    succeeded(kinit.args(["-c", "MEMORY:", "alice"]).stdin(Stdio::from(password)))?;
    let mut whoami = domain.command("ldapwhoami");
    whoami.env("LDAPTLS_CACERT", "/srv/ad/tls/ca.pem").args(["-x", "-H", "ldaps://dc1.ad.ramet.test"]);
    whoami.args(["-D", "ramet@ad.ramet.test", "-y", "/srv/ad/secrets/ramet"]);
    contains(&succeeded(&mut whoami)?, r"RAMET\ramet")?;
    succeeded(&mut domain.administrate(&computer))?;
    succeeded(&mut domain.administrate(&show))?;
    drop(domain);
    until(Duration::from_secs(10), || {
        let processes = controllers()?;
        ensure!(processes.is_empty(), "still there: {processes:?}");
        Ok(())
    })?;

    // The next one knows nothing of what the last was told.
    let domain = Domain::start(&world.network)?;
    let unknown = domain.administrate(&show).output().context("cannot run samba-tool")?;
    ensure!(!unknown.status.success(), "an account of the last run is there");
    contains(&String::from_utf8_lossy(&unknown.stderr), "Unable to find computer")
}

/// Names of Samba's processes.
fn controllers() -> Result<Vec<String>> {
    let name = |process: fs::DirEntry| fs::read_to_string(process.path().join("comm")).ok();
    let names = fs::read_dir("/proc")?.filter_map(Result::ok).filter_map(name);
    Ok(names.filter(|name| ["samba", "smbd", "winbind"].iter().any(|part| name.contains(part))).collect())
}
