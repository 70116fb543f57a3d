//! Roots of the lab and of the guests: Debian's packages and a recipe's files, put together by mmdebstrap.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::cache::artifact;
use crate::config::Config;
use crate::recipe::{self, Recipe};
use crate::sys;

/// A root in the cache.
#[derive(Debug)]
pub(crate) struct Root {
    /// Its folder.
    pub(crate) path: PathBuf,
    /// The hash of what it is made of.
    pub(crate) key: String,
}

/// The lab's root, which is the tools' root too.
pub(crate) fn lab(config: &Config) -> Result<Root> {
    root(config, "lab", &config.root.join("images/lab"))
}

/// The root with the tools that others make their images with.
pub(crate) fn makers(config: &Config) -> Result<Root> {
    root(config, "makers", &config.root.join("images/makers"))
}

/// The root of a guest without the agent.
pub(crate) fn guest(config: &Config, name: &str) -> Result<Root> {
    let recipe = guest_recipe(config, name)?;
    root(config, name, recipe.path())
}

/// Has the tools that make roots. Apart, since apt works for one caller at a time.
pub(crate) fn need_tools() -> Result<()> {
    sys::need(
        &["/usr/bin/mmdebstrap", "/usr/share/keyrings/debian-archive-keyring.gpg"],
        &["mmdebstrap", "debian-archive-keyring"],
    )
}

/// What all guests have in common and what is this one's own, as one recipe.
fn guest_recipe(config: &Config, name: &str) -> Result<TempDir> {
    let (common, own) = (config.root.join("images/guest"), config.root.join("images").join(name));
    let whole = tempfile::tempdir().context("cannot create a temporary folder")?;
    let read =
        |path: PathBuf| fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()));
    for (file, parts) in [
        ("suite", [None, Some(&own)]),
        ("packages", [Some(&common), Some(&own)]),
        ("customize", [Some(&own), Some(&common)]),
    ] {
        let parts = parts.into_iter().flatten().map(|part| read(part.join(file)));
        fs::write(whole.path().join(file), parts.collect::<Result<String>>()?)?;
    }
    sys::run(std::process::Command::new("chmod").arg("+x").arg(whole.path().join("customize")))?;
    if own.join(MIRROR).exists() {
        fs::copy(own.join(MIRROR), whole.path().join(MIRROR))?;
    }
    let roots = [&common, &own].map(|part| part.join("root"));
    sys::run(std::process::Command::new("cp").args(["-a", "--"]).args(roots).arg(whole.path()))?;
    Ok(whole)
}

/// A recipe's own source of packages, a line of `sources.list(5)`; mostly there is none, and mmdebstrap finds Debian's.
const MIRROR: &str = "mirror";

fn mirror(recipe: &Path) -> Result<Option<String>> {
    let path = recipe.join(MIRROR);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().find(|line| !line.starts_with('#')).map(str::to_owned))
}

fn root(config: &Config, name: &str, recipe: &Path) -> Result<Root> {
    let suite = recipe.join("suite");
    let suite = fs::read_to_string(&suite).with_context(|| format!("cannot read {}", suite.display()))?;
    let suite = suite.trim();
    let mut key = Recipe::default()
        .bytes("suite", suite.as_bytes())
        .bytes("bootstrap", BOOTSTRAP.as_bytes())
        .file("packages", &recipe.join("packages"))?
        .file("customize", &recipe.join("customize"))?
        .tree(&recipe.join("root"))?;
    if let Some(mirror) = mirror(recipe)? {
        key = key.bytes(MIRROR, mirror.as_bytes());
    }
    let key = key.key();
    let folder = artifact(&config.cache, &format!("{name}-root"), &key, |out| {
        bootstrap(recipe, suite, &out.join("root"))
    })?;
    Ok(Root { path: folder.join("root"), key })
}

/// Debian's bootstrap of `$2` (suite `$3`, packages `$4`) by the recipe in `$1`; what is said after it is where from. The recipe's files come in before its
/// packages, so that these are already configured by them, and again after them, so that no package has the last word. The
/// initrd is made once and last: `INITRD=No` keeps the kernel's package from making one, and linux-update-symlinks(1) from
/// linking to it. Documents and translations are kept out by dpkg(1) itself: told of `path-exclude`, mmdebstrap filters the
/// first packages with a program of Python for each, which takes several times as long as unpacking them.
const BOOTSTRAP: &str = r#"set -eu
export RECIPE="$1" INITRD=No
copy='tar -C "$RECIPE/root" --owner=0 --group=0 --mode=u+rwX,go+rX,go-w -c . |
  tar -C "$1" -x --keep-directory-symlink --no-overwrite-dir'
slim='cat > "$1/etc/dpkg/dpkg.cfg.d/slim" <<END
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
END
rm -rf "$1"/usr/share/man/* "$1"/usr/share/locale/*
find "$1/usr/share/doc" -type f ! -name copyright -delete'
exec mmdebstrap --quiet --mode=root --variant=minbase --format=directory --include="$4" \
  --aptopt='Acquire::Languages "none"' \
  --extract-hook="$slim" --essential-hook="$copy" --customize-hook="$copy" \
  --customize-hook='cp "$RECIPE/customize" "$1/customize" && chroot "$1" /customize && rm "$1/customize"' \
  --customize-hook='set -e; unset INITRD; kernel=$(ls "$1/lib/modules")
    chroot "$1" update-initramfs -c -k "$kernel"
    chroot "$1" linux-update-symlinks install "$kernel" "/boot/vmlinuz-$kernel"' \
  "$3" "$2""#;

fn bootstrap(recipe: &Path, suite: &str, out: &Path) -> Result<()> {
    need_tools()?;
    let list = recipe.join("packages");
    let text = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let mirror = mirror(recipe)?;
    let script = if mirror.is_some() { format!("{BOOTSTRAP} \"$5\"") } else { BOOTSTRAP.to_owned() };
    sys::run(
        sys::as_root("sh")
            .args(["-c", &script, "sh"])
            .arg(recipe)
            .arg(out)
            .arg(suite)
            .arg(recipe::packages(&text).join(","))
            .args(mirror),
    )
    .context("mmdebstrap failed: it needs a Debian mirror within reach and a few GB of free disk")
}
