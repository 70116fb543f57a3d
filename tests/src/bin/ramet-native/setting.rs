//! What `cargo xtask native` has made, and roots over it.

use crate::container::run;
use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::Deserialize;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// Key pairs of users.
const KEYS: [&str; 2] = ["own", "old"];

/// What there is, as `RAMET_NATIVE_SETTING` names it.
#[derive(Deserialize)]
pub(crate) struct Made {
    /// The agent.
    pub(crate) agent: PathBuf,
    /// Its package.
    package: PathBuf,
    /// Its tests, one of which is the agent in a container.
    pub(crate) tests: PathBuf,
    /// Recipes: where the doctor's words are pinned.
    pub(crate) images: PathBuf,
    /// The unpacked roots, by the names of their recipes.
    roots: BTreeMap<String, PathBuf>,
    /// Whether what the doctor says now is right.
    pub(crate) bless: bool,
}

/// The place that cases work in: in memory, and gone with this process's mount namespace.
pub(crate) struct Setting {
    pub(crate) made: Made,
    work: TempDir,
    bases: RefCell<BTreeMap<String, Base>>,
}

#[derive(Clone)]
struct Base {
    changes: PathBuf,
    below: PathBuf,
    whole: PathBuf,
}

impl Setting {
    pub(crate) fn make() -> Result<Self> {
        let file = std::env::var_os("RAMET_NATIVE_SETTING")
            .context("RAMET_NATIVE_SETTING is not set: this is run by `cargo xtask native`")?;
        let made = serde_json::from_slice(&fs::read(file)?)?;
        let work = tempfile::tempdir()?;
        let none = None::<&str>;
        // Network namespaces have their names there, containers something of theirs: not beside those of other stages.
        for place in [work.path(), Path::new("/run/netns"), Path::new("/run/systemd/nspawn")] {
            fs::create_dir_all(place)?;
            mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), none)
                .with_context(|| format!("cannot mount on {}", place.display()))?;
        }
        run(&["ip", "link", "set", "lo", "up"])?;
        for name in KEYS {
            let file = work.path().join(name);
            let file = file.to_str().context("a path that is no UTF-8")?;
            run(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file])?;
        }
        Ok(Self { made, work, bases: RefCell::default() })
    }

    pub(crate) fn roots(&self) -> impl Iterator<Item = &str> {
        self.made.roots.keys().map(String::as_str)
    }

    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.work.path().join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// The root of a recipe with the agent installed, to look at.
    pub(crate) fn with_agent(&self, name: &str) -> Result<PathBuf> {
        Ok(self.base(name)?.whole)
    }

    fn base(&self, name: &str) -> Result<Base> {
        if let Some(base) = self.bases.borrow().get(name) {
            return Ok(base.clone());
        }
        let below = self.made.roots.get(name).with_context(|| format!("there is no root {name}"))?.clone();
        ensure!(below.is_dir(), "{} is gone: another checkout's recipe has taken its place", below.display());
        let changes = self.folder(&format!("base-{name}/changes"))?;
        let whole = overlay(&[&below], &changes)?;
        // By the root's own dpkg: with --root, this machine's would look for the root's users here.
        let package = whole.join("tmp/agent.deb");
        fs::copy(&self.made.package, &package)?;
        let root = whole.to_str().context("a path that is no UTF-8")?;
        let install = ["--force-unsafe-io", "--force-confold", "--install", "/tmp/agent.deb"];
        run(&[&["chroot", root, "dpkg"], &install[..]].concat())?;
        fs::remove_file(package)?;
        let base = Base { changes, below, whole };
        self.bases.borrow_mut().insert(name.to_owned(), base.clone());
        Ok(base)
    }

    /// A copy of that root to be written to, and a folder beside it.
    pub(crate) fn copy(&self, name: &str, copy: &str) -> Result<Copy> {
        let base = self.base(name)?;
        let folder = self.folder(copy)?;
        let changes = folder.join("changes");
        fs::create_dir(&changes)?;
        let root = overlay(&[&base.changes, &base.below], &changes)?;
        let talk = folder.join("talk");
        fs::create_dir(&talk)?;
        for name in KEYS {
            for name in [name.to_owned(), format!("{name}.pub")] {
                // With its mode, without which ssh(1) would not have it.
                fs::copy(self.work.path().join(&name), talk.join(&name))?;
            }
        }
        Ok(Copy { root, folder, talk })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        for base in self.bases.borrow().values() {
            let _ = umount2(&base.whole, MntFlags::MNT_DETACH);
        }
        let _ = umount2(self.work.path(), MntFlags::MNT_DETACH);
    }
}

/// A copy of a root, gone with this.
pub(crate) struct Copy {
    pub(crate) root: PathBuf,
    folder: PathBuf,
    /// Seen by the agent in its container as /run/native. Has the key pairs `own`, which identities name, and `old`, which
    /// is in images.
    pub(crate) talk: PathBuf,
}

impl Copy {
    /// Adds a file; a folder that is missing, too.
    pub(crate) fn write(&self, path: &str, contents: impl AsRef<[u8]>) -> Result<()> {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().context("a file's path")?)?;
        // Never through a link: it would lead out of the copy.
        let _ = fs::remove_file(&path);
        fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Makes a file immutable (`ioctl_iflags(2)`, `FS_IMMUTABLE_FL`).
    pub(crate) fn fix(&self, path: &str) -> Result<()> {
        let path = self.root.join(path);
        // Its flags are then of the file system in memory, which would not take those of the one below.
        let contents = fs::read(&path)?;
        fs::write(&path, contents)?;
        run(&["chattr", "+i", path.to_str().context("a path that is no UTF-8")?])
    }

    /// Runs `script` by the root's own sh(1), chrooted.
    pub(crate) fn sh(&self, script: &str) -> Result<()> {
        let root = self.root.to_str().context("a path that is no UTF-8")?;
        run(&["chroot", root, "sh", "-ec", script])
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = umount2(&self.root, MntFlags::MNT_DETACH);
        // Files may be immutable.
        let _ = run(&["chattr", "-R", "-f", "-i", &self.folder.display().to_string()]);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Mounts `changes` over the folders `below`, the uppermost first, beside `changes`.
fn overlay(below: &[&PathBuf], changes: &Path) -> Result<PathBuf> {
    let beside = |name| changes.with_file_name(name);
    let (whole, work) = (beside("whole"), beside("work"));
    for folder in [&whole, &work] {
        fs::create_dir(folder)?;
    }
    let below: Vec<_> = below.iter().map(|folder| folder.display().to_string()).collect();
    let options =
        format!("lowerdir={},upperdir={},workdir={}", below.join(":"), changes.display(), work.display());
    mount(Some("overlay"), &whole, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .context("cannot mount an overlay")?;
    Ok(whole)
}
