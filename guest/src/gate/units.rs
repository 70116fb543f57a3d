//! The unit files of a root, as systemd would find them.

use super::unit_file::{Setting, boolean, is_network, settings};
use crate::root::{FileError, Root};
use std::collections::{BTreeMap, BTreeSet};

/// The file name of a drop-in that decides about the gate. A unit's own takes the place of the one for all services.
pub(super) const DROP_IN: &str = "50-ramet-gate.conf";

/// Where unit files are, first come, first served (systemd.unit(5)), without the directories of generators: those run
/// side by side, so that what is in there while one runs is chance.
const INSTALLED: &[&str] = &[
    "etc/systemd/system.control",
    "run/systemd/system.control",
    "run/systemd/transient",
    "etc/systemd/system",
    "etc/systemd/system.attached",
    "run/systemd/system",
    "run/systemd/system.attached",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// Which directories to look in.
#[derive(Clone, Copy)]
pub(super) enum Scope {
    /// What is installed.
    Installed,
    /// Also what generators made when this system booted.
    Running,
}

/// A unit.
#[derive(Debug, Default)]
pub(super) struct Unit {
    pub(super) name: String,
    /// Other names of it; its drop-ins may be under any.
    pub(super) aliases: Vec<String>,
    /// Below the root.
    pub(super) path: String,
    /// `DefaultDependencies=no`.
    pub(super) early: bool,
    /// A socket that is reached from outside.
    pub(super) network: bool,
    /// A service that reads its settings again on SIGHUP: `Type=notify-reload`.
    pub(super) reloads: bool,
    pub(super) before: BTreeSet<String>,
    pub(super) after: BTreeSet<String>,
    /// Its own drop-in about the gate, if it has one: where, and whether that holds it.
    pub(super) drop_in: Option<(String, bool)>,
}

impl Unit {
    pub(super) fn is_service(&self) -> bool {
        self.name.ends_with(".service")
    }

    fn apply(&mut self, text: &str) {
        for setting in settings(text) {
            self.network |= is_network(&setting);
            match (setting.section.as_str(), setting.key.as_str()) {
                ("Unit", "DefaultDependencies") => {
                    self.early = boolean(&setting.value).map_or(self.early, |default| !default);
                }
                ("Service", "Type") => self.reloads = setting.value == "notify-reload",
                ("Unit", "Before") => self.before.extend(words(&setting)),
                ("Unit", "After") => self.after.extend(words(&setting)),
                _ => {}
            }
        }
    }
}

fn words(setting: &Setting) -> impl Iterator<Item = String> {
    setting.value.split_ascii_whitespace().map(str::to_owned)
}

/// Whether a drop-in holds its unit.
pub(super) fn holds(text: &str) -> bool {
    let settings = settings(text);
    let names_gate =
        |key| settings.iter().any(|s| s.key == key && words(s).any(|word| word == crate::boot::UNIT));
    names_gate("Requires") && names_gate("After")
}

/// Every service, socket and target of `root`, by name; masked ones are left out. A file that cannot be read counts as
/// an empty one: its unit is held.
pub(super) fn load(root: &Root, scope: Scope) -> Result<BTreeMap<String, Unit>, FileError> {
    let mut directories = INSTALLED.to_vec();
    if let Scope::Running = scope {
        directories.insert(3, "run/systemd/generator.early");
        directories.insert(8, "run/systemd/generator");
        directories.push("run/systemd/generator.late");
    }
    let mut units = BTreeMap::new();
    let mut links = BTreeMap::new();
    // By unit, then by the drop-in's name.
    let mut drop_ins: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for directory in directories {
        for name in root.names(directory)? {
            let path = format!("{directory}/{name}");
            if let Some(unit) = name.strip_suffix(".d").filter(|unit| is_unit(unit)) {
                for file in root
                    .names(&path)?
                    .into_iter()
                    .filter(|file| file.rsplit_once('.').is_some_and(|(_, kind)| kind == "conf"))
                {
                    let full = format!("{path}/{file}");
                    drop_ins.entry(unit.to_owned()).or_default().entry(file).or_insert(full);
                }
            } else if is_unit(&name) && !units.contains_key(&name) && !links.contains_key(&name) {
                match root.link(&path)?.and_then(|to| to.rsplit('/').next().map(str::to_owned)) {
                    Some(to) if to != name => drop(links.insert(name, to)),
                    Some(_) | None => {
                        let mut unit = Unit { name: name.clone(), path: path.clone(), ..Unit::default() };
                        unit.apply(&root.read_lossy(&path).ok().flatten().unwrap_or_default());
                        units.insert(name, unit);
                    }
                }
            }
        }
    }
    for alias in links.keys() {
        // systemd follows a chain of aliases; one that goes in circles leads nowhere.
        let mut to = alias;
        for _ in 0..8 {
            to = links.get(to).unwrap_or(to);
        }
        if let Some(unit) = units.get_mut(to) {
            unit.aliases.push(alias.clone());
        }
    }
    for unit in units.values_mut() {
        for name in std::iter::once(unit.name.clone()).chain(unit.aliases.clone()) {
            // An instance has its template's drop-ins, too.
            let template =
                name.split_once('@').and_then(|(stem, rest)| Some((stem, rest.rsplit_once('.')?.1)));
            let template =
                template.map(|(stem, kind)| format!("{stem}@.{kind}")).filter(|other| *other != name);
            for (file, path) in
                [Some(name), template].iter().flatten().filter_map(|n| drop_ins.get(n)).flatten()
            {
                let text = root.read_lossy(path).ok().flatten().unwrap_or_default();
                if file != DROP_IN {
                    unit.apply(&text);
                } else if !path.starts_with("run/systemd/generator") && unit.drop_in.is_none() {
                    unit.drop_in = Some((path.clone(), holds(&text)));
                }
            }
        }
    }
    Ok(units)
}

fn is_unit(name: &str) -> bool {
    // Not a bare ".service", which is the directory of all services' drop-ins.
    [".service", ".socket", ".target"]
        .iter()
        .any(|kind| name.strip_suffix(kind).is_some_and(|stem| !stem.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::Image;
    use super::*;

    #[test]
    fn the_first_file_counts_and_aliases_are_one_unit() {
        let image = Image::new();
        image.unit("a.service", "DefaultDependencies=no");
        image.file("etc/systemd/system/a.service", "[Unit]\nDescription=a");
        image.unit("b.service", "DefaultDependencies=no");
        image.link("etc/systemd/system/b-again.service", "/usr/lib/systemd/system/b.service");
        image.link("etc/systemd/system/b-thrice.service", "b-again.service");
        image.unit("c.service", "DefaultDependencies=no");
        image.link("etc/systemd/system/c.service", "/dev/null");
        image.file("opt/d.service", "[Unit]\nDefaultDependencies=no");
        image.link("etc/systemd/system/d.service", "/opt/d.service");
        image.link("etc/systemd/system/loop.service", "loop2.service");
        image.link("etc/systemd/system/loop2.service", "loop.service");
        let units = load(&image.root, Scope::Installed).unwrap();
        assert_eq!(
            units.keys().collect::<Vec<_>>(),
            ["a.service", "b.service", "d.service", "ramet-agent.service"]
        );
        assert!(!units["a.service"].early && units["b.service"].early && units["d.service"].early);
        assert_eq!(units["b.service"].aliases, ["b-again.service", "b-thrice.service"]);
    }

    #[test]
    fn drop_ins_count() {
        let image = Image::new();
        image.unit("a@.service", "Before=x.target");
        image.unit("a@b.service", "");
        image.file(
            "etc/systemd/system/a@.service.d/x.conf",
            "[Unit]\nDefaultDependencies=off\nBefore=y.target",
        );
        image.file("usr/lib/systemd/system/a@.service.d/x.conf", "[Unit]\nBefore=shadowed.target");
        image.file("run/systemd/generator/g.service", "[Unit]\nDefaultDependencies=no");
        let units = load(&image.root, Scope::Installed).unwrap();
        assert!(units["a@b.service"].early && units["a@.service"].early);
        assert_eq!(units["a@.service"].before.iter().collect::<Vec<_>>(), ["x.target", "y.target"]);
        assert!(!units.contains_key("g.service"));
        assert!(load(&image.root, Scope::Running).unwrap()["g.service"].early);
    }

    #[test]
    fn a_file_that_is_no_text_is_no_obstacle() {
        let image = Image::new();
        image.bytes("usr/lib/systemd/system/a.service", b"# M\xfcller\n[Unit]\nDefaultDependencies=no\n");
        image.file("usr/lib/systemd/system/b.service/x", "a directory");
        let units = load(&image.root, Scope::Installed).unwrap();
        assert!(units["a.service"].early && !units["b.service"].early);
    }
}
