//! Artifacts by the hash of their recipe.
//!
//! An artifact is a folder `NAME-KEY`. It is made under another name and renamed when whole, so that an interrupted
//! build is never taken for one; what an interrupted build left is removed by the next. One lock per name keeps two
//! builds apart, and an artifact's older keys are removed when a new one is made.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::sys::{self, Lock, Step};

/// The folder `NAME-KEY` in `cache`, made by `build` (which gets an empty folder to fill) when it is not there.
pub(crate) fn artifact(
    cache: &Path,
    name: &str,
    key: &str,
    build: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let whole = cache.join(format!("{name}-{key}"));
    if whole.exists() {
        return Ok(whole);
    }
    let _lock = Lock::take(&cache.join(format!("{name}.lock")), &format!("it makes {name}"))?;
    if whole.exists() {
        return Ok(whole);
    }

    let step = Step::begin(format!("making {name} (kept in {})", cache.display()));
    let partial = cache.join(format!("{name}.partial"));
    remove(&partial)?;
    fs::create_dir(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    build(&partial).with_context(|| format!("cannot make {name}"))?;
    fs::rename(&partial, &whole).with_context(|| format!("cannot create {}", whole.display()))?;
    for old in others(cache, name, key)? {
        remove(&old)?;
    }
    step.done();
    Ok(whole)
}

/// Artifacts of the same name with another key.
fn others(cache: &Path, name: &str, key: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(cache).with_context(|| format!("cannot read {}", cache.display()))? {
        let entry = entry?;
        let file = entry.file_name();
        let Some((stem, suffix)) = file.to_str().and_then(|file| file.rsplit_once('-')) else { continue };
        if stem == name && suffix != key && entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Removes a folder that may hold files of root.
fn remove(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    sys::run(sys::as_root("rm").args(["-rf", "--one-file-system", "--"]).arg(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn made_once_and_older_keys_go() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let make = |name: &str, key: &str| {
            artifact(dir.path(), name, key, |out| Ok(fs::write(out.join("file"), key)?)).expect("an artifact")
        };
        let first = make("a", "1");
        let neighbour = make("a-b", "1");
        assert_eq!(first, make("a", "1"));
        let second = make("a", "2");
        assert!(!first.exists(), "the older key is gone");
        assert!(neighbour.exists(), "another artifact whose name begins alike stays");
        assert_eq!(fs::read(second.join("file")).expect("a file"), b"2");
    }

    #[test]
    fn a_failed_build_is_no_artifact_and_the_next_starts_empty() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let failed = artifact(dir.path(), "a", "1", |out| {
            fs::write(out.join("half"), "")?;
            bail!("no luck")
        });
        assert!(failed.is_err());
        let made = artifact(dir.path(), "a", "1", |out| {
            assert!(!out.join("half").exists());
            Ok(())
        });
        assert!(made.is_ok());
    }
}
