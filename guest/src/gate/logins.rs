//! Who gets in past the gate without a password.

use super::{Findings, finding, units::installed};
use crate::{ini::settings, root::Root};
use ramet_proto::message::{Finding, Grade};

/// An account of passwd(5).
struct Account {
    name: String,
    password: String,
    uid: String,
    shell: String,
}

impl Account {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            [name, password, uid, _, _, _, shell] => Some(Self {
                name: name.to_owned(),
                password: password.to_owned(),
                uid: uid.to_owned(),
                shell: shell.trim().to_owned(),
            }),
            _ => None,
        }
    }

    fn may_log_in(&self) -> bool {
        !["nologin", "false", "sync", "halt", "shutdown"].iter().any(|no| self.shell.ends_with(no))
    }
}

/// No account has an empty password (shadow(5)): `pam_unix`(8) with `nullok`, as distributions have it, asks for none.
pub(super) fn passwords(root: &Root) -> Findings {
    let shadow = root.read_lossy("etc/shadow")?.unwrap_or_default();
    let passwd = root.read_lossy("etc/passwd")?.unwrap_or_default();
    let accounts: Vec<Account> = passwd.lines().filter_map(Account::parse).collect();
    let in_shadow = |name: &str| {
        shadow.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.next().unwrap_or_default().to_owned())
        })
    };
    let is_empty = |account: &Account| match account.password.as_str() {
        "" => true,
        "x" => in_shadow(&account.name).is_some_and(|hash| hash.is_empty()),
        _ => false,
    };
    let mut found = Vec::new();
    for account in accounts.iter().filter(|account| account.may_log_in() && is_empty(account)) {
        let who = if account.uid == "0" { ", who is root," } else { "" };
        let name = &account.name;
        let what = format!("the password of {name}{who} is empty: past the gate, a console is enough");
        found.push(finding(Grade::Open, what, &format!("passwd --lock {name}")));
    }
    // Without its line in passwd(5), as in an image that is not complete, it is root all the same.
    if accounts.iter().all(|account| account.name != "root")
        && in_shadow("root").is_some_and(|h| h.is_empty())
    {
        let what = "the password of root is empty: past the gate, a console is enough".to_owned();
        found.push(finding(Grade::Open, what, "passwd --lock root"));
    }
    for account in accounts.iter().filter(|a| a.uid == "0" && a.name != "root" && a.may_log_in()) {
        let what = format!("{} in /etc/passwd is root under another name (uid 0)", account.name);
        found.push(finding(Grade::Note, what, "userdel it unless it is meant to be"));
    }
    Ok(found)
}

/// A console or a screen that asks for no password.
pub(super) fn automatic(root: &Root) -> Findings {
    let mut files = gettys(root)?;
    files.extend(screens(root)?);
    Ok(files
        .into_iter()
        .map(|file| {
            let what = format!("/{file} logs somebody in without a password, once the gate is open");
            finding(Grade::Note, what, "remove it unless whoever has the console may")
        })
        .collect::<Vec<Finding>>())
}

fn gettys(root: &Root) -> Result<Vec<String>, crate::root::FileError> {
    let mut found = Vec::new();
    for directory in installed(root)? {
        for unit in root.names(directory)?.iter().filter(|name| name.contains("getty")) {
            let path = format!("{directory}/{unit}");
            let drop_ins = root.names(&path).unwrap_or_default();
            let mut files: Vec<_> = drop_ins.iter().map(|file| format!("{path}/{file}")).collect();
            files.push(path);
            for file in files {
                let text = root.read_lossy(&file).ok().flatten().unwrap_or_default();
                let logs_in = |value: &str| {
                    value.split_ascii_whitespace().any(|w| w.starts_with("--autologin") || w == "-a")
                };
                if settings(&text).iter().any(|s| s.key == "ExecStart" && logs_in(&s.value)) {
                    found.push(file);
                }
            }
        }
    }
    Ok(found)
}

/// Where display managers are told to log somebody in: files or directories of them, section (or none), key.
const SCREENS: &[(&[&str], &str, &str)] = &[
    (
        &["etc/lightdm/lightdm.conf", "etc/lightdm/lightdm.conf.d", "usr/share/lightdm/lightdm.conf.d"],
        "",
        "autologin-user",
    ),
    (&GDM, "daemon", "AutomaticLogin"),
    (&GDM, "daemon", "TimedLogin"),
    (&["etc/sddm.conf", "etc/sddm.conf.d", "usr/lib/sddm/sddm.conf.d"], "Autologin", "User"),
    (&["etc/greetd/config.toml"], "initial_session", "user"),
    (&["etc/lxdm/lxdm.conf", "etc/lxdm/default.conf"], "base", "autologin"),
    (&["etc/default/nodm", "etc/nodm.conf"], "", "NODM_USER"),
];

const GDM: [&str; 4] =
    ["etc/gdm/custom.conf", "etc/gdm3/daemon.conf", "etc/gdm3/custom.conf", "usr/share/gdm/custom.conf"];

fn screens(root: &Root) -> Result<Vec<String>, crate::root::FileError> {
    let mut found = Vec::new();
    for (places, section, key) in SCREENS {
        for place in *places {
            let mut files = vec![(*place).to_owned()];
            if root.is_dir(place)? {
                files = root.names(place)?.into_iter().map(|name| format!("{place}/{name}")).collect();
            }
            for file in files {
                let text = root.read_lossy(&file).ok().flatten().unwrap_or_default();
                let settings = settings(&text);
                let set = |key: &str| {
                    settings
                        .iter()
                        .rfind(|s| s.key.trim() == key && (section.is_empty() || s.section == *section))
                        .map(|s| s.value.trim_matches(['"', '\'']))
                };
                // GDM has a switch besides the name.
                let off = key.ends_with("Login")
                    && !set(&format!("{key}Enable")).is_some_and(|v| v.eq_ignore_ascii_case("true"));
                if set(key).is_some_and(|user| !user.is_empty()) && !off && !found.contains(&file) {
                    found.push(file);
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Image;
    use super::*;

    fn told(found: &[Finding]) -> Vec<(Grade, &str)> {
        found.iter().map(|f| (f.grade, f.what.as_str())).collect()
    }

    #[test]
    fn whoever_needs_no_password_is_named() {
        let image = Image::new();
        image.file(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/bash\ntoor:x:0:0::/root:/bin/sh\njane::1000:1000::/home/jane:/bin/bash\n\
             kim:x:1001:1001::/home/kim:/bin/zsh\nlee:x:1002:1002::/home/lee:\nsys:x:9:9::/:/usr/sbin/nologin\nodd\n",
        );
        image.file(
            "etc/shadow",
            "root:!:1::::::\ntoor::1::::::\nkim:$y$x:1::::::\nlee::1::::::\nsys::1::::::\n",
        );
        let found = passwords(&image.root).unwrap();
        let expected = [
            (Grade::Open, "the password of toor, who is root, is empty: past the gate, a console is enough"),
            (Grade::Open, "the password of jane is empty: past the gate, a console is enough"),
            (Grade::Open, "the password of lee is empty: past the gate, a console is enough"),
            (Grade::Note, "toor in /etc/passwd is root under another name (uid 0)"),
        ];
        assert_eq!(told(&found), expected);
    }

    #[test]
    fn automatic_logins_of_consoles_and_screens() {
        let files = [
            (
                "usr/local/lib/systemd/system/getty@tty1.service.d/a.conf",
                "[Service]\nExecStart=-agetty --autologin root",
            ),
            ("run/systemd/system/serial-getty@.service", "[Service]\nExecStart=-agetty -a root"),
            ("etc/lightdm/lightdm.conf.d/50-x.conf", "[Seat:*]\nautologin-user=jane\n"),
            ("etc/gdm3/daemon.conf", "[daemon]\nAutomaticLoginEnable = true\nAutomaticLogin = jane\n"),
            ("etc/sddm.conf", "[Autologin]\nUser=jane\n"),
            ("etc/greetd/config.toml", "[initial_session]\ncommand = \"sway\"\nuser = \"jane\"\n"),
        ];
        for (path, text) in files {
            let image = Image::new();
            image.file(path, text);
            let found = automatic(&image.root).unwrap();
            let expected = format!("/{path} logs somebody in without a password, once the gate is open");
            assert_eq!(told(&found), [(Grade::Note, expected.as_str())]);
        }
        for (path, text) in [
            ("etc/lightdm/lightdm.conf", "[Seat:*]\n#autologin-user=jane\nautologin-user=\n"),
            ("etc/gdm3/daemon.conf", "[daemon]\nAutomaticLoginEnable=false\nAutomaticLogin=jane\n"),
            ("etc/sddm.conf", "[Users]\nUser=jane\n"),
            ("etc/greetd/config.toml", "[default_session]\nuser = \"greeter\"\n"),
        ] {
            let image = Image::new();
            image.file(path, text);
            assert!(automatic(&image.root).unwrap().is_empty(), "{path}");
        }
    }
}
