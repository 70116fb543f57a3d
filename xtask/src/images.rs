//! Guest images and the lab's disk, from the recipes in `images/`.
//!
//! ```text
//! lab-root     mmdebstrap: a folder, also the tools' root
//!   lab        its disk, kernel, initrd and keys
//! debian-root  mmdebstrap: a folder, and the key pair of its root
//!   plain      plain.qcow2
//!   debian     debian.qcow2: with the agent
//! ```

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::build::Programs;
use crate::cache::artifact;
use crate::config::Config;
use crate::recipe::{self, Recipe};
use crate::sys;
use crate::tools::{Tools, User, inside};

/// The Debian release of the lab and of the guest.
const SUITE: &str = "trixie";

/// Guest images, each a file in the cache.
#[derive(Debug, Clone)]
pub(crate) struct Images {
    /// With the agent.
    pub(crate) debian: PathBuf,
    /// The same without.
    pub(crate) plain: PathBuf,
    /// Private key of their root, mode 0600.
    pub(crate) key: PathBuf,
}

impl Images {
    /// Each file with the name it has in `$RAMET_IMAGES`.
    pub(crate) fn named(&self) -> [(&'static str, &Path); 3] {
        [("debian.qcow2", &self.debian), ("plain.qcow2", &self.plain), ("id_ed25519", &self.key)]
    }
}

impl fmt::Display for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (_, path)) in self.named().iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{}", path.display())?;
        }
        Ok(())
    }
}

/// What the lab boots from.
#[derive(Debug, Clone)]
pub(crate) struct LabDisk {
    /// Holds `lab.qcow2`, `vmlinuz`, `initrd.img`, `id_ed25519`, `known_hosts`.
    pub(crate) folder: PathBuf,
}

/// Makes what is missing of the guest images.
pub(crate) fn ensure(config: &Config, programs: &Programs) -> Result<Images> {
    let recipe = config.root.join("images/debian");
    let rootfs = config.root.join("guest/rootfs");
    let tools = Tools::ensure(config)?;
    let root_key = root_key(&recipe)?;
    let root = artifact(&config.cache, "debian-root", &root_key, |out| {
        bootstrap(&recipe, &out.join("root"))?;
        sys::need(&["/usr/bin/ssh-keygen"], &["openssh-client"])?;
        sys::run(
            std::process::Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "ramet guest", "-f"])
                .arg(out.join("id_ed25519")),
        )
    })?;

    let bake = |out: PathBuf, agent: Option<&Path>| -> Result<()> {
        let mut command = tools.command(User::Root, "sh");
        command.arg(inside(&recipe.join("bake"))).arg(inside(&root.join("root")));
        command.arg(inside(&root.join("id_ed25519.pub"))).arg(inside(&out));
        if let Some(agent) = agent {
            command.arg(inside(agent)).arg(inside(&rootfs));
        }
        sys::run(&mut command)
    };
    let baked = || -> Result<Recipe> {
        Recipe::default()
            .bytes("root", root_key.as_bytes())
            .file("key", &root.join("id_ed25519.pub"))?
            .file("bake", &recipe.join("bake"))
    };

    let plain = artifact(&config.cache, "plain", &baked()?.key(), |out| bake(out.join("plain.qcow2"), None))?
        .join("plain.qcow2");
    let debian = match programs.agent() {
        Some(agent) => {
            let key = baked()?.file("agent", agent)?.tree(&rootfs)?.key();
            artifact(&config.cache, "debian", &key, |out| bake(out.join("debian.qcow2"), Some(agent)))?
                .join("debian.qcow2")
        }
        None => plain.clone(),
    };
    Ok(Images { debian, plain, key: root.join("id_ed25519") })
}

/// The lab's root, which is the tools' root too.
pub(crate) fn lab_root(config: &Config) -> Result<PathBuf> {
    let recipe = config.root.join("images/lab");
    let root = artifact(&config.cache, "lab-root", &root_key(&recipe)?, |out| {
        bootstrap(&recipe, &out.join("root"))
    })?;
    Ok(root.join("root"))
}

/// Makes the lab's disk if it is missing.
pub(crate) fn lab_disk(config: &Config, tools: &Tools) -> Result<LabDisk> {
    let recipe = config.root.join("images/lab");
    let key = Recipe::default()
        .bytes("root", root_key(&recipe)?.as_bytes())
        .file("key", &tools.root().join("etc/ssh/ssh_host_ed25519_key.pub"))?
        .file("bake", &recipe.join("bake"))?
        .key();
    let folder = artifact(&config.cache, "lab", &key, |out| {
        let mut command = tools.command(User::Root, "sh");
        command.arg(inside(&recipe.join("bake"))).arg(inside(tools.root())).arg(inside(out));
        sys::run(&mut command)?;
        // ssh refuses a key of somebody else's.
        let owner = format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid());
        sys::run(sys::as_root("chown").arg("-R").arg(owner).arg(out))
    })?;
    Ok(LabDisk { folder })
}

/// The key of a root: what mmdebstrap is given.
fn root_key(recipe: &Path) -> Result<String> {
    Ok(Recipe::default()
        .bytes("suite", SUITE.as_bytes())
        .bytes("bootstrap", BOOTSTRAP.as_bytes())
        .file("packages", &recipe.join("packages"))?
        .file("customize", &recipe.join("customize"))?
        .tree(&recipe.join("root"))?
        .key())
}

/// Debian's bootstrap of `$2` (suite `$3`, packages `$4`) by the recipe in `$1`. The recipe's files come in before its
/// packages, so that the first initrd is already made by the recipe's configuration, and again after them, so that no
/// package has the last word.
const BOOTSTRAP: &str = r#"set -eu
export RECIPE="$1"
copy='tar -C "$RECIPE/root" --owner=0 --group=0 --mode=u+rwX,go+rX,go-w -c . |
  tar -C "$1" -x --keep-directory-symlink --no-overwrite-dir'
exec mmdebstrap --quiet --mode=root --variant=minbase --format=directory --include="$4" \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --aptopt='Acquire::Languages "none"' \
  --essential-hook="$copy" --customize-hook="$copy" \
  --customize-hook='cp "$RECIPE/customize" "$1/customize"; chroot "$1" /customize; rm "$1/customize"' \
  "$3" "$2""#;

fn bootstrap(recipe: &Path, out: &Path) -> Result<()> {
    sys::need(
        &["/usr/bin/mmdebstrap", "/usr/share/keyrings/debian-archive-keyring.gpg"],
        &["mmdebstrap", "debian-archive-keyring"],
    )?;
    let list = recipe.join("packages");
    let text = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    sys::run(
        sys::as_root("sh")
            .args(["-c", BOOTSTRAP, "sh"])
            .arg(recipe)
            .arg(out)
            .arg(SUITE)
            .arg(recipe::packages(&text).join(",")),
    )
    .context("mmdebstrap failed: it needs a Debian mirror within reach and a few GB of free disk")
}
