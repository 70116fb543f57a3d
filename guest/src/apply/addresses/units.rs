//! Which services are started, by the links that systemctl(1) `enable` and generators make.

use super::paths::{beside, is_kind};
use crate::glob::expand;
use crate::ini::{boolean, settings};
use crate::root::{FileError, Root};
use std::collections::{BTreeMap, BTreeSet};

/// Where unit files are, first come, first served (systemd.unit(5), "UNIT FILE LOAD PATH").
const DIRECTORIES: &[&str] = &[
    "etc/systemd/system.control",
    "run/systemd/system.control",
    "run/systemd/transient",
    "run/systemd/generator.early",
    "etc/systemd/system",
    "etc/systemd/system.attached",
    "run/systemd/system",
    "run/systemd/system.attached",
    "run/systemd/generator",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
    "run/systemd/generator.late",
];

/// How many links one name of a unit may lead through.
const ALIASES: usize = 8;

/// The services that something wants.
pub(super) struct Units<'a> {
    root: &'a Root,
    wanted: BTreeSet<String>,
    /// Whether this root has unit files at all. One that is wanted and has none is not started then.
    installed: bool,
}

/// What a unit's file is.
enum File {
    There(String),
    Masked,
    Missing,
}

impl<'a> Units<'a> {
    pub(super) fn load(root: &'a Root) -> Result<Self, FileError> {
        let mut links = BTreeMap::new();
        for base in DIRECTORIES {
            for directory in root.names(base)? {
                let kinds = [".wants", ".requires", ".upholds"];
                if !kinds.iter().any(|kind| directory.ends_with(kind)) {
                    continue;
                }
                for unit in root.names(&format!("{base}/{directory}"))? {
                    let path = format!("{base}/{directory}/{unit}");
                    links.entry((directory.clone(), unit)).or_insert(path);
                }
            }
        }
        let mut all = Self { root, wanted: BTreeSet::new(), installed: false };
        for ((_, unit), path) in links {
            // A link to nowhere takes away one in a directory that comes later.
            if !root.link(&path)?.is_some_and(|to| is_nowhere(&path, &to)) {
                all.wanted.insert(all.file(&unit)?.0);
            }
        }
        all.installed = ["usr/lib/systemd/system", "lib/systemd/system"].iter().any(|path| {
            root.names(path).is_ok_and(|names| names.iter().any(|name| is_kind(name, "service")))
        });
        Ok(all)
    }

    /// The name behind the alias `unit`, and its file.
    fn file(&self, unit: &str) -> Result<(String, File), FileError> {
        let mut name = unit.to_owned();
        'alias: for _ in 0..ALIASES {
            for base in DIRECTORIES {
                let path = format!("{base}/{name}");
                let Some(length) = self.root.len(&path)? else { continue };
                match self.root.link(&path)? {
                    Some(to) if is_nowhere(&path, &to) => return Ok((name, File::Masked)),
                    Some(to) => match to.rsplit('/').next() {
                        Some(last) if last != name => {
                            last.clone_into(&mut name);
                            continue 'alias;
                        }
                        Some(_) | None => return Ok((name, File::There(path))),
                    },
                    // An empty file masks, too.
                    None if length == 0 => return Ok((name, File::Masked)),
                    None => return Ok((name, File::There(path))),
                }
            }
            break;
        }
        Ok((name, File::Missing))
    }

    /// Whether `unit` has a file.
    pub(super) fn is_installed(&self, unit: &str) -> Result<bool, FileError> {
        Ok(matches!(self.file(unit)?.1, File::There(_)))
    }

    /// Whether `unit` cannot be started.
    pub(super) fn is_masked(&self, unit: &str) -> Result<bool, FileError> {
        Ok(matches!(self.file(unit)?.1, File::Masked))
    }

    /// Whether `unit` is started with the system: something wants it, and it is not masked, and its conditions, those
    /// about files, hold.
    pub(super) fn is_enabled(&self, unit: &str) -> Result<bool, FileError> {
        if !self.wanted.contains(unit) {
            return Ok(false);
        }
        match self.file(unit)?.1 {
            File::There(path) => self.conditions_hold(unit, &path),
            File::Masked => Ok(false),
            File::Missing => Ok(!self.installed),
        }
    }

    /// Conditions of the unit and its drop-ins (systemd.unit(5), "CONDITIONS AND ASSERTS").
    fn conditions_hold(&self, unit: &str, path: &str) -> Result<bool, FileError> {
        let mut texts = vec![self.root.read_lossy(path)?.unwrap_or_default()];
        let mut drop_ins = BTreeMap::new();
        for base in DIRECTORIES {
            for name in self.root.names(&format!("{base}/{unit}.d"))? {
                if is_kind(&name, "conf") {
                    let path = format!("{base}/{unit}.d/{name}");
                    drop_ins.entry(name).or_insert(path);
                }
            }
        }
        for path in drop_ins.values() {
            texts.extend(self.root.read_lossy(path)?);
        }
        let (mut all, mut any) = (true, None);
        for setting in texts.iter().flat_map(|text| settings(text)) {
            let kind = ["Condition", "Assert"].iter().find_map(|kind| setting.key.strip_prefix(kind));
            let Some(kind) = kind.filter(|_| setting.section == "Unit") else { continue };
            if setting.value.is_empty() {
                (all, any) = (true, None);
                continue;
            }
            let (alternative, rest) =
                setting.value.strip_prefix('|').map_or((false, setting.value.as_str()), |rest| (true, rest));
            let (negated, path) = rest.strip_prefix('!').map_or((false, rest), |rest| (true, rest));
            // What is asked of the system that runs is taken to hold.
            let holds = self.holds(kind, path.trim())?.is_none_or(|holds| holds != negated);
            if alternative {
                any = Some(any.unwrap_or(false) || holds);
            } else {
                all &= holds;
            }
        }
        Ok(all && any.unwrap_or(true))
    }

    fn holds(&self, kind: &str, path: &str) -> Result<Option<bool>, FileError> {
        let own = ["/run/", "/proc/", "/sys/", "/dev/", "/tmp/"];
        if !path.starts_with('/') || own.iter().any(|start| path.starts_with(start)) || path.contains('%') {
            return Ok(None);
        }
        let path = super::paths::real(self.root, path.trim_matches('/'))?;
        Ok(match kind {
            "PathExists" => Some(self.root.exists(&path)?),
            "PathExistsGlob" => Some(!expand(self.root, &path)?.is_empty()),
            "PathIsDirectory" => Some(self.root.is_dir(&path)?),
            "DirectoryNotEmpty" => Some(!self.root.names(&path)?.is_empty()),
            "FileNotEmpty" => {
                Some(self.root.is_regular(&path)? && self.root.len(&path)?.is_some_and(|len| len > 0))
            }
            "FileIsExecutable" => Some(self.root.is_regular(&path)? && self.root.is_executable(&path)?),
            _ => None,
        })
    }
}

/// Whether the link at `path` to `to` masks: such a link may be relative, too.
fn is_nowhere(path: &str, to: &str) -> bool {
    beside(path, to) == "dev/null"
}

/// What a boolean setting says, or `default`.
pub(super) fn is_true(value: Option<&str>, default: bool) -> bool {
    value.and_then(boolean).unwrap_or(default)
}
