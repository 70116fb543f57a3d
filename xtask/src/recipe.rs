//! Keys of artifacts: a hash of everything that an artifact is made of.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A hash that grows part by part. Each part is framed, so that no two lists of parts give the same bytes.
#[derive(Default)]
pub(crate) struct Recipe(blake3::Hasher);

impl Recipe {
    /// Adds bytes under a name.
    pub(crate) fn bytes(mut self, name: &str, bytes: &[u8]) -> Self {
        for part in [name.as_bytes(), bytes] {
            self.0.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        self
    }

    /// Adds a file's contents.
    pub(crate) fn file(self, name: &str, path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(self.bytes(name, &bytes))
    }

    /// Adds every file below a folder: relative path, whether it may be executed, contents or where it links to. A
    /// folder that does not exist adds nothing.
    pub(crate) fn tree(mut self, root: &Path) -> Result<Self> {
        for path in walk(root)? {
            let name = path.strip_prefix(root).unwrap_or(&path).as_os_str().as_bytes().to_vec();
            let meta = path.symlink_metadata().with_context(|| format!("cannot read {}", path.display()))?;
            let (kind, contents) = if meta.is_symlink() {
                let target = fs::read_link(&path)?;
                ("link", target.as_os_str().as_bytes().to_vec())
            } else {
                let kind = if meta.permissions().mode() & 0o100 == 0 { "file" } else { "program" };
                let contents = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                (kind, contents)
            };
            self = self.bytes("path", &name).bytes(kind, &contents);
        }
        Ok(self)
    }

    /// The key: short enough for a folder's name, long enough never to collide by accident.
    pub(crate) fn key(self) -> String {
        let mut hex = self.0.finalize().to_hex();
        hex.truncate(16);
        hex.to_string()
    }
}

/// Files and links below `root`, sorted, so that a key does not depend on the file system's order.
fn walk(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The packages of a recipe, one a line, `#` begins a comment.
pub(crate) fn packages(text: &str) -> Vec<&str> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or("").trim())
        .filter(|name| !name.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree_key(root: &Path) -> String {
        Recipe::default().tree(root).expect("a readable folder").key()
    }

    #[test]
    fn parts_are_framed() {
        let one = Recipe::default().bytes("a", b"bc").key();
        let other = Recipe::default().bytes("ab", b"c").key();
        assert_ne!(one, other);
        assert_eq!(one.len(), 16);
    }

    #[test]
    fn a_tree_is_its_paths_modes_and_contents() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let empty = tree_key(dir.path());
        assert_eq!(empty, tree_key(&dir.path().join("absent")));

        fs::create_dir(dir.path().join("sub")).expect("a folder");
        let file = dir.path().join("sub/file");
        fs::write(&file, "x").expect("a file");
        let with_file = tree_key(dir.path());
        assert_ne!(empty, with_file);
        assert_eq!(with_file, tree_key(dir.path()));

        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a mode");
        let executable = tree_key(dir.path());
        assert_ne!(with_file, executable);

        fs::write(&file, "y").expect("a file");
        assert_ne!(executable, tree_key(dir.path()));
    }

    #[test]
    fn package_lists_have_comments() {
        assert_eq!(packages("# head\nudev\n\n  jq # why\n"), ["udev", "jq"]);
    }
}
