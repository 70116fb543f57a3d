//! The unit files of a root, as systemd would find them.

use super::{
    fstab,
    unit::{DropIn, Unit, has_kind, holds, is_unit, may_have_drop_ins},
    unit_file::{drop_in_names, template},
};
use crate::{
    ini::settings,
    root::{FileError, Root},
};
use std::collections::{BTreeMap, BTreeSet};

/// The file name of a drop-in that decides about the gate. A unit's own takes the place of the one for all services.
pub(super) const FILE: &str = "50-ramet-gate.conf";

/// Where unit files are, first come, first served (systemd.unit(5)), without the directories of generators: those run
/// side by side, so that what is in there while one runs is chance.
pub(super) const INSTALLED: &[&str] = &[
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

/// Those of [`INSTALLED`] in `root`, each once: /lib may be a link to /usr/lib.
pub(super) fn installed(root: &Root) -> Result<Vec<&'static str>, FileError> {
    let merged = root.link("lib")?.is_some();
    Ok(INSTALLED.iter().copied().filter(|directory| !merged || !directory.starts_with("lib/")).collect())
}

/// The directory that the generator ramet-gate is told to write to.
pub(super) const GENERATED: &str = "run/systemd/generator";

/// Which directories to look in.
#[derive(Clone, Copy)]
pub(crate) enum Scope {
    /// What is installed.
    Installed,
    /// Also what generators made when this system booted.
    Running,
}

impl Scope {
    /// The directories, the first before the others.
    fn directories(self) -> Vec<&'static str> {
        let mut directories = INSTALLED.to_vec();
        if let Self::Running = self {
            directories.insert(3, "run/systemd/generator.early");
            directories.insert(8, GENERATED);
            directories.push("run/systemd/generator.late");
        }
        directories
    }
}

/// Every unit of a root; masked ones are left out.
#[derive(Debug, Default)]
pub(super) struct Units {
    by_name: BTreeMap<String, Unit>,
    /// What an alias leads to.
    aliases: BTreeMap<String, String>,
    masked: BTreeSet<String>,
}

impl Units {
    /// The unit of that name, or alias, or the template of that instance.
    pub(super) fn get(&self, name: &str) -> Option<&Unit> {
        self.by_name.get(&self.resolve(name))
    }

    /// The name of the unit that `name` is about: an alias is followed, and an instance that has no file of its own is
    /// its template. What there is no file of stays as it is.
    pub(super) fn resolve(&self, name: &str) -> String {
        // systemd follows a chain of aliases; one that goes in circles leads nowhere.
        let mut name = name;
        for _ in 0..8 {
            name = self.aliases.get(name).map_or(name, String::as_str);
        }
        if self.by_name.contains_key(name) {
            return name.to_owned();
        }
        match template(name) {
            Some(template) if self.by_name.contains_key(&template) => template,
            Some(template) => self.aliases.get(&template).unwrap_or(&name.to_owned()).clone(),
            None => name.to_owned(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Unit> {
        self.by_name.values()
    }

    /// Whether the unit is masked: a link to /dev/null, or an empty file.
    pub(super) fn is_masked(&self, name: &str) -> bool {
        self.masked.contains(name)
    }

    /// All that is reached from `from` over what `edges` names, `from` included.
    pub(super) fn closure<'u>(
        &'u self,
        from: &[&str],
        edges: impl Fn(&'u Unit) -> Vec<&'u String>,
    ) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open: Vec<String> = from.iter().map(|name| self.resolve(name)).collect();
        while let Some(name) = open.pop() {
            if found.contains(&name) {
                continue;
            }
            if let Some(unit) = self.by_name.get(&name) {
                open.extend(edges(unit).into_iter().map(|name| self.resolve(name)));
            }
            found.insert(name);
        }
        found
    }
}

/// Every unit of `root`. A file that cannot be read counts as one without settings: its unit is held.
pub(super) fn load(root: &Root, scope: Scope) -> Result<Units, FileError> {
    let directories = scope.directories();
    let mut units = Units::default();
    let mut wants: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    // By the name of the directory, then by that of the file: which of `directories` it is in, and where.
    let mut drop_ins: BTreeMap<String, BTreeMap<String, (usize, String)>> = BTreeMap::new();
    // A link that leads around in circles is no directory, and no reason not to boot.
    let names = |path: &str| root.names(path).unwrap_or_default();
    for (rank, directory) in directories.iter().enumerate() {
        for name in root.names(directory)? {
            let path = format!("{directory}/{name}");
            if let Some(unit) = name.strip_suffix(".d").filter(|unit| may_have_drop_ins(unit)) {
                let files = names(&path).into_iter().filter(|file| has_kind(file, "conf"));
                for file in files {
                    let full = format!("{path}/{file}");
                    drop_ins.entry(unit.to_owned()).or_default().entry(file).or_insert((rank, full));
                }
            } else if let Some(unit) = ["wants", "requires", "upholds"]
                .iter()
                .find_map(|kind| name.strip_suffix(&format!(".{kind}")))
            {
                wants.entry(unit.to_owned()).or_default().extend(names(&path));
            } else if is_unit(&name) {
                units.add(root, &path, &name)?;
            }
        }
    }
    for (alias, to) in &units.aliases.clone() {
        let to = units.resolve(to);
        if let Some(unit) = units.by_name.get_mut(&to) {
            unit.aliases.push(alias.clone());
        }
    }
    for unit in units.by_name.values_mut() {
        for (file, path) in drop_ins_of(unit, &drop_ins) {
            let text = root.read_lossy(&path).ok().flatten().unwrap_or_default();
            let generated =
                path.starts_with(GENERATED) && path.as_bytes().get(GENERATED.len()) == Some(&b'/');
            if file != FILE {
                unit.apply(&text);
            } else if !generated {
                unit.drop_in = Some(DropIn { holds: holds(&text), path });
                // One of a socket takes its default dependencies away, too.
                unit.early |=
                    settings(&text).iter().any(|s| s.key == "DefaultDependencies" && s.value == "no");
            }
        }
    }
    let mounts = fstab::read(root)?;
    let traps: BTreeSet<String> = mounts.iter().flat_map(|unit| unit.triggers.clone()).collect();
    for unit in mounts {
        // One of a network is wanted elsewhere; what matters is that it is wanted.
        if !traps.contains(&unit.name) {
            wants.entry("local-fs.target".into()).or_default().insert(unit.name.clone());
        }
        units.by_name.entry(unit.name.clone()).or_insert(unit);
    }
    for unit in units.by_name.values_mut() {
        for name in std::iter::once(&unit.name).chain(&unit.aliases) {
            unit.pulls.extend(wants.get(name).into_iter().flatten().cloned());
        }
        unit.complete();
    }
    Ok(units)
}

impl Units {
    fn add(&mut self, root: &Root, path: &str, name: &str) -> Result<(), FileError> {
        if self.by_name.contains_key(name) || self.aliases.contains_key(name) || self.masked.contains(name) {
            return Ok(());
        }
        if let Some(to) = root.link(path)? {
            if to == "/dev/null" {
                self.masked.insert(name.to_owned());
                return Ok(());
            }
            if let Some(other) = alias(path, &to).filter(|other| *other != name) {
                self.aliases.insert(name.to_owned(), other.to_owned());
                return Ok(());
            }
        }
        let text = root.read(path).ok().flatten();
        if text.as_ref().is_some_and(Vec::is_empty) {
            self.masked.insert(name.to_owned());
            return Ok(());
        }
        let mut unit = Unit::new(name, path);
        unit.apply(&String::from_utf8_lossy(&text.unwrap_or_default()));
        self.by_name.insert(name.to_owned(), unit);
        Ok(())
    }
}

/// The unit that a link at `path` to `to` is another name of. One that leads out of the directories of units is the
/// unit's file itself (systemctl(1), `link`).
fn alias<'t>(path: &str, to: &'t str) -> Option<&'t str> {
    let (directory, name) = to.rsplit_once('/').unwrap_or(("", to));
    let mut parts: Vec<&str> = Vec::new();
    let from = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let start = if to.starts_with('/') { "" } else { from };
    for part in start.split('/').chain(directory.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let directory = parts.join("/");
    let known = Scope::Running.directories().contains(&directory.as_str());
    (known && is_unit(name)).then_some(name)
}

/// The drop-ins of a unit, in the order in which they count: of files with one name there is the one in the directory
/// that goes before, then the one for the more specific name, then that of an alias, and last the one for all of a type.
fn drop_ins_of(
    unit: &Unit,
    all: &BTreeMap<String, BTreeMap<String, (usize, String)>>,
) -> BTreeMap<String, String> {
    let mut found: BTreeMap<&String, (usize, usize, usize, &String)> = BTreeMap::new();
    let names = std::iter::once(&unit.name).chain(&unit.aliases);
    let mut groups: Vec<Vec<String>> = names.map(|name| drop_in_names(name)).collect();
    groups.push(vec![unit.kind().to_owned()]);
    for (group, names) in groups.iter().enumerate() {
        for (specific, name) in names.iter().enumerate() {
            for (file, (rank, path)) in all.get(name).into_iter().flatten() {
                // What holds all services is no service's own.
                if file == FILE && group + 1 == groups.len() {
                    continue;
                }
                let key = (group, *rank, specific, path);
                found.entry(file).and_modify(|other| *other = key.min(*other)).or_insert(key);
            }
        }
    }
    found.into_iter().map(|(file, (_, _, _, path))| (file.clone(), path.clone())).collect()
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
        image.link("etc/systemd/system/e.service", "/opt/d.service");
        image.file("etc/systemd/system/f.service", "");
        image.unit("f.service", "DefaultDependencies=no");
        assert_eq!(
            load(&image.root, Scope::Installed).unwrap().iter().map(|u| u.name.as_str()).collect::<Vec<_>>(),
            ["a.service", "b.service", "d.service", "e.service", "ramet-agent.service"]
        );
        let units = load(&image.root, Scope::Installed).unwrap();
        let early = |name: &str| units.get(name).unwrap().early;
        assert!(!early("a.service") && early("b.service") && early("d.service"));
        assert!(early("e.service"), "a link out of the directories is the unit's file");
        assert!(units.is_masked("c.service") && units.is_masked("f.service"));
        assert_eq!(units.get("b-thrice.service").unwrap().aliases, ["b-again.service", "b-thrice.service"]);
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
        assert!(units.get("a@b.service").unwrap().early && units.get("a@.service").unwrap().early);
        assert_eq!(units.get("a@.service").unwrap().before, ["x.target", "y.target"]);
        assert_eq!(units.resolve("a@other.service"), "a@.service");
        assert!(units.get("g.service").is_none());
        assert!(load(&image.root, Scope::Running).unwrap().get("g.service").unwrap().early);
    }

    /// F8: of drop-ins with one file name there is one, as systemd chooses it.
    #[test]
    fn of_drop_ins_with_one_name_one_counts() {
        let image = Image::new();
        let dir = "usr/lib/systemd/system";
        image.unit("a-b@c.service", "");
        image.link("usr/lib/systemd/system/alias.service", "a-b@c.service");
        for (name, file) in [
            ("a-b@c.service", "1"),
            ("a-b@.service", "1"),
            ("a-b@.service", "2"),
            ("a-@.service", "2"),
            ("a-@.service", "3"),
            ("alias.service", "3"),
            ("alias.service", "4"),
            ("service", "4"),
            ("service", "5"),
        ] {
            image
                .file(&format!("{dir}/{name}.d/{file}.conf"), &format!("[Unit]\nAfter={name}-{file}.target"));
        }
        image.file("etc/systemd/system/a-b@.service.d/6.conf", "[Unit]\nAfter=etc.target");
        image.file(&format!("{dir}/a-b@c.service.d/6.conf"), "[Unit]\nAfter=lib.target");
        let units = load(&image.root, Scope::Installed).unwrap();
        let mut after = units.get("a-b@c.service").unwrap().after.clone();
        after.sort_unstable();
        let expected = [
            "a-@.service-3.target",
            "a-b@.service-2.target",
            "a-b@c.service-1.target",
            "alias.service-4.target",
            "basic.target",
            "etc.target",
            "service-5.target",
            "sysinit.target",
        ];
        assert_eq!(after, expected);
    }

    #[test]
    fn a_file_that_is_no_text_is_no_obstacle() {
        let image = Image::new();
        image.bytes("usr/lib/systemd/system/a.service", b"# M\xfcller\n[Unit]\nDefaultDependencies=no\n");
        image.file("usr/lib/systemd/system/b.service/x", "a directory");
        let units = load(&image.root, Scope::Installed).unwrap();
        assert!(units.get("a.service").unwrap().early && !units.get("b.service").unwrap().early);
    }
}
