//! The service manager (systemd(1)), which is one process from the template's boot to the child's end and remembers what it
//! has once read: the machine-id when it is first asked for it (`sd_id128_get_machine(3)`), the boot id when its event loop
//! waits for a time for the first time, which is before the gate (`initialize_perturb` in sd-event.c), and the values of
//! specifiers such as `%H` in the units it has loaded (systemd.unit(5), "Specifiers").
//!
//! What it goes by is asked of it with a unit that is loaded for this alone and whose description has the specifiers. If it
//! remembers the template's machine-id, or if a unit names the boot id, it is executed again; if units only name the
//! machine, they are read again. Both cost as much as loading all units does in a boot, so neither is done where nothing
//! needs it: then its boot id stays the template's, which shows in the names of private directories below /tmp alone.

use super::ApplyError;
use crate::{limits::programs, log, process::Run, system::System};
use ramet_proto::{BootId, message::Identity};
use std::{
    io,
    time::{Duration, Instant},
};

/// The unit that is asked for. Nothing starts it, and nothing else loads it.
const PROBE: &str = "ramet-probe.service";

/// What its description begins with.
const DESCRIPTION: &str = "Ramet's probe: ";

/// What the service manager takes this machine for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manager {
    pub(super) machine_id: String,
    /// As systemd writes it: 32 digits, no dashes.
    pub(super) boot_id: String,
}

impl Manager {
    /// Whether it goes by this boot id.
    pub(super) fn has_boot_id(&self, id: BootId) -> bool {
        self.boot_id == id.to_string().replace('-', "")
    }
}

/// What units that wait were loaded with, of the template's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stale {
    /// Names of the machine, or its machine-id.
    pub(crate) names: bool,
    /// The boot id.
    pub(crate) boot_id: bool,
}

/// Has the service manager take this machine for what it is now, and says what it then goes by.
pub(super) fn apply<S: System>(
    identity: &Identity,
    boot_id: Option<BootId>,
    stale: Stale,
    system: &S,
) -> Result<Manager, ApplyError> {
    let shown = ask(system)?;
    let is_right = |shown: &Manager| {
        shown.machine_id == identity.machine_id.to_string()
            && !(stale.boot_id && boot_id.is_some_and(|id| !shown.has_boot_id(id)))
    };
    if is_right(&shown) {
        if stale.names || stale.boot_id {
            order("daemon-reload", system)?;
        }
        return Ok(shown);
    }
    log!(
        "the service manager remembers machine-id {} and boot id {}: it is executed again",
        shown.machine_id,
        shown.boot_id
    );
    order("daemon-reexec", system)?;
    let shown = wait(system)?;
    if is_right(&shown) {
        return Ok(shown);
    }
    Err(ApplyError::Mismatch(format!(
        "the service manager goes by machine-id {} and boot id {}, also after it was executed again",
        shown.machine_id, shown.boot_id
    )))
}

/// What the service manager takes this machine for.
pub(super) fn ask<S: System>(system: &S) -> Result<Manager, ApplyError> {
    let said = system.unit_description(PROBE).map_err(|error| {
        ApplyError::System("ask the service manager what it takes this machine for", error)
    })?;
    parse(&said).ok_or_else(|| {
        ApplyError::Missing(format!(
            "{PROBE} says {:?}: is the unit in the image as the package has it?",
            said.trim()
        ))
    })
}

fn order<S: System>(what: &str, system: &S) -> Result<(), ApplyError> {
    let run = Run::new("systemctl", &[what], programs::RELOAD);
    let ordered = system.run(&run).map(drop);
    ordered
        .map_err(|error| ApplyError::System("have the service manager read this machine's ids again", error))
}

/// Asks until the service manager is there again.
fn wait<S: System>(system: &S) -> Result<Manager, ApplyError> {
    let deadline = Instant::now() + programs::RELOAD;
    loop {
        match ask(system) {
            Err(ApplyError::System(_, error))
                if error.kind() == io::ErrorKind::Other && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            answer => return answer,
        }
    }
}

fn parse(said: &str) -> Option<Manager> {
    let mut words = said.trim().strip_prefix(DESCRIPTION)?.split(' ');
    let is_id = |id: &&str| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let machine_id = words.next().filter(is_id)?.to_owned();
    let boot_id = words.next().filter(is_id)?.to_owned();
    words.next().is_none().then_some(Manager { machine_id, boot_id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::tests::{Fake, identity, template};
    use std::fs;

    const UNIT: &str = include_str!("../../rootfs/usr/lib/systemd/system/ramet-probe.service");

    #[test]
    fn the_probe_says_what_is_read() {
        assert!(UNIT.contains(&format!("\nDescription={DESCRIPTION}%m %b\n")), "{UNIT}");
        let id = "0123456789abcdef0123456789abcdef";
        let found = parse(&format!("{DESCRIPTION}{id} {id}\n")).unwrap();
        assert_eq!((found.machine_id.as_str(), found.boot_id.as_str()), (id, id));
        for bad in
            ["", "ramet-probe.service", &format!("{DESCRIPTION}{id} {id} x"), &format!("{DESCRIPTION}x y z")]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    /// What was run of systemctl besides questions.
    fn orders(system: &Fake) -> Vec<String> {
        system.ran.borrow().iter().filter(|line| line.starts_with("systemctl daemon-")).cloned().collect()
    }

    #[test]
    fn it_is_executed_again_only_if_it_remembers_and_units_are_read_again_only_if_they_do() {
        let (dir, root) = template();
        let wanted = identity();
        fs::write(dir.path().join("etc/machine-id"), format!("{}\n", wanted.machine_id)).unwrap();
        let boot_ids = ["d9aa0fd3-dbbb-4b43-9b8d-8e5a5b5b5b5b", "11111111-1111-4111-9111-111111111111"];
        let [ours, templates] = boot_ids.map(|id| id.parse::<BootId>().unwrap());
        let (reload, reexec) = (&["systemctl daemon-reload"][..], &["systemctl daemon-reexec"][..]);
        for (remembers, shown, names, units_name_it, expected) in [
            (false, ours, false, false, &[][..]),
            (false, templates, false, false, &[]),
            (false, templates, true, false, reload),
            (false, ours, false, true, reload),
            (true, ours, false, false, reexec),
            (true, ours, true, true, reexec),
        ] {
            let system = Fake::new();
            *system.root.borrow_mut() = root.outside("");
            *system.remembered.borrow_mut() = remembers.then(|| "f".repeat(32));
            fs::create_dir_all(dir.path().join("proc/sys/kernel/random")).unwrap();
            fs::write(dir.path().join("proc/sys/kernel/random/boot_id"), shown.to_string()).unwrap();
            let stale = Stale { names, boot_id: units_name_it };
            let found = apply(&wanted, Some(ours), stale, &system).unwrap();
            assert_eq!(found.machine_id, wanted.machine_id.to_string());
            assert_eq!(orders(&system), expected, "{remembers} {shown} {stale:?}");
        }
        // A unit names the boot id, and it stays the template's.
        let system = Fake::new();
        *system.root.borrow_mut() = root.outside("");
        fs::write(dir.path().join("proc/sys/kernel/random/boot_id"), templates.to_string()).unwrap();
        apply(&wanted, Some(ours), Stale { names: false, boot_id: true }, &system).unwrap_err();
        assert_eq!(orders(&system), reexec);
    }

    #[test]
    fn one_that_goes_on_as_the_template_is_refused() {
        let (_dir, root) = template();
        let system = Fake::new();
        *system.root.borrow_mut() = root.outside("");
        let error = apply(&identity(), None, Stale::default(), &system).unwrap_err();
        assert!(matches!(error, ApplyError::Mismatch(_)), "{error}");
        assert_eq!(orders(&system), ["systemctl daemon-reexec"]);
    }
}
