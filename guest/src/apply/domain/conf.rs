//! Configuration that is only looked at: which files it leads to. What cannot be followed is collected, and told when a
//! template is made; it does not end a child.

use super::ini::{self, Setting};
use crate::{error::chain, root::Root};

/// The most files that are read of one program's configuration: some include themselves.
const MAX_FILES: usize = 100;

/// smb.conf(5).
pub(super) const SMB: &str = "etc/samba/smb.conf";

/// krb5.conf(5): the system's, and a vendor's where the system has none.
const KRB5: [&str; 2] = ["etc/krb5.conf", "usr/etc/krb5.conf"];

/// sssd.conf(5), and the directory of its snippets.
pub(super) const SSSD: (&str, &str) = ("etc/sssd/sssd.conf", "etc/sssd/conf.d");

/// What configuration says, and what of it cannot be followed.
#[derive(Debug, Default)]
pub(super) struct Conf {
    pub(super) settings: Vec<Setting>,
    /// File and line, in words.
    pub(super) unclear: Vec<String>,
    /// How many files were read.
    files: usize,
}

impl Conf {
    /// Samba's, with all that it includes.
    pub(super) fn samba(root: &Root) -> Self {
        let mut conf = Self::default();
        conf.smb(root, SMB, "global");
        conf.settings.retain(|one| matches!(one.section.as_str(), "global" | "globals"));
        conf
    }

    /// Kerberos', of `[libdefaults]` alone.
    pub(super) fn kerberos(root: &Root) -> Self {
        let mut conf = Self::default();
        for path in KRB5 {
            conf.krb5(root, path);
        }
        conf
    }

    /// SSSD's.
    pub(super) fn sssd(root: &Root) -> Self {
        let mut conf = Self::default();
        let (main, directory) = SSSD;
        let snippets = conf.names(root, directory);
        let snippets = snippets
            .into_iter()
            .filter(|name| has_end(name, "conf") && !name.starts_with('.'))
            .map(|name| format!("{directory}/{name}"));
        for path in std::iter::once(main.to_owned()).chain(snippets) {
            let bytes = conf.read(root, &path);
            conf.settings.extend(ini::settings(&bytes, ""));
        }
        conf
    }

    /// The values of `name`, in their order.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.settings.iter().filter(move |one| one.name == name).map(|one| &*one.value)
    }

    /// The value of `name` that stands last.
    pub(super) fn last<'a>(&'a self, name: &'a str) -> Option<&'a [u8]> {
        self.all(name).last()
    }

    fn read(&mut self, root: &Root, path: &str) -> Vec<u8> {
        self.files += 1;
        root.read(path)
            .unwrap_or_else(|error| {
                self.unclear.push(chain(&error));
                None
            })
            .unwrap_or_default()
    }

    fn names(&mut self, root: &Root, path: &str) -> Vec<String> {
        root.names(path).unwrap_or_else(|error| {
            self.unclear.push(chain(&error));
            Vec::new()
        })
    }

    fn unclear(&mut self, path: &str, what: &str, value: &[u8]) {
        let what = format!("/{path}: {what} {}", String::from_utf8_lossy(value));
        if !self.unclear.contains(&what) {
            self.unclear.push(what);
        }
    }

    fn smb(&mut self, root: &Root, path: &str, section: &str) {
        let bytes = self.read(root, path);
        for one in ini::settings(&bytes, section) {
            let is_global = matches!(one.section.as_str(), "global" | "globals");
            let leads = match one.name.as_str() {
                // What is included where a share is may begin a section, `[global]` among them.
                "include" => true,
                "configfile" => is_global,
                "configbackend" if is_global && !one.value.eq_ignore_ascii_case(b"file") => {
                    self.unclear(path, "config backend =", &one.value);
                    false
                }
                _ => false,
            };
            if leads && !one.value.is_empty() {
                match inside(&one.value) {
                    Some(file) if self.files < MAX_FILES => self.smb(root, &file, &one.section),
                    Some(_) | None => self.unclear(path, &format!("{} =", one.name), &one.value),
                }
            }
            self.settings.push(one);
        }
    }

    /// MIT krb5, `prof_parse.c`: what includes stands at the beginning of a line; a value may have braces around more
    /// settings, which are none of those looked for.
    fn krb5(&mut self, root: &Root, path: &str) {
        let bytes = self.read(root, path);
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let (mut section, mut braces) = (Vec::new(), 0_usize);
        for line in bytes.split(|byte| *byte == b'\n') {
            if let Some((word, value)) = directive(line) {
                match (inside(value), word) {
                    (Some(file), "include") if self.files < MAX_FILES => self.krb5(root, &file),
                    (Some(directory), "includedir") if self.files < MAX_FILES => {
                        for name in self.names(root, &directory).iter().filter(|name| is_included(name)) {
                            let file = format!("{directory}/{name}");
                            if !root.is_dir(&file).unwrap_or(false) {
                                self.krb5(root, &file);
                            }
                        }
                    }
                    _ => self.unclear(path, word, value),
                }
                continue;
            }
            let line = line.trim_ascii();
            match line.first() {
                None | Some(b'#' | b';') => {}
                Some(b'[') if braces == 0 => {
                    let end = line.iter().position(|byte| *byte == b']').unwrap_or(line.len());
                    section = line[1..end].trim_ascii().to_ascii_lowercase();
                }
                Some(b'}') => braces = braces.saturating_sub(1),
                Some(_) => {
                    let Some(at) = line.iter().position(|byte| *byte == b'=') else { continue };
                    let value = line[at + 1..].trim_ascii();
                    if value == b"{" {
                        braces += 1;
                    } else if braces == 0 && section == b"libdefaults" {
                        // A star marks a final value.
                        let name = line[..at].trim_ascii();
                        let name = name.strip_suffix(b"*").unwrap_or(name).trim_ascii_end();
                        let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
                        self.settings.push(Setting {
                            section: "libdefaults".into(),
                            name: String::from_utf8_lossy(name).into_owned(),
                            value: quoted.unwrap_or(value).to_vec(),
                        });
                    }
                }
            }
        }
    }
}

/// A line of krb5.conf(5) that names a file, a directory or a module with more of it.
fn directive(line: &[u8]) -> Option<(&'static str, &[u8])> {
    ["includedir", "include", "module"].into_iter().find_map(|word| {
        let rest = line.strip_prefix(word.as_bytes())?;
        let value = rest.trim_ascii();
        (rest.first()?.is_ascii_whitespace() && !value.is_empty() && !value.starts_with(b"="))
            .then_some((word, value))
    })
}

/// Whether `includedir` takes a file of this name (krb5.conf(5), "STRUCTURE").
fn is_included(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        || has_end(name, "conf") && !name.starts_with('.')
}

fn has_end(name: &str, end: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, found)| found == end)
}

/// The path below the root that `value` names; `None` where it is not an absolute path, or only known at another time
/// (`%m` of Samba, `%{hostname}` of Kerberos).
pub(super) fn inside(value: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(value).ok()?.trim();
    let plain = path.starts_with('/') && !path.contains(['%', '\0']);
    let path = path.trim_matches('/');
    (plain && !path.is_empty()).then(|| path.to_owned())
}

#[cfg(test)]
mod tests;
