//! The generator (systemd.generator(7)): systemd runs it before it loads units, at boot and whenever it reloads.

use super::{GateError, Held, Scope, Survey, Verdict, check, links, lists, units::FILE};
use crate::{error::chain, ini::settings, root::Root};
use ramet_proto::text::to_hex;
use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Where the generator is installed, a link to the agent; the name it is called by is the last part.
pub(super) const PATH: &str = "/usr/lib/systemd/system-generators/ramet-gate";

/// In the agent's environment if the generator has done its part, with what is in [`NONCE`].
pub(super) const MARK: &str = "RAMET_GATE";

/// Where the generator keeps what it marks its drop-in for the gate with: random, and one for each boot, so that no
/// setting of somebody else's passes for it.
pub(super) const NONCE: &str = "run/ramet-agent/gate";

/// What the mark stands for in [`FOR_GATE`].
const PLACEHOLDER: &str = "@NONCE@";

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
        let nonce = nonce(&root).map_err(|error| chain(&error))?;
        let files = files(&root, &nonce).map_err(|error| chain(&error))?;
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

/// The mark of this boot. It stays when systemd reloads: the agent may run already.
fn nonce(root: &Root) -> Result<String, GateError> {
    let is_one = |nonce: &String| nonce.len() == 32 && nonce.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(nonce) = root.read_lossy(NONCE)?.filter(is_one) {
        return Ok(nonce);
    }
    // Never blocks, however early (random(4)).
    let uuid = root.read_lossy("proc/sys/kernel/random/uuid")?.unwrap_or_default().replace('-', "");
    let mut nonce = uuid.trim().to_owned();
    if !is_one(&nonce) {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| GateError::Nonce(error.into()))?;
        nonce = to_hex(&bytes);
    }
    root.make_dir("run/ramet-agent", 0o755)?;
    root.replace(NONCE, nonce.as_bytes(), 0o600)?;
    Ok(nonce)
}

/// The drop-ins to write. The gate's is the last: without it the gate does not open.
fn files(root: &Root, nonce: &str) -> Result<Vec<DropIn>, GateError> {
    check(root)?;
    let survey = Survey::of(root, Scope::Installed)?;
    let verdicts = &survey.plan.verdicts;
    for unit in survey.plan.cycles().filter(|unit| survey.are_started(unit)) {
        let way = survey.plan.before.way(unit).join(", ");
        crate::log!("{unit} is held and ordered before {way}, which the gate waits for: this will not boot");
    }
    let mut files: Vec<DropIn> = lists::MADE_LATER
        .iter()
        .filter(|unit| !verdicts.contains_key(**unit))
        .map(|unit| exempt(unit, "early; other generators or udev make it"))
        .collect();
    let mut for_gate = FOR_GATE.replace(PLACEHOLDER, nonce);
    for (unit, verdict) in verdicts {
        match verdict {
            Verdict::Named if links::is_early(unit, verdict) => {
                files.push((unit.clone(), links::EARLY.to_owned()));
                for_gate += links::GATE_AFTER;
                let (target, waits) = links::TARGET;
                files.push((target.to_owned(), waits.to_owned()));
            }
            Verdict::Named => files.push(exempt(unit, "named in /etc/ramet/agent.toml")),
            Verdict::Harmless(why) => files.push(exempt(unit, &format!("early, and {why}"))),
            Verdict::Ends => files.push(exempt(unit, "only what ends the machine's run starts it")),
            Verdict::Needed(by) => {
                files.push(exempt(unit, &format!("early, and before {by}, which the gate waits for")));
            }
            Verdict::Held(Held::Network) => files.push((unit.clone(), FOR_SOCKET.to_owned())),
            Verdict::Held(Held::AsAll | Held::WayIn(_) | Held::Unknown) | Verdict::Own(_) | Verdict::Gate => {
            }
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
        let path = dir.join(FILE);
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
        write(dir.path(), &files(&image.root, &nonce(&image.root)?)?).unwrap();
        let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        Ok(entries
            .map(|dir| {
                let unit = dir.file_name().unwrap().to_str().unwrap().strip_suffix(".d").unwrap().to_owned();
                (unit, fs::read_to_string(dir.join(FILE)).unwrap())
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
        let nonce = image.root.read_text(NONCE).unwrap().unwrap();
        assert!(nonce.len() == 32 && gate.contains(&format!("Environment=RAMET_GATE={nonce}\n")));
        assert!(!super::super::unit::holds(gate));
        assert_eq!(generated(&image).unwrap()["ramet-agent.service"], *gate, "a reload changes the mark");
        assert!(waits_for().iter().any(|unit| unit == "local-fs.target"));
    }

    #[test]
    fn nothing_is_written_where_it_is_not_known_what_is_held() {
        let image = Image::new();
        image.file("etc/ramet/agent.toml", "before_gate = [\"dbus\"]");
        assert!(matches!(generated(&image), Err(GateError::Config(_))));

        for directory in [
            "etc/systemd/system.control",
            "run/systemd/system.control",
            "run/systemd/transient",
            "etc/systemd/system",
            "etc/systemd/system.attached",
            "run/systemd/system",
            "run/systemd/system.attached",
            "run/systemd/generator",
            "run/systemd/generator.early",
            "usr/local/lib/systemd/system",
        ] {
            let image = Image::new();
            image.link(&format!("{directory}/service.d/50-ramet-gate.conf"), "/dev/null");
            assert!(matches!(generated(&image), Err(GateError::Shadowed(_))), "{directory}");
        }

        let image = Image::new();
        image.file(super::super::FOR_ALL, "[Unit]\nAfter=ramet-agent.service\n");
        assert!(matches!(generated(&image), Err(GateError::NotForAll(_))));

        // systemd knows these in [Unit] only.
        let image = Image::new();
        let text = "[Service]\nRequires=ramet-agent.service\nAfter=ramet-agent.service\n";
        image.file(super::super::FOR_ALL, text);
        assert!(matches!(generated(&image), Err(GateError::NotForAll(_))));
    }

    #[test]
    fn it_knows_when_it_is_called() {
        assert!(is_called(Some(&PATH.into())) && is_called(Some(&"ramet-gate".into())));
        assert!(!is_called(Some(&"/usr/sbin/ramet-agent".into())) && !is_called(None));
        assert_eq!(run(&[]), ExitCode::from(2));
    }
}
