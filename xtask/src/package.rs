//! The agent as a Debian package, by `guest/debian/build`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::build::Programs;
use crate::cache::artifact;
use crate::config::Config;
use crate::recipe::Recipe;
use crate::sys;

/// The package's file name.
const FILE: &str = concat!("ramet-agent_", env!("CARGO_PKG_VERSION"), "_amd64.deb");

/// The package of the agent in `programs`, in the cache.
pub(crate) fn ensure(config: &Config, programs: &Programs) -> Result<PathBuf> {
    let agent = programs.named("ramet-agent").context("ramet-agent is not built: leave out --no-build")?;
    let (rootfs, debian) = (config.root.join("guest/rootfs"), config.root.join("guest/debian"));
    let key = Recipe::default()
        .bytes("name", FILE.as_bytes())
        .file("agent", agent)?
        .tree(&rootfs)?
        .tree(&debian)?
        .key();
    let folder = artifact(&config.cache, "package", &key, |out| {
        sys::need(&["/usr/bin/dpkg-deb"], &["dpkg"])?;
        sys::run(
            std::process::Command::new("sh")
                .arg(debian.join("build"))
                .arg(env!("CARGO_PKG_VERSION"))
                .arg(agent)
                .arg(out.join(FILE)),
        )
    })?;
    Ok(folder.join(FILE))
}

/// Puts the package into cargo's target folder.
pub(crate) fn copy_to_target(config: &Config, package: &Path) -> Result<PathBuf> {
    let copy = config.target.join(FILE);
    std::fs::copy(package, &copy).with_context(|| format!("cannot write {}", copy.display()))?;
    Ok(copy)
}
