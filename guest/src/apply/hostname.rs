//! hostname(5), the kernel's nodename, and the machine's own line in hosts(5).

use super::ApplyError;
use crate::{root::Root, system::System};
use ramet_proto::{
    Hostname,
    message::{Finding, Identity},
};

const NAME: &str = "etc/hostname";
const HOSTS: &str = "etc/hosts";

/// The address Debian gives the machine's own name (Debian Reference, section 5.1.1).
const OWN_ADDRESS: &str = "127.0.1.1";

pub(super) fn apply<S: System>(identity: &Identity, root: &Root, system: &S) -> Result<(), ApplyError> {
    let name = &identity.hostname;
    root.replace(NAME, format!("{name}\n").as_bytes(), 0o644)?;
    let before = root.read_text(HOSTS)?;
    let domain = identity.domain.as_ref().map(|domain| domain.account.fqdn());
    let after = hosts(before.as_deref().unwrap_or("127.0.0.1\tlocalhost\n"), name, domain.as_deref());
    if before.as_ref() != Some(&after) {
        root.replace(HOSTS, after.as_bytes(), 0o644)?;
    }
    system.set_hostname(name).map_err(|error| ApplyError::System("set the kernel's hostname", error))
}

/// That the file says what the kernel will say after the next boot.
pub(super) fn verify(name: &Hostname, root: &Root) -> Result<(), ApplyError> {
    let text = root.read_text(NAME)?.unwrap_or_default();
    if text.trim_end() == name.as_str() {
        return Ok(());
    }
    Err(ApplyError::Mismatch(format!("/{NAME} is {:?}, not {name}", text.trim_end())))
}

/// `text` with one line for the machine's own name, in place of those it has. The first name is what `hostname -f` shows:
/// for a member of a domain, its name there.
fn hosts(text: &str, name: &Hostname, domain: Option<&str>) -> String {
    let name = name.as_str();
    let mut names = vec![domain.unwrap_or(name), name, name.split('.').next().unwrap_or(name)];
    names.dedup();
    let own = format!("{OWN_ADDRESS}\t{}", names.join(" "));
    let is_own = |line: &str| line.split_ascii_whitespace().next() == Some(OWN_ADDRESS);
    let is_localhost = |line: &str| line.split_ascii_whitespace().next() == Some("127.0.0.1");
    let mut lines: Vec<&str> = text.lines().collect();
    let place = lines.iter().position(|line| is_own(line));
    let place = place.or_else(|| lines.iter().rposition(|line| is_localhost(line)).map(|place| place + 1));
    let place = place.unwrap_or(lines.len());
    // Those before `place` are not own lines, so removing keeps it right.
    lines.retain(|line| !is_own(line));
    lines.insert(place, &own);
    lines.join("\n") + "\n"
}

/// What an identity would meet.
pub(super) fn check(_root: &Root) -> Result<Vec<Finding>, ApplyError> {
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::hosts;

    #[test]
    fn the_own_line_is_replaced_added_or_made_one_of_many() {
        let name = "web-1".parse().unwrap();
        for (before, after) in [
            (
                "127.0.0.1 localhost\n127.0.1.1 parent\n::1 ip6\n",
                "127.0.0.1 localhost\n127.0.1.1\tweb-1\n::1 ip6\n",
            ),
            ("127.0.0.1 localhost\n::1 ip6", "127.0.0.1 localhost\n127.0.1.1\tweb-1\n::1 ip6\n"),
            ("127.0.1.1 a\n# x\n127.0.1.1 b\n127.0.1.10 c\n", "127.0.1.1\tweb-1\n# x\n127.0.1.10 c\n"),
            ("", "127.0.1.1\tweb-1\n"),
        ] {
            assert_eq!(hosts(before, &name, None), after);
            assert_eq!(hosts(after, &name, None), after, "twice");
        }
    }

    #[test]
    fn a_full_name_brings_its_short_form() {
        let name = "web.example.org".parse().unwrap();
        assert_eq!(hosts("", &name, None), "127.0.1.1\tweb.example.org web\n");
    }

    #[test]
    fn a_member_has_its_name_in_the_domain_first() {
        for (name, own) in [
            ("web", "web.ad.example.org web"),
            ("web.ad.example.org", "web.ad.example.org web"),
            ("web.dmz.example.org", "web.ad.example.org web.dmz.example.org web"),
        ] {
            let text = hosts("", &name.parse().unwrap(), Some("web.ad.example.org"));
            assert_eq!(text, format!("127.0.1.1\t{own}\n"));
        }
    }
}
