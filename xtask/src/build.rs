//! The programs of this checkout.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::config::Config;
use crate::recipe::Recipe;
use crate::sys;

/// The profile of what ships but the agent, and of all checks and tests: dependencies are then built once for all.
pub(crate) const PROFILE: &str = "release";

/// Built programs: files to be found on PATH by their names.
#[derive(Debug, Clone)]
pub(crate) struct Programs(Vec<PathBuf>);

/// The programs of tests/.
pub(crate) const OF_TESTS: [&str; 3] = ["ramet-e2e", "ramet-demo", "ramet-bench"];

/// The agent's package, program and profile.
const AGENT: &str = "ramet-agent";
const AGENT_PROFILE: &str = "agent";

/// Builds what ships, as it is shipped, and `of_tests`. Cargo decides whether there is anything to do. The agent beside
/// the rest: it is optimized and linked as one unit, which has but one CPU busy. The rest always with the same packages,
/// since each would else be built again with the features that the others ask of common dependencies.
pub(crate) fn programs(config: &Config, of_tests: &[&str]) -> Result<Programs> {
    let agent = ["--profile", AGENT_PROFILE, "-p", AGENT].to_vec();
    let mut rest = ["--profile", PROFILE, "-p", "ramet", "-p", "ramet-tests", "--bin", "ramet"].to_vec();
    rest.extend(of_tests.iter().flat_map(|program| ["--bin", program]));
    sys::side_by_side(&[agent, rest], |arguments| {
        sys::run(sys::cargo(config).arg("build").args(arguments))
            .context("the programs of this checkout do not build")
    })?;
    Ok(built(config, of_tests))
}

/// What was built last, perhaps nothing.
pub(crate) fn last(config: &Config) -> Programs {
    built(config, &OF_TESTS)
}

fn built(config: &Config, of_tests: &[&str]) -> Programs {
    let folder = config.built(PROFILE);
    let rest = ["ramet"].iter().chain(of_tests).map(|program| folder.join(program));
    let all = [config.built(AGENT_PROFILE).join(AGENT)].into_iter().chain(rest);
    Programs(all.filter(|path| path.exists()).collect())
}

impl Programs {
    /// The program `wanted`, if it was built.
    pub(crate) fn named(&self, wanted: &str) -> Option<&Path> {
        self.0.iter().find(|path| name(path) == wanted).map(PathBuf::as_path)
    }

    /// Copies the programs into a folder of `shelf` whose name is their hash, and returns that name. A running program
    /// is thereby never written over.
    pub(crate) fn publish(&self, shelf: &Path) -> Result<String> {
        let mut recipe = Recipe::default();
        for path in &self.0 {
            recipe = recipe.file(&name(path), path)?;
        }
        let key = recipe.key();
        let folder = shelf.join(&key);
        if folder.exists() {
            return Ok(key);
        }
        fs::create_dir_all(shelf).with_context(|| format!("cannot create {}", shelf.display()))?;
        let partial =
            tempfile::tempdir_in(shelf).with_context(|| format!("cannot write to {}", shelf.display()))?;
        for path in &self.0 {
            fs::copy(path, partial.path().join(name(path)))
                .with_context(|| format!("cannot copy {}", path.display()))?;
        }
        fs::set_permissions(partial.path(), fs::Permissions::from_mode(0o755))?;
        // Where another xtask was faster, its folder holds the same.
        if fs::rename(partial.path(), &folder).is_ok() {
            let _renamed = partial.keep();
            for old in fs::read_dir(shelf)?.flatten().filter(|entry| entry.path() != folder) {
                let _ = fs::remove_dir_all(old.path());
            }
        }
        Ok(key)
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
