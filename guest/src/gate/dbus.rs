//! Services of D-Bus that systemd knows nothing of.

use super::{Findings, Survey, Verdict, finding};
use crate::{ini::settings, root::Root};
use ramet_proto::message::Grade;

/// Where the system bus looks for services (dbus-daemon(1), `<standard_system_servicedirs>`).
const SERVICES: &[&str] = &[
    "etc/dbus-1/system-services",
    "run/dbus-1/system-services",
    "usr/local/share/dbus-1/system-services",
    "usr/share/dbus-1/system-services",
    "usr/lib/dbus-1/system-services",
    "lib/dbus-1/system-services",
];

/// Programs that dbus-daemon starts itself when somebody asks for their name, so that no unit waits (D-Bus
/// specification, Message Bus Starting Services).
pub(super) fn services(root: &Root, survey: &Survey) -> Findings {
    let mut found = Vec::new();
    if survey.verdict("dbus.service").is_none_or(Verdict::holds) {
        return Ok(found);
    }
    for directory in SERVICES {
        for name in root.names(directory)?.iter().filter(|name| name.ends_with(".service")) {
            let path = format!("{directory}/{name}");
            let text = root.read_lossy(&path).ok().flatten().unwrap_or_default();
            let settings = settings(&text);
            let value = |key| settings.iter().find(|s| s.section == "D-BUS Service" && s.key == key);
            let Some(exec) = value("Exec").filter(|_| value("SystemdService").is_none()) else { continue };
            if matches!(exec.value.as_str(), "/bin/false" | "/usr/bin/false" | "/bin/true") {
                continue;
            }
            let what = format!(
                "/{path} has no SystemdService=, and dbus.service starts before the gate: whoever asks for the name \
                 there starts {}",
                exec.value
            );
            let fix = "add SystemdService= and a unit, or take dbus.service out of before_gate";
            found.push(finding(Grade::Note, what, fix));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::{Scope, tests::Image};
    use super::*;

    #[test]
    fn programs_that_the_bus_starts_itself_are_named() {
        let image = Image::new();
        image.unit("dbus.service", "");
        let put = |name: &str, text: &str| {
            image.file(
                &format!("usr/share/dbus-1/system-services/{name}.service"),
                &format!("[D-BUS Service]\nName={name}\n{text}\n"),
            );
        };
        put("a.Own", "Exec=/usr/libexec/own\nUser=root");
        put("a.Unit", "Exec=/usr/libexec/unit\nSystemdService=unit.service");
        put("a.None", "Exec=/bin/false");
        let found =
            |image: &Image| services(&image.root, &Survey::of(&image.root, Scope::Running).unwrap()).unwrap();
        assert!(
            matches!(&found(&image)[..], [one] if one.what.as_str().ends_with("starts /usr/libexec/own"))
        );
        image.file("etc/ramet/agent.toml", "before_gate = []\n");
        assert!(found(&image).is_empty());
    }
}
