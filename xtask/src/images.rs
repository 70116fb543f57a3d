//! Guest images and the lab's disk, from the recipes in `images/`.
//!
//! ```text
//! lab-root     mmdebstrap: a folder, also the tools' root
//!   lab        its disk, kernel, initrd and keys
//! GUEST-root   mmdebstrap: a folder
//!   GUEST      GUEST.qcow2: with the package of the agent
//!   plain      plain.qcow2: debian without
//! guest-key    the key pair of every guest's root
//! package      the agent as a Debian package
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::build::Programs;
use crate::cache::artifact;
use crate::config::Config;
use crate::recipe::Recipe;
use crate::roots::{self, Root};
use crate::tools::{Tools, User, inside};
use crate::{package, sys};

/// A guest: a recipe in `images/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Guest {
    /// Debian 13 with systemd-networkd: what everything but the cases about guests is done with
    Debian,
    /// Debian 12 with `NetworkManager`
    Debian12Nm,
    /// Debian 13 with ifupdown, dhcpcd and a display manager
    Debian13Ifupdown,
    /// Debian 13 with winbind, for a domain that it is not a member of yet
    Debian13Samba,
    /// Debian 13 with SSSD, the same
    Debian13Sssd,
}

impl Guest {
    /// Its name: of its folder in `images/`, of its image, of itself.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Debian12Nm => "debian12-nm",
            Self::Debian13Ifupdown => "debian13-ifupdown",
            Self::Debian13Samba => "debian13-samba",
            Self::Debian13Sssd => "debian13-sssd",
        }
    }

    /// Its root without the agent.
    pub(crate) fn root(self, config: &Config) -> Result<Root> {
        roots::guest(config, self.name())
    }
}

/// Files in the cache, each with the name it has in `$RAMET_IMAGES`.
#[derive(Debug)]
pub(crate) struct Images(Vec<(String, PathBuf)>);

impl Images {
    /// The file of that name.
    pub(crate) fn path(&self, wanted: &str) -> Result<&Path> {
        let found = self.named().find(|(name, _)| *name == wanted).map(|(_, path)| path);
        found.with_context(|| format!("there is no {wanted} among the images"))
    }

    /// Adds a file, which is in the cache, too.
    pub(crate) fn add(&mut self, name: String, path: PathBuf) {
        self.0.push((name, path));
    }

    /// Each file with its name.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.0.iter().map(|(name, path)| (name.as_str(), path.as_path()))
    }
}

impl fmt::Display for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (_, path)) in self.named().enumerate() {
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

/// Makes what is missing of the images of `guests`.
pub(crate) fn ensure(config: &Config, guests: &[Guest], programs: &Programs) -> Result<Images> {
    let package = package::ensure(config, programs)?;
    let tools = Tools::ensure(config)?;
    let key = key_pair(config)?;
    let roots = sys::side_by_side(guests, |guest| guest.root(config))?;

    let mut plan: Vec<(&str, &Root, Option<&Path>)> = Vec::new();
    for (guest, root) in guests.iter().zip(&roots) {
        plan.push((guest.name(), root, Some(&package)));
        if *guest == Guest::Debian {
            plan.push(("plain", root, None));
        }
    }
    let mut files = sys::side_by_side(&plan, |&(name, root, package)| {
        let file = format!("{name}.qcow2");
        let image = bake(config, &tools, name, root, &key.join("id_ed25519.pub"), package)?.join(&file);
        Ok((file, image))
    })?;
    files.push(("id_ed25519".into(), key.join("id_ed25519")));
    Ok(Images(files))
}

/// Makes the folder with `NAME.qcow2` out of a guest's root.
fn bake(
    config: &Config,
    tools: &Tools,
    name: &str,
    root: &Root,
    key: &Path,
    package: Option<&Path>,
) -> Result<PathBuf> {
    let script = config.root.join("images/guest/bake");
    let mut recipe =
        Recipe::default().bytes("root", root.key.as_bytes()).file("key", key)?.file("bake", &script)?;
    if let Some(package) = package {
        recipe = recipe.file("package", package)?;
    }
    artifact(&config.cache, name, &recipe.key(), |out| {
        let mut command = tools.command(User::Root, "sh");
        command.arg(inside(&script)).arg(inside(&root.path)).arg(inside(key));
        command.arg(inside(&out.join(format!("{name}.qcow2")))).args(package.map(inside));
        sys::run(&mut command)
    })
}

/// The folder with the key pair of every guest's root, which does not change.
fn key_pair(config: &Config) -> Result<PathBuf> {
    artifact(&config.cache, "guest-key", "1", |out| {
        sys::need(&["/usr/bin/ssh-keygen"], &["openssh-client"])?;
        sys::run(
            std::process::Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "ramet guest", "-f"])
                .arg(out.join("id_ed25519")),
        )
    })
}

/// Makes the lab's disk if it is missing.
pub(crate) fn lab_disk(config: &Config, tools: &Tools) -> Result<LabDisk> {
    let bake = config.root.join("images/lab/bake");
    let root = tools.root();
    let key = Recipe::default()
        .bytes("root", root.key.as_bytes())
        .file("key", &root.path.join("etc/ssh/ssh_host_ed25519_key.pub"))?
        .file("bake", &bake)?
        .key();
    let folder = artifact(&config.cache, "lab", &key, |out| {
        let mut command = tools.command(User::Root, "sh");
        command.arg(inside(&bake)).arg(inside(&root.path)).arg(inside(out));
        sys::run(&mut command)?;
        // ssh refuses a key of somebody else's.
        let owner = format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid());
        sys::run(sys::as_root("chown").arg("-R").arg(owner).arg(out))
    })?;
    Ok(LabDisk { folder })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guest_has_a_recipe_named_as_on_the_command_line() {
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images");
        for guest in Guest::value_variants() {
            let value = guest.to_possible_value().expect("a name on the command line");
            assert_eq!(value.get_name(), guest.name());
            let hostname = std::fs::read_to_string(images.join(guest.name()).join("root/etc/hostname"));
            assert_eq!(hostname.expect("a hostname").trim(), guest.name());
        }
    }
}
