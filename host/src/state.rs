//! The state directory: where everything is, and the lock that guards names and identities.
//!
//! ```text
//! STATE/lock                   locked for the moment in which names and identities are taken
//! STATE/templates/NAME/        manifest.json ram state disk.qcow2 overlay.qcow2, all read-only
//! STATE/templates/.creating-NAME/   a template that is not whole yet
//! STATE/children/NAME/         child.json lock alive disk.qcow2 qmp.sock console.sock console.log qemu.log ...
//! ```

use crate::{
    fs::{AtPath, FsError},
    lock,
    name::Name,
};
use std::{
    fs::{self, File},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// An open state directory. It and all it holds is accessible to its owner only: RAM files hold guests' secrets.
#[derive(Clone, Debug)]
pub struct StateDir {
    root: PathBuf,
}

/// Held while names and identities are looked up and taken; released on drop or when the process dies, however.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateDir {
    /// Opens `root`, which is made if it is not there.
    pub fn open(root: &Path) -> Result<Self, FsError> {
        let mkdir =
            |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path).at("create", path);
        mkdir(root)?;
        let root = root.canonicalize().at("resolve", root)?;
        let state = Self { root };
        mkdir(&state.templates())?;
        mkdir(&state.children())?;
        Ok(state)
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where templates are.
    #[must_use]
    pub fn templates(&self) -> PathBuf {
        self.root.join("templates")
    }

    /// Where one template is, or would be.
    #[must_use]
    pub fn template(&self, name: &Name) -> PathBuf {
        self.templates().join(name.as_str())
    }

    /// Where children are.
    #[must_use]
    pub fn children(&self) -> PathBuf {
        self.root.join("children")
    }

    /// Where one child is, or would be.
    #[must_use]
    pub fn child(&self, name: &Name) -> PathBuf {
        self.children().join(name.as_str())
    }

    /// Waits for the lock. Whoever holds it does so for milliseconds.
    pub fn lock(&self) -> Result<StateLock, FsError> {
        Ok(StateLock { _file: lock::wait(&self.root.join("lock"))? })
    }
}

/// The names of the entries of `dir` that are [`Name`]s, sorted; hidden ones are unfinished work.
pub fn names_in(dir: &Path) -> Result<Vec<Name>, FsError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        names.extend(entry.file_name().to_str().and_then(|name| name.parse::<Name>().ok()));
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn only_the_owner_may_look_inside() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        for path in [state.root(), &state.templates(), &state.children()] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700, "{}", path.display());
        }
    }

    #[test]
    fn hidden_entries_are_no_names() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a", ".creating-c", ".removing-d.1"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let names: Vec<_> = names_in(dir.path()).unwrap().into_iter().map(String::from).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
