//! The generator (systemd.generator(7)): systemd runs it before it loads units, at boot and whenever it reloads.

use super::{
    DROP_IN, GateError, Scope, Survey, Verdict, check, links, lists, ordered_before, unit_file::settings,
};
use crate::{error::chain, root::Root};
use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Where the generator is installed, a link to the agent; the name it is called by is the last part.
pub(super) const PATH: &str = "/usr/lib/systemd/system-generators/ramet-gate";

/// In the agent's environment if the generator has done its part.
pub(super) const MARK: &str = "RAMET_GATE";

/// The generator's drop-in for the gate itself. What the gate waits for stands here rather than in its unit: as long as
/// these are held themselves, waiting for them would be a cycle, and the agent could not say what is wrong.
const FOR_GATE: &str = include_str!("../../rootfs/usr/lib/ramet-agent/gate-is-set.conf");

/// A held socket's drop-in.
const FOR_SOCKET: &str = include_str!("../../rootfs/usr/lib/ramet-agent/gate-socket.conf");

/// A drop-in could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
struct WriteError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Whether the program was called as the generator.
pub(crate) fn is_called(program: Option<&OsString>) -> bool {
    program.is_some_and(|program| Path::new(program).file_name() == Path::new(PATH).file_name())
}

/// Runs as the generator; `directories` are its arguments. What it prints goes to the journal.
pub(crate) fn run(directories: &[OsString]) -> ExitCode {
    // The first of three: for what goes before the distribution's units and after the administrator's. A drop-in in the
    // unit's own directory goes before one for its type in any case.
    let [normal, _early, _late] = directories else {
        crate::log!("this is a generator for systemd: ramet-gate NORMAL EARLY LATE");
        return ExitCode::from(2);
    };
    let done = Root::open(Path::new("/")).map_err(|error| chain(&error)).and_then(|root| {
        let files = files(&root).map_err(|error| chain(&error))?;
        write(Path::new(normal), &files).map_err(|error| chain(&error))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::log!("everything is held, and the gate will not open: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A unit, and what its drop-in says.
type DropIn = (String, String);

/// The drop-ins to write. The gate's is the last: without it the gate does not open.
fn files(root: &Root) -> Result<Vec<DropIn>, GateError> {
    check(root)?;
    let survey = Survey::of(root, Scope::Installed)?;
    let plan = survey.plan();
    for (unit, goal) in ordered_before(&survey.units, &plan, &waits_for()) {
        crate::log!("{unit} is held and ordered before {goal}, which the gate waits for: this will not boot");
    }
    let mut files: Vec<DropIn> = lists::MADE_LATER
        .iter()
        .filter(|unit| !plan.contains_key(**unit))
        .map(|unit| exempt(unit, "early; other generators or udev make it"))
        .collect();
    let mut for_gate = FOR_GATE.to_owned();
    for (unit, verdict) in &plan {
        match verdict {
            named if links::is_early(unit, named) => {
                files.push(((*unit).to_owned(), links::DROP_IN.to_owned()));
                for_gate += links::FOR_GATE;
                let (target, waits) = links::TARGET;
                files.push((target.to_owned(), waits.to_owned()));
            }
            Verdict::Named => files.push(exempt(unit, "named in /etc/ramet/agent.toml")),
            Verdict::Early => files.push(exempt(unit, "early (DefaultDependencies=no)")),
            Verdict::Held if !survey.units[*unit].is_service() => {
                files.push(((*unit).to_owned(), FOR_SOCKET.to_owned()));
            }
            Verdict::Held | Verdict::Own { .. } | Verdict::Gate => {}
        }
    }
    files.push((crate::boot::UNIT.to_owned(), for_gate));
    Ok(files)
}

fn exempt(unit: &str, why: &str) -> DropIn {
    (unit.to_owned(), format!("# Starts before the gate: {why}.\n"))
}

/// What the gate is ordered after.
pub(super) fn waits_for() -> Vec<String> {
    let after = settings(FOR_GATE).into_iter().filter(|setting| setting.key == "After");
    after.flat_map(|s| s.value.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn write(directory: &Path, files: &[DropIn]) -> Result<(), WriteError> {
    for (unit, text) in files {
        let dir = directory.join(format!("{unit}.d"));
        let path = dir.join(DROP_IN);
        fs::create_dir_all(&dir)
            .and_then(|()| fs::write(&path, text))
            .map_err(|source| WriteError { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::Image;
    use super::*;
    use std::collections::BTreeMap;

    fn generated(image: &Image) -> Result<BTreeMap<String, String>, GateError> {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&image.root)?).unwrap();
        let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        Ok(entries
            .map(|dir| {
                let unit = dir.file_name().unwrap().to_str().unwrap().strip_suffix(".d").unwrap().to_owned();
                (unit, fs::read_to_string(dir.join(DROP_IN)).unwrap())
            })
            .collect())
    }

    #[test]
    fn the_early_are_let_go_sockets_held_and_the_gate_told() {
        let image = Image::new();
        image.unit("systemd-udevd.service", "DefaultDependencies=no");
        image.unit("app.service", "");
        image.unit("app.socket", "[Socket]\nListenStream=80");
        image.unit("dbus.service", "");
        let files = generated(&image).unwrap();
        for unit in ["systemd-udevd.service", "dbus.service", "systemd-cryptsetup@.service"] {
            assert!(
                settings(&files[unit]).is_empty() && files[unit].starts_with("# Starts before"),
                "{unit}"
            );
        }
        assert!(!files.contains_key("app.service"));
        assert_eq!(files["app.socket"], FOR_SOCKET);
        let gate = &files["ramet-agent.service"];
        assert!(gate.contains("Environment=RAMET_GATE=") && !super::super::units::holds(gate));
        assert!(waits_for().iter().any(|unit| unit == "local-fs.target"));
    }

    #[test]
    fn nothing_is_written_where_it_is_not_known_what_is_held() {
        let image = Image::new();
        image.file("etc/ramet/agent.toml", "before_gate = [\"dbus\"]");
        assert!(matches!(generated(&image), Err(GateError::Config(_))));

        let image = Image::new();
        image.link("etc/systemd/system/service.d/50-ramet-gate.conf", "/dev/null");
        assert!(matches!(generated(&image), Err(GateError::Shadowed(_))));

        let image = Image::new();
        image.file(super::super::FOR_ALL, "[Unit]\nAfter=ramet-agent.service\n");
        assert!(matches!(generated(&image), Err(GateError::NotForAll(_))));
    }

    #[test]
    fn it_knows_when_it_is_called() {
        assert!(is_called(Some(&PATH.into())) && is_called(Some(&"ramet-gate".into())));
        assert!(!is_called(Some(&"/usr/sbin/ramet-agent".into())) && !is_called(None));
        assert_eq!(run(&[]), ExitCode::from(2));
    }
}
