//! Templates: parents suspended at the gate, whole and read-only.

pub mod create;
pub mod digest;
pub mod findings;
pub mod manifest;

use crate::{
    fs::{self, AtPath, FsError},
    name::Name,
    state::{StateDir, StateLock, names_in},
};
use manifest::{FileRecord, Manifest, ManifestError};
use std::path::{Path, PathBuf};

/// Files of a template, relative to its directory.
pub mod files {
    /// What the template is; written last.
    pub const MANIFEST: &str = "manifest.json";
    /// The parent's RAM.
    pub const RAM: &str = "ram";
    /// The parent's device state, in QEMU's migration format.
    pub const STATE: &str = "state";
    /// The parent's disk.
    pub const DISK: &str = crate::qemu::files::DISK;
    /// An empty overlay on the disk, copied for each child.
    pub const OVERLAY: &str = "overlay.qcow2";
}

/// A template that is there and looks whole.
#[derive(Clone, Debug)]
pub struct Template {
    /// Its name.
    pub name: Name,
    /// Where it is.
    pub dir: PathBuf,
    /// What it is.
    pub manifest: Manifest,
}

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// It is not there.
    #[error("there is no template {0}: see ramet template ls")]
    NotFound(Name),
    /// Its manifest cannot be used.
    #[error("the template {name} is damaged: remove it (ramet template rm {name}) and create it again")]
    Manifest {
        /// Which template.
        name: Name,
        /// Why not.
        #[source]
        source: ManifestError,
    },
    /// A file is missing, truncated or altered.
    #[error("the template {name} is damaged: {problems}; remove it (ramet template rm {name}) and create it again",
            problems = .problems.join(", "))]
    Damaged {
        /// Which template.
        name: Name,
        /// One for each file.
        problems: Vec<String>,
    },
    /// Children refer to it.
    #[error(
        "the template {name} is in use by {}: remove them first (ramet rm {})",
        join(children),
        join(children)
    )]
    InUse {
        /// Which template.
        name: Name,
        /// Who refers to it.
        children: Vec<Name>,
    },
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] FsError),
}

fn join(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(" ")
}

impl Template {
    /// Opens a template and checks what is cheap to check: the manifest and the device state entirely, the large
    /// files by size and time of last change. A large file with another time is read and compared in full.
    pub fn open(state: &StateDir, name: &Name) -> Result<Self, TemplateError> {
        let template = Self::read(state, name)?;
        let problems = template.problems(Depth::Cheap)?;
        if problems.is_empty() {
            return Ok(template);
        }
        Err(TemplateError::Damaged { name: name.clone(), problems })
    }

    /// Reads a template's manifest and looks at nothing else.
    pub fn read(state: &StateDir, name: &Name) -> Result<Self, TemplateError> {
        let dir = state.template(name);
        if !dir.is_dir() {
            return Err(TemplateError::NotFound(name.clone()));
        }
        match Manifest::read(&dir.join(files::MANIFEST)) {
            Ok(manifest) => Ok(Self { name: name.clone(), dir, manifest }),
            Err(source) => Err(TemplateError::Manifest { name: name.clone(), source }),
        }
    }

    /// Compares every byte with the manifest; the names of the files that differ, and how. Where what is cheap to check
    /// differs, the rest is not read: the template is lost already.
    pub fn verify(&self) -> Result<Vec<String>, TemplateError> {
        let problems = self.problems(Depth::Cheap)?;
        if problems.is_empty() { self.problems(Depth::Full) } else { Ok(problems) }
    }

    fn problems(&self, depth: Depth) -> Result<Vec<String>, TemplateError> {
        let files = &self.manifest.files;
        let records = [
            (files::RAM, &files.ram, depth),
            (files::DISK, &files.disk, depth),
            (files::STATE, &files.state, Depth::Full),
            (files::OVERLAY, &files.overlay, Depth::Full),
        ];
        let mut problems = Vec::new();
        for (file, record, depth) in records {
            problems.extend(
                problem(&self.dir.join(file), record, depth)?.map(|problem| format!("{file} {problem}")),
            );
        }
        Ok(problems)
    }

    /// A file of the template.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Bytes it takes on disk.
    pub fn disk_usage(&self) -> Result<u64, FsError> {
        use std::os::unix::fs::MetadataExt as _;
        let mut bytes = 0;
        for file in [files::RAM, files::DISK, files::STATE, files::OVERLAY] {
            let path = self.dir.join(file);
            bytes += std::fs::metadata(&path).at("read", &path)?.blocks() * 512;
        }
        Ok(bytes)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Cheap,
    Full,
}

fn problem(path: &Path, record: &FileRecord, depth: Depth) -> Result<Option<String>, FsError> {
    let found = match FileRecord::stat(path) {
        Ok(found) => found,
        Err(error) if error.is_not_found() => return Ok(Some("is missing".to_owned())),
        Err(error) => return Err(error),
    };
    if found.size != record.size {
        return Ok(Some(format!("has {} bytes instead of {}", found.size, record.size)));
    }
    if depth == Depth::Cheap && found.mtime_ns == record.mtime_ns {
        return Ok(None);
    }
    let altered = digest::digest(path)? != record.digest;
    Ok(altered.then(|| "was altered".to_owned()))
}

/// The templates that are there, by name. Each may still be damaged.
pub fn list(state: &StateDir) -> Result<Vec<Name>, FsError> {
    names_in(&state.templates())
}

/// Removes a template that no child refers to.
pub fn remove(state: &StateDir, name: &Name) -> Result<(), TemplateError> {
    let lock = state.lock()?;
    let dir = state.template(name);
    if !dir.is_dir() {
        return Err(TemplateError::NotFound(name.clone()));
    }
    let children = crate::child::of_template(state, name, &lock)?;
    if !children.is_empty() {
        return Err(TemplateError::InUse { name: name.clone(), children });
    }
    let hidden = fs::hide(&dir)?;
    // Deleting gigabytes takes a while, and nobody need wait for it.
    drop(lock);
    Ok(fs::remove_hidden(&hidden)?)
}

/// The MAC addresses of all templates that can be read: a parent's address is never a child's.
pub fn parent_macs(
    state: &StateDir,
    _lock: &StateLock,
) -> Result<Vec<(Name, ramet_proto::MacAddr)>, FsError> {
    let mut macs = Vec::new();
    for name in list(state)? {
        // A damaged template gives no children, so its addresses cannot clash.
        if let Ok(template) = Template::read(state, &name) {
            macs.extend(template.manifest.nics.iter().map(|nic| (name.clone(), nic.mac)));
        }
    }
    Ok(macs)
}
