//! Where things are.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The triple that `.cargo/config.toml` builds for.
pub(crate) const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Folders of this checkout and of this user.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The checkout.
    pub(crate) root: PathBuf,
    /// Cargo's target folder.
    pub(crate) target: PathBuf,
    /// Artifacts that are expensive to make, shared by all checkouts of this user.
    pub(crate) cache: PathBuf,
    /// Run-time state of this checkout's lab.
    pub(crate) lab: PathBuf,
}

impl Config {
    /// From the environment that cargo and the user give.
    pub(crate) fn from_env() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask's manifest lies in a folder of the checkout")?
            .to_path_buf();
        let here = env::current_dir().context("the current folder is gone")?;
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| here.join(dir));
        let cache = cache_dir(|name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
            .context("none of RAMET_CACHE_DIR, XDG_CACHE_HOME and HOME is set: set RAMET_CACHE_DIR")?;
        let lab = target.join("lab");
        Ok(Self { root, target, cache: here.join(cache), lab })
    }

    /// Where programs land that are built with a profile of Cargo.toml.
    pub(crate) fn built(&self, profile: &str) -> PathBuf {
        self.target.join(TRIPLE).join(profile)
    }

    /// The same with the checkout's other lab, in which half of the end-to-end cases run.
    pub(crate) fn second_lab(&self) -> Self {
        Self { lab: self.target.join("lab-2"), ..self.clone() }
    }
}

fn cache_dir(var: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    var("RAMET_CACHE_DIR")
        .or_else(|| var("XDG_CACHE_HOME").map(|dir| dir.join("ramet")))
        .or_else(|| var("HOME").map(|dir| dir.join(".cache/ramet")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(set: &[(&str, &str)]) -> Option<PathBuf> {
        cache_dir(|name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| PathBuf::from(v)))
    }

    #[test]
    fn the_most_specific_variable_names_the_cache() {
        let all = [("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("RAMET_CACHE_DIR", "/r")];
        assert_eq!(with(&all), Some("/r".into()));
        assert_eq!(with(&all[..2]), Some("/x/ramet".into()));
        assert_eq!(with(&all[..1]), Some("/h/.cache/ramet".into()));
        assert_eq!(with(&[]), None);
    }
}
