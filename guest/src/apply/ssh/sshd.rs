//! Which sshd there are, and how each is started.

use super::config::{Settings, arguments};
use crate::{
    apply::ApplyError,
    root::{FileError, Root},
};
use std::collections::BTreeMap;

/// sshd as distributions have it and as it is built by hand, with the directory it was configured with (`SSHDIR`).
const PROGRAMS: &[(&str, &str)] =
    &[("usr/sbin/sshd", "etc/ssh"), ("usr/bin/sshd", "etc/ssh"), ("usr/local/sbin/sshd", "usr/local/etc")];

/// Where a distribution has the configuration that holds where there is none in /etc (openSUSE).
const VENDOR: &str = "usr/etc/ssh/sshd_config";

/// Where units are, what overrides comes first (systemd.unit(5)).
const UNITS: &[&str] =
    &["etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];

/// Files of variables that units of distributions name.
const VARIABLES: &[&str] =
    &["etc/default/ssh", "etc/default/sshd", "etc/sysconfig/sshd", "etc/sysconfig/ssh", "etc/conf.d/sshd"];

/// sshd with one configuration.
pub(in crate::apply) struct Sshd {
    pub(in crate::apply) settings: Settings,
    /// Where its host keys are if nothing else is said.
    pub(super) directory: String,
}

/// What a command line of sshd says.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Command {
    program: String,
    config: Option<String>,
    options: Vec<(String, Vec<Vec<u8>>)>,
}

/// Every sshd of `root`, each once.
pub(in crate::apply) fn installed(root: &Root) -> Result<Vec<Sshd>, ApplyError> {
    let mut commands = Vec::new();
    for (program, _) in PROGRAMS {
        if root.exists(program)? {
            commands.push(Command { program: (*program).to_owned(), ..Command::default() });
        }
    }
    if commands.is_empty() && !root.exists("opt")? {
        return Ok(Vec::new());
    }
    for line in command_lines(root)? {
        if let Some(command) = parse(&line)
            && root.exists(&command.program)?
        {
            commands.push(command);
        }
    }
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for command in commands {
        let directory = directory(root, &command)?;
        let config = match command.config {
            Some(config) => config,
            None => config_in(root, &directory)?,
        };
        let key = (config, command.options);
        if !seen.contains(&key) {
            let settings = Settings::read(root, &key.0, &directory, key.1.clone())?;
            found.push(Sshd { settings, directory });
            seen.push(key);
        }
    }
    Ok(found)
}

fn directory(root: &Root, command: &Command) -> Result<String, FileError> {
    let known = PROGRAMS.iter().find(|(program, _)| *program == command.program);
    Ok(match known {
        // One built by hand may have been told to look where the distribution's does.
        Some((_, local)) if *local != "etc/ssh" && !root.exists(&format!("{local}/sshd_config"))? => {
            "etc/ssh".to_owned()
        }
        Some((_, directory)) => (*directory).to_owned(),
        None => {
            let beside = command.program.rsplit_once("/sbin/").map(|(prefix, _)| format!("{prefix}/etc"));
            match beside {
                Some(beside) if root.exists(&format!("{beside}/sshd_config"))? => beside,
                Some(_) | None => "etc/ssh".to_owned(),
            }
        }
    })
}

fn config_in(root: &Root, directory: &str) -> Result<String, FileError> {
    let own = format!("{directory}/sshd_config");
    let vendor = directory == "etc/ssh" && !root.exists(&own)? && root.exists(VENDOR)?;
    Ok(if vendor { VENDOR.to_owned() } else { own })
}

/// Where units are, each directory once: where /usr is merged /lib is a link to it.
pub(super) fn unit_directories(root: &Root) -> Result<Vec<&'static str>, FileError> {
    let merged = root.link("lib")?.is_some();
    Ok(UNITS.iter().copied().filter(|directory| !(merged && directory.starts_with("lib/"))).collect())
}

/// The command lines of units that are named after SSH, variables filled in.
fn command_lines(root: &Root) -> Result<Vec<Vec<Vec<u8>>>, ApplyError> {
    let mut variables = BTreeMap::new();
    for path in VARIABLES {
        assign(root, path, &mut variables);
    }
    let mut units: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for directory in unit_directories(root)? {
        for name in root.names(directory)?.into_iter().filter(|name| name.contains("ssh")) {
            let path = format!("{directory}/{name}");
            if let Some(unit) = name.strip_suffix(".d") {
                let drop_ins = root.names(&path)?.into_iter().map(|file| format!("{path}/{file}"));
                units.entry(unit.to_owned()).or_default().extend(drop_ins);
            } else {
                let files = units.entry(name).or_default();
                if !files.iter().any(|file| !file.contains(".d/")) {
                    files.insert(0, path);
                }
            }
        }
    }
    let mut lines = Vec::new();
    for (_, files) in units.into_iter().filter(|(unit, _)| unit.ends_with(".service")) {
        let mut started: Vec<String> = Vec::new();
        for file in files {
            // A unit that cannot be read starts nothing.
            let text = root.read_lossy(&file).ok().flatten().unwrap_or_default().replace("\\\n", " ");
            for line in text.lines() {
                let Some((key, value)) = line.split_once('=') else { continue };
                match (key.trim(), value.trim()) {
                    ("ExecStart", "") => started.clear(),
                    ("ExecStart", value) => started.push(value.to_owned()),
                    ("EnvironmentFile", value) => {
                        let path = value.trim_start_matches('-').trim_start_matches('/');
                        if !path.is_empty() {
                            assign(root, path, &mut variables);
                        }
                    }
                    ("Environment", value) => {
                        for word in arguments(value.as_bytes()).unwrap_or_default() {
                            let word = String::from_utf8_lossy(&word).into_owned();
                            if let Some((name, value)) = word.split_once('=') {
                                variables.insert(name.to_owned(), value.to_owned());
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        lines.extend(started.iter().map(|line| fill(line, &variables)));
    }
    Ok(lines)
}

/// Reads a file of variables (systemd.exec(5), `EnvironmentFile=`). One that cannot be read sets none.
pub(super) fn assign(root: &Root, path: &str, variables: &mut BTreeMap<String, String>) {
    let text = root.read_lossy(path).ok().flatten().unwrap_or_default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some((name, value)) = line.trim_start_matches("export ").split_once('=') {
            let value = value.trim();
            let bare = ['"', '\''].iter().find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q));
            variables.insert(name.trim().to_owned(), bare.unwrap_or(value).to_owned());
        }
    }
}

/// The words of a command line: `$NAME` becomes words, `${NAME}` a part of one (systemd.service(5), "COMMAND LINES").
fn fill(line: &str, variables: &BTreeMap<String, String>) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    for word in arguments(line.as_bytes()).unwrap_or_default() {
        let text = String::from_utf8_lossy(&word).into_owned();
        match text.strip_prefix('$') {
            Some(name) if !name.starts_with('{') => {
                let value = variables.get(name).map_or("", String::as_str);
                words.extend(arguments(value.as_bytes()).unwrap_or_default());
            }
            Some(_) | None => {
                let filled = variables
                    .iter()
                    .fold(text, |text, (name, value)| text.replace(&format!("${{{name}}}"), value));
                words.push(filled.into_bytes());
            }
        }
    }
    words
}

/// What a command line of sshd(8) says; `None` for that of another program.
fn parse(words: &[Vec<u8>]) -> Option<Command> {
    let mut words = words.iter().map(|word| String::from_utf8_lossy(word).into_owned());
    let program = words.next()?;
    let program =
        program.trim_start_matches(['@', '-', '+', '!', ':', '|']).trim_start_matches('/').to_owned();
    if program.rsplit('/').next() != Some("sshd") {
        return None;
    }
    let mut command = Command { program, ..Command::default() };
    while let Some(word) = words.next() {
        let Some(letters) = word.strip_prefix('-') else { continue };
        for (n, letter) in letters.char_indices() {
            if !"CEVbcfghkopu".contains(letter) {
                continue;
            }
            let glued = &letters[n + letter.len_utf8()..];
            let value = if glued.is_empty() { words.next()? } else { glued.to_owned() };
            match letter {
                'f' => command.config = Some(value.trim_start_matches('/').to_owned()),
                'h' => command.options.push(("hostkey".into(), vec![value.into_bytes()])),
                'c' => command.options.push(("hostcertificate".into(), vec![value.into_bytes()])),
                'o' => {
                    let (key, value) = value.split_once(['=', ' ']).unwrap_or((&value, ""));
                    let values = arguments(value.as_bytes()).unwrap_or_default();
                    command.options.push((key.trim().to_ascii_lowercase(), values));
                }
                _ => {}
            }
            break;
        }
    }
    Some(command)
}
