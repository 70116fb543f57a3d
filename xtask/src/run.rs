//! `lab run`: one command where real VMs can run.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::build::{self, Programs};
use crate::config::Config;
use crate::images::{self, Guest, Images};
use crate::lab::{self, Lab};
use crate::place::{self, Place};
use crate::roots;
use crate::sys;

/// Somewhere that commands find the built programs, guest images, KVM and vhost-vsock.
#[derive(Debug)]
pub(crate) enum Site {
    /// This machine.
    Host {
        /// Prepended to PATH.
        programs: PathBuf,
        /// `$RAMET_IMAGES`.
        images: PathBuf,
        /// `$RAMET_LAB_ROOT`: the lab's root, for what the lab has and this machine may not.
        root: PathBuf,
    },
    /// The lab.
    Lab {
        /// Up and answering.
        lab: Lab,
        /// Published under this name.
        programs: String,
        /// Names in `$RAMET_IMAGES` and paths below the cache.
        files: Vec<(String, PathBuf)>,
    },
}

impl Site {
    /// Decides where, and has everything there.
    pub(crate) fn prepare(
        config: &Config,
        place: Option<Place>,
        programs: &Programs,
        images: &Images,
    ) -> Result<Self> {
        let place = place.map_or_else(|| place::find(config, programs), Ok)?;
        match place {
            Place::Host => {
                let shelf = config.target.join("programs");
                let programs = shelf.join(programs.publish(&shelf)?);
                let (images, root) = (host_images(config, images)?, roots::lab(config)?.path);
                Ok(Self::Host { programs, images, root })
            }
            Place::Lab => {
                let lab = lab::ensure_up(config)?;
                let programs = programs.publish(&config.lab.join("programs"))?;
                let files = images.named().map(|(name, path)| {
                    (name.to_owned(), path.strip_prefix(&config.cache).unwrap_or(path).to_path_buf())
                });
                Ok(Self::Lab { lab, programs, files: files.collect() })
            }
        }
    }

    /// A command as root at this site. Its streams and exit status are its own; with a terminal on all three
    /// streams it has one at the site too.
    pub(crate) fn command(&self, command: &[OsString]) -> Result<Command> {
        match self {
            Self::Host { programs, images, root } => {
                let mut path = OsString::from(programs);
                path.push(":");
                path.push(env::var_os("PATH").unwrap_or_default());
                let mut run = sys::as_root("env");
                run.arg(assignment("PATH", &path)).arg(assignment("RAMET_IMAGES", images.as_os_str()));
                run.arg(assignment("RAMET_LAB_ROOT", root.as_os_str()));
                run.args(variables()).args(command);
                Ok(run)
            }
            Self::Lab { lab, programs, files } => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
                let variables = passed_on(env::vars_os());
                let arguments = lab::run_arguments(now, programs, files, &variables, command);
                let terminal = stdin().is_terminal() && stdout().is_terminal() && stderr().is_terminal();
                Ok(if terminal { lab.interactive(&arguments) } else { lab.command(&arguments) })
            }
        }
    }
}

/// Where it goes what a command prints.
pub(crate) enum Output<'a> {
    /// Where what xtask prints goes.
    Inherited,
    /// Its standard output to a file.
    To(File),
    /// All of it to standard error, in whole lines, each after this: for commands beside each other.
    Lines(&'a str),
}

/// Builds the programs, `of_tests` among them, and beside it makes the roots that the images of `guests` will need. Where
/// it is clear before anything is built that commands will run in the lab, that boots beside it, too.
pub(crate) fn programs(
    config: &Config,
    place: Option<Place>,
    guests: &[Guest],
    of_tests: &[&str],
) -> Result<Programs> {
    let in_lab = place.map_or_else(place::has_no_virtualization, |place| Ok(place == Place::Lab))?;
    thread::scope(|scope| {
        let roots = scope.spawn(|| {
            roots::need_tools()?;
            thread::scope(|scope| {
                let lab = scope.spawn(|| {
                    roots::lab(config)?;
                    if in_lab { lab::ensure_up(config).map(drop) } else { Ok(()) }
                });
                let guests = sys::side_by_side(guests, |guest| guest.root(config));
                sys::join(lab).and(guests)
            })
        });
        let programs = build::programs(config, of_tests);
        let roots = sys::join(roots);
        let programs = programs?;
        roots.map(|_| programs)
    })
}

/// Runs the command beside the images of `guests`, returns its status.
pub(crate) fn run(
    config: &Config,
    place: Option<Place>,
    guests: &[Guest],
    programs: &Programs,
    command: &[OsString],
    output: Output<'_>,
) -> Result<ExitCode> {
    let images = images::ensure(config, guests, programs)?;
    let site = Site::prepare(config, place, programs, &images)?;
    let mut command = site.command(command)?;
    let status = match output {
        Output::Inherited => command.status(),
        Output::To(file) => command.stdout(file).status(),
        Output::Lines(label) => sys::status_with_lines(&mut command, label),
    };
    Ok(sys::exit_code(status.context("cannot start the command")?))
}

/// What a command under sudo would otherwise miss, as arguments of env(1).
pub(crate) fn variables() -> impl Iterator<Item = OsString> {
    passed_on(env::vars_os()).into_iter().map(|(name, value)| assignment(name, &value))
}

/// Variables that a command in the lab or under sudo would otherwise miss.
fn passed_on(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let wanted = |name: &str| {
        let ours = name.starts_with("RAMET_")
            && !["RAMET_IMAGES", "RAMET_LAB_ROOT", "RAMET_CACHE_DIR", "RAMET_PLACE"].contains(&name);
        ours || ["RUST_LOG", "RUST_BACKTRACE", "NO_COLOR", "TERM"].contains(&name)
    };
    variables.filter(|(name, _)| name.to_str().is_some_and(wanted)).collect()
}

fn assignment(name: impl AsRef<OsStr>, value: &OsStr) -> OsString {
    let mut assignment = name.as_ref().to_os_string();
    assignment.push("=");
    assignment.push(value);
    assignment
}

/// The folder for `$RAMET_IMAGES` on this machine.
fn host_images(config: &Config, images: &Images) -> Result<PathBuf> {
    let folder = config.target.join("images");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for (name, path) in images.named() {
        replace(&folder, name, path)?;
    }
    Ok(folder)
}

/// Puts a file under `name`, at once and whole: images by a link, the key as a copy that is root's, as ssh demands.
fn replace(folder: &Path, name: &str, path: &Path) -> Result<()> {
    let new = folder.join(format!(".{name}.{}", std::process::id()));
    if path.extension().is_some_and(|extension| extension == "qcow2" || extension == "raw") {
        symlink(path, &new)?;
    } else {
        sys::run(
            sys::as_root("install").args(["-m", "0600", "-o", "root", "-g", "root"]).arg(path).arg(&new),
        )?;
        debug_assert_eq!(new.metadata()?.permissions().mode() & 0o077, 0);
    }
    fs::rename(&new, folder.join(name))
        .with_context(|| format!("cannot replace {name} in {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_command_may_want_is_passed_on() {
        let all = ["RAMET_STATE_DIR", "RAMET_IMAGES", "RUST_LOG", "HOME", "LD_PRELOAD", "RAMET_CACHE_DIR"];
        let passed = passed_on(all.iter().map(|name| (OsString::from(name), OsString::from("x"))));
        let names: Vec<_> = passed.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["RAMET_STATE_DIR", "RUST_LOG"]);
    }
}
