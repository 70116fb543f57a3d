//! Images made with other people's tools as docs/images.md tells, and forked. What is run is read out of the document, in a
//! container of a Debian root that has the tools: this machine may have others, older ones or none.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::cache::artifact;
use crate::config::Config;
use crate::images::{self, Guest};
use crate::place::Place;
use crate::recipe::Recipe;
use crate::roots::{self, Root};
use crate::run::{self, Site};
use crate::sys::{self, Step};
use crate::{jobs, package};

const DOCUMENT: &str = "docs/images.md";

/// Where a guest's network is set up.
const NETWORK: &str = "etc/systemd/network/80-dhcp.network";

/// A tool that makes images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    VirtCustomize,
    Mkosi,
}

const TOOLS: [Tool; 2] = [Tool::VirtCustomize, Tool::Mkosi];

impl Tool {
    /// Its heading in the document.
    fn name(self) -> &'static str {
        match self {
            Self::VirtCustomize => "virt-customize",
            Self::Mkosi => "mkosi",
        }
    }

    /// What it makes, by the document.
    fn made(self) -> &'static str {
        match self {
            Self::VirtCustomize => "image.qcow2",
            Self::Mkosi => "image.raw",
        }
    }

    /// The image's name in `$RAMET_IMAGES`.
    fn file(self) -> String {
        let kind = self.made().trim_start_matches("image");
        format!("{}{kind}", self.name())
    }
}

/// What images are made of.
struct Parts<'a> {
    document: &'a str,
    /// An image without the agent.
    plain: &'a Path,
    /// For an image that begins with nothing: root's public key, and what gives it an address.
    key: &'a Path,
    network: &'a Path,
    package: &'a Path,
}

/// Makes an image with each tool whose name contains `word`, or with all, and forks it where real VMs can run.
pub(crate) fn run(config: &Config, place: Option<Place>, word: Option<&str>) -> Result<ExitCode> {
    let wanted: Vec<Tool> =
        TOOLS.into_iter().filter(|tool| word.is_none_or(|word| tool.name().contains(word))).collect();
    ensure!(!wanted.is_empty(), "no tool's name has that word: {}", TOOLS.map(Tool::name).join(", "));
    let document =
        fs::read_to_string(config.root.join(DOCUMENT)).with_context(|| format!("cannot read {DOCUMENT}"))?;
    jobs::leaving_the_lab(config, || {
        let programs = run::programs(config, place, &[Guest::Debian], &[])?;
        let mut images = images::ensure(config, &[Guest::Debian], &programs)?;
        let package = package::ensure(config, &programs)?;
        let key = images.path("id_ed25519")?.with_extension("pub");
        let plain = images.path("plain.qcow2")?.to_path_buf();
        let network = config.root.join("images/debian/root").join(NETWORK);
        let parts =
            Parts { document: &document, plain: &plain, key: &key, network: &network, package: &package };
        let root = roots::makers(config)?;
        for tool in &wanted {
            images.add(tool.file(), image(config, &root, *tool, &parts)?);
        }
        let site = Site::prepare(config, place, &programs, &images)?;
        for tool in wanted {
            let name = tool.name();
            let step = Step::begin(format!("forking the image made with {name}"));
            let file = tool.file();
            let status = site
                .command(&["sh", "-c", FORK, "sh", name, &file].map(OsString::from))?
                .status()
                .context("cannot start the command")?;
            ensure!(status.success(), "the image made with {name} does not fork: {status}");
            step.done();
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Forks the image `$2` into children of the template `$1`, asks them, and leaves nothing.
const FORK: &str = r#"set -eu
name=soak-$1 image=$RAMET_IMAGES/$2
clean() {
  for child in "$name-1" "$name-2"; do ramet stop "$child" && ramet rm "$child" || :; done
  ramet template rm "$name" || :
} > /dev/null 2>&1
trap clean EXIT
clean
ramet template create "$name" --disk "$image"
ramet fork "$name" --count 2 --name-prefix "$name" --wait ready
ramet verify "$name-1" "$name-2"
ids=
for child in "$name-1" "$name-2"; do
  said=$(ramet ssh "$child" -i "$RAMET_IMAGES/id_ed25519" -- '
    cat /proc/sys/kernel/hostname /etc/hostname
    systemctl is-system-running --wait
    for second in $(seq 60); do [ -z "$(hostname -I)" ] || break; sleep 1; done
    [ -n "$(hostname -I)" ] && echo online
    cat /etc/machine-id')
  echo "$said"
  id=${said##*
}
  [ "$said" = "$child
$child
running
online
$id" ]
  [ "${#id}" = 32 ] && [ "$id" != "$ids" ]
  ids=$id
done
"#;

/// The image that a tool makes, in the cache.
fn image(config: &Config, root: &Root, tool: Tool, parts: &Parts<'_>) -> Result<PathBuf> {
    let words = block(parts.document, tool.name())?;
    let key = Recipe::default()
        .bytes("root", root.key.as_bytes())
        .bytes("container", CONTAINER.as_bytes())
        .bytes("words", words.as_bytes())
        .bytes("sources", SOURCES.as_bytes())
        .file("key", parts.key)?
        .file("network", parts.network)?
        .file("package", parts.package)?
        .file("plain", parts.plain)?
        .key();
    let file = tool.file();
    let folder = artifact(&config.cache, &format!("by-{}", tool.name()), &key, |out| {
        sys::need(&["/usr/bin/systemd-nspawn"], &["systemd-container"])?;
        let work = out.join("work");
        let command = furnish(&work, tool, words, parts)?;
        sys::run(sys::as_root("sh").args(["-c", CONTAINER, "sh"]).args([&root.path, &work]).arg(command))
            .with_context(|| format!("what {DOCUMENT} says of {} does not make an image", tool.name()))?;
        fs::rename(work.join(tool.made()), out.join(&file)).context("it made no image")?;
        sys::run(sys::as_root("rm").args(["-rf", "--one-file-system", "--"]).arg(&work))
    })?;
    Ok(folder.join(file))
}

/// Runs `$3` in a container of the root `$1`, in which nothing is kept but the folder `$2`. The tools' own temporary files
/// are larger than memory may be. libguestfs would ask for KVM, which a container does not have.
const CONTAINER: &str = r#"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet --register=no --keep-unit --as-pid2 \
  --console=pipe --directory="$1" --volatile=overlay --machine=ramet-makers --resolv-conf=copy-host --timezone=off \
  --link-journal=no --setenv=LIBGUESTFS_BACKEND_SETTINGS=force_tcg --bind="$2:/made" --bind="$2/tmp:/var/tmp" \
  --chdir=/made sh -c "$3" > "$2/log" 2>&1 || { tail -n 100 "$2/log" >&2; exit 1; }"#;

/// Where mkosi gets its packages. It would ask Debian's repository of debug symbols, too, which mirrors seldom have.
const SOURCES: &str = "Types: deb
URIs: http://deb.debian.org/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
";

/// Puts what the tool finds into the folder that it runs in, and returns what is run there.
fn furnish(work: &Path, tool: Tool, words: &str, parts: &Parts<'_>) -> Result<String> {
    let folder = |name: &str| -> Result<PathBuf> {
        let path = work.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(path)
    };
    let copy = |from: &Path, to: PathBuf| {
        fs::copy(from, &to).map(drop).with_context(|| format!("cannot copy {}", from.display()))
    };
    let package = parts.package.file_name().context("the package has no name")?;
    folder("tmp")?;
    match tool {
        Tool::VirtCustomize => {
            copy(parts.plain, work.join(tool.made()))?;
            copy(parts.package, folder("target")?.join(package))?;
            Ok(words.to_owned())
        }
        Tool::Mkosi => {
            fs::write(work.join("mkosi.conf"), words)?;
            copy(parts.package, folder("mkosi.packages")?.join(package))?;
            copy(parts.key, folder("mkosi.extra/root/.ssh")?.join("authorized_keys"))?;
            folder("mkosi.extra/etc/systemd/network")?;
            copy(parts.network, work.join("mkosi.extra").join(NETWORK))?;
            fs::write(folder("mkosi.sandbox/etc/apt/sources.list.d")?.join("mkosi.sources"), SOURCES)?;
            Ok("mkosi build".to_owned())
        }
    }
}

/// The first block of code below a heading of the document.
fn block<'a>(document: &'a str, heading: &str) -> Result<&'a str> {
    let part = document.split("\n### ").find(|part| part.lines().next() == Some(heading));
    let words = part.and_then(|part| part.split("```\n").nth(1));
    words.with_context(|| format!("{DOCUMENT} has no block of code below {heading:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = include_str!("../../docs/images.md");

    #[test]
    fn the_document_has_what_is_run() {
        let virt_customize = block(TEXT, Tool::VirtCustomize.name()).expect("a command");
        assert!(virt_customize.starts_with("virt-customize -a image.qcow2 "), "{virt_customize}");
        assert!(virt_customize.contains(":/tmp/ramet-agent.deb"), "{virt_customize}");
        let mkosi = block(TEXT, Tool::Mkosi.name()).expect("mkosi.conf");
        assert!(mkosi.starts_with("[Distribution]\n"), "{mkosi}");
        assert!(block(TEXT, "another").is_err());
    }

    #[test]
    fn a_tool_finds_its_package_where_the_document_says() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("ramet-agent_1_amd64.deb");
        fs::write(&file, "x").expect("a file");
        let parts = Parts { document: TEXT, plain: &file, key: &file, network: &file, package: &file };
        for (tool, place) in [(Tool::VirtCustomize, "target"), (Tool::Mkosi, "mkosi.packages")] {
            let work = dir.path().join(tool.name());
            fs::create_dir(&work).expect("a folder");
            let words = block(TEXT, tool.name()).expect("words");
            furnish(&work, tool, words, &parts).expect("a command");
            assert!(work.join(place).join("ramet-agent_1_amd64.deb").exists(), "{place}");
        }
    }
}
