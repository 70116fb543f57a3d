//! Unit files, as far as the gate has to understand them (systemd.unit(5), systemd.syntax(7)).

use crate::ini::Setting;
use serde::Deserialize;
use std::fmt::{self, Write};

/// The name of a service or a socket, or of a template of either.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct UnitName(String);

impl UnitName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for UnitName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let stem = name.strip_suffix(".service").or_else(|| name.strip_suffix(".socket"));
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@');
        match stem {
            // As systemd has it: 255 characters at most, something before an @.
            Some(stem)
                if name.len() < 256
                    && !stem.is_empty()
                    && !stem.starts_with('@')
                    && stem.chars().all(valid) =>
            {
                Ok(Self(name))
            }
            Some(_) | None => Err(format!("{name:?} is no name of a service or socket, such as x.service")),
        }
    }
}

/// Whether a socket setting makes somebody outside this machine able to connect (systemd.socket(5)): a port, an
/// internet address or a vsock one, rather than a path or an abstract name. What is not understood counts as one.
pub(super) fn is_network(setting: &Setting) -> bool {
    let listens =
        matches!(setting.key.as_str(), "ListenStream" | "ListenDatagram" | "ListenSequentialPacket");
    // The specifiers that stand for a directory (systemd.unit(5)).
    let directories = ["%t", "%S", "%C", "%L", "%E", "%T", "%V", "%h", "%Y", "%y"];
    let local = setting.value.starts_with(['/', '@'])
        || setting.value.is_empty()
        || directories.iter().any(|directory| setting.value.starts_with(directory));
    setting.section == "Socket" && listens && !local
}

/// What a value says of the machine by specifiers that PID 1 expands as it loads the unit (systemd.unit(5), SPECIFIERS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Specifiers {
    /// `%H`, `%l`, `%q`: a name of this host.
    pub(super) host: bool,
    /// `%m`.
    pub(super) machine_id: bool,
    /// `%b`.
    pub(super) boot_id: bool,
}

impl Specifiers {
    /// Those in a setting. What is in `[Install]` is expanded by who enables the unit.
    pub(super) fn of(setting: &Setting) -> Self {
        let mut found = Self::default();
        if setting.section == "Install" {
            return found;
        }
        let mut bytes = setting.value.bytes();
        while let Some(byte) = bytes.next() {
            if byte == b'%' {
                match bytes.next() {
                    Some(b'H' | b'l' | b'q') => found.host = true,
                    Some(b'm') => found.machine_id = true,
                    Some(b'b') => found.boot_id = true,
                    // Others say nothing of an identity, and `%%` is a percent sign.
                    Some(_) | None => {}
                }
            }
        }
        found
    }

    pub(super) fn add(&mut self, other: Self) {
        self.host |= other.host;
        self.machine_id |= other.machine_id;
        self.boot_id |= other.boot_id;
    }
}

/// The name of the unit of a path, such as `var-lib.mount` (systemd.unit(5), STRING ESCAPING FOR INCLUSION IN UNIT NAMES).
pub(super) fn of_path(path: &str, kind: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let mut name = String::new();
    for byte in parts.join("/").bytes() {
        match byte {
            b'/' => name.push('-'),
            b'.' if name.is_empty() => name += "\\x2e",
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b':' | b'_' | b'.' => name.push(char::from(byte)),
            // Writing to a String does not fail.
            other => drop(write!(name, "\\x{other:02x}")),
        }
    }
    if name.is_empty() { format!("-.{kind}") } else { format!("{name}.{kind}") }
}

/// The template of an instance: `a@.service` of `a@b.service`.
pub(super) fn template(unit: &str) -> Option<String> {
    let (stem, rest) = unit.split_once('@')?;
    let (instance, kind) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{stem}@.{kind}"))
}

/// The names under which systemd looks for drop-ins of a unit, the most specific first: its own, its template's, and
/// each that is a prefix, such as `a-.service` of `a-b.service`.
pub(super) fn drop_in_names(unit: &str) -> Vec<String> {
    let mut names = vec![unit.to_owned()];
    names.extend(template(unit));
    let Some((stem, kind)) = unit.rsplit_once('.') else { return names };
    let (mut prefix, at) = stem.split_once('@').map_or((stem, ""), |(prefix, _)| (prefix, "@"));
    while let Some((shorter, _)) = prefix.trim_end_matches('-').rsplit_once('-') {
        if shorter.is_empty() {
            break;
        }
        prefix = shorter;
        names.push(format!("{prefix}-{at}.{kind}"));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ini::{boolean, settings};

    #[test]
    fn a_file_as_systemd_reads_it() {
        let text =
            "# c\n[Unit]\nBefore = a.target \\\n# in between\n  b.target\n; c\nno setting\n\n[X y]\nK=v=w\n";
        let read: Vec<_> = settings(text).into_iter().map(|s| (s.section, s.key, s.value)).collect();
        let expected = [("Unit", "Before", "a.target  b.target"), ("X y", "K", "v=w")];
        assert_eq!(read, expected.map(|(s, k, v)| (s.to_owned(), k.to_owned(), v.to_owned())));
        assert!(settings("").is_empty());
    }

    #[test]
    fn booleans() {
        assert_eq!(boolean("False"), Some(false));
        assert_eq!(boolean("on"), Some(true));
        assert_eq!(boolean("maybe"), None);
    }

    #[test]
    fn what_is_reached_from_outside() {
        let listens = |line: &str| is_network(&settings(&format!("[Socket]\n{line}\n"))[0]);
        for network in [
            "ListenStream=22",
            "ListenStream=0.0.0.0:22",
            "ListenDatagram=[::]:53",
            "ListenStream=vsock::22",
            "ListenSequentialPacket=vsock:2:1",
            "ListenStream=%i",
        ] {
            assert!(listens(network), "{network}");
        }
        for local in [
            "ListenStream=/run/x",
            "ListenDatagram=@x",
            "ListenStream=%t/x",
            "ListenStream=",
            "ListenNetlink=route 1361",
            "ListenFIFO=/run/x",
            "Accept=yes",
        ] {
            assert!(!listens(local), "{local}");
        }
    }

    #[test]
    fn names() {
        for good in ["dbus.service", "a@.service", "a@b\\x2dc.service", "x.y.socket"] {
            assert_eq!(UnitName::try_from(good.to_owned()).unwrap().as_str(), good);
        }
        let long = format!("{}.service", "a".repeat(250));
        for bad in
            ["dbus", ".service", "@.service", "a b.service", "../a.service", "a.target", "*.service", &long]
        {
            assert!(UnitName::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn specifiers_of_the_machine_are_told_from_others() {
        let of = |text: &str| Specifiers::of(&settings(&format!("[Service]\n{text}\n"))[0]);
        let host = Specifiers { host: true, ..Specifiers::default() };
        for text in ["Environment=NODE=%H", "ExecStart=/bin/x --name %l", "Environment=A=%%%q"] {
            assert_eq!(of(text), host, "{text}");
        }
        assert!(of("StateDirectory=a/%m").machine_id && of("ExecStart=/x %b").boot_id);
        for text in ["Environment=A=%%H", "ExecStart=/x %i %v %n %t/%M", "Environment=A=100%"] {
            assert_eq!(of(text), Specifiers::default(), "{text}");
        }
        assert_eq!(Specifiers::of(&settings("[Install]\nAlias=%H.service\n")[0]), Specifiers::default());
    }

    #[test]
    fn names_of_paths() {
        for (path, unit) in [
            ("/", "-.mount"),
            ("/var/lib", "var-lib.mount"),
            ("//srv/./a-b/", "srv-a\\x2db.mount"),
            ("/.snapshots", "\\x2esnapshots.mount"),
            ("/mnt/a b", "mnt-a\\x20b.mount"),
        ] {
            assert_eq!(of_path(path, "mount"), unit);
        }
    }

    #[test]
    fn where_drop_ins_are_looked_for() {
        assert_eq!(drop_in_names("a.service"), ["a.service"]);
        assert_eq!(drop_in_names("a-b-c.service"), ["a-b-c.service", "a-b-.service", "a-.service"]);
        assert_eq!(drop_in_names("a-b@c-d.service"), ["a-b@c-d.service", "a-b@.service", "a-@.service"]);
        assert_eq!(drop_in_names("a@.service"), ["a@.service"]);
        assert_eq!(drop_in_names("-.mount"), ["-.mount"]);
    }
}
