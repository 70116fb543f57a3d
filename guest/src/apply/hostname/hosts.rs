//! hosts(5), edited as bytes. What is not the machine's own name stays as it was, byte by byte.

use super::own_name::{Renaming, is_everyones, short};
use ramet_proto::Hostname;
use std::net::{IpAddr, Ipv4Addr};

/// The address Debian gives the machine's own name (Debian Reference, section 5.1.1).
const OWN_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1));

/// A line: an address, names, and the rest: white space, a comment, the end of the line.
struct Line<'a> {
    raw: &'a [u8],
    /// White space and the address.
    head: &'a [u8],
    /// Each with the white space before it.
    names: Vec<&'a [u8]>,
    tail: &'a [u8],
    address: IpAddr,
}

impl<'a> Line<'a> {
    /// The parts of a line that has an address of this machine, or else `None`: most files are of others.
    fn parse(raw: &'a [u8]) -> Option<Self> {
        let end = raw.iter().position(|byte| *byte == b'#').unwrap_or(raw.len());
        let (mut names, mut at) = (Vec::new(), 0);
        while let Some(length) = word(&raw[at..end]) {
            names.push(&raw[at..at + length]);
            at += length;
        }
        let head = *names.first()?;
        names.remove(0);
        let address: IpAddr = text(head)?.parse().ok()?;
        Some(Self { raw, head, names, tail: &raw[at..], address: address.to_canonical() })
    }

    /// Whether one of the names is.
    fn any(&self, is: impl Fn(&str) -> bool) -> bool {
        self.names.iter().any(|name| text(name).is_some_and(&is))
    }
}

/// How long the next word is, with the white space before it.
fn word(bytes: &[u8]) -> Option<usize> {
    let start = bytes.iter().position(|byte| !is_space(*byte))?;
    let length = bytes[start..].iter().position(|byte| is_space(*byte));
    Some(length.map_or(bytes.len(), |length| start + length))
}

/// isspace(3) in the C locale, by which glibc takes the file apart.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// A word without the white space before it. What is no UTF-8 is nobody's name.
fn text(word: &[u8]) -> Option<&str> {
    std::str::from_utf8(word).ok().map(str::trim_start)
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n')
}

/// Teaches `names` the full names of the template: those of its lines for itself.
pub(super) fn learn(bytes: &[u8], names: &mut Renaming) {
    let mut found = Vec::new();
    for line in lines(bytes).filter_map(Line::parse).filter(|line| line.address.is_loopback()) {
        if line.address == OWN_ADDRESS || line.any(|name| names.is_old(name)) {
            let full = line.names.iter().filter_map(|name| text(name)).filter(|name| names.is_full(name));
            found.extend(full.map(str::to_owned));
        }
    }
    for name in found {
        names.learn(&name);
    }
}

/// The lines that give a name of the template's to an address of another machine's kind, as they stand.
pub(super) fn elsewhere(bytes: &[u8], names: &Renaming) -> Vec<String> {
    let named = lines(bytes).filter_map(Line::parse).filter(|line| {
        !line.address.is_loopback()
            && !line.address.is_unspecified()
            && line.any(|name| names.is_old(name) || names.renamed(name).is_some())
    });
    named.map(|line| String::from_utf8_lossy(line.raw).trim().to_owned()).collect()
}

/// `bytes` with the child's names on one line for the machine itself, and those of the template, which `names` knows, on
/// none with a loopback address. The first name is what `hostname -f` shows: for a member of a domain, its name there.
pub(super) fn hosts(bytes: &[u8], names: &Renaming, name: &Hostname, domain: Option<&str>) -> Vec<u8> {
    let own = own_names(bytes, names, name, domain);
    let goes = |word: &&[u8]| {
        text(word).is_some_and(|word| {
            !is_everyones(word)
                && (names.is_old(word) || own.iter().any(|own| own.eq_ignore_ascii_case(word)))
        })
    };
    let newline: &[u8] =
        if lines(bytes).next().is_some_and(|l| l.ends_with(b"\r\n")) { b"\r\n" } else { b"\n" };
    let mut out = Vec::with_capacity(bytes.len() + 64);
    // Where the own line goes if there is none: behind the last one of localhost's.
    let (mut done, mut place) = (false, None);
    for raw in lines(bytes) {
        let Some(line) = Line::parse(raw).filter(|line| line.address.is_loopback()) else {
            out.extend(raw);
            continue;
        };
        let is_own = line.address == OWN_ADDRESS;
        let kept: Vec<&[u8]> = line.names.iter().copied().filter(|word| !goes(word)).collect();
        if is_own && !done {
            done = true;
            let space =
                line.names.first().map_or(&b"\t"[..], |first| &first[..first.len() - text_len(first)]);
            out.extend(line.head);
            out.extend(space);
            out.extend(own.join(" ").as_bytes());
            out.extend(kept.concat());
            out.extend(line.tail);
        } else if kept.len() == line.names.len() {
            out.extend(raw);
        } else if !kept.is_empty() {
            out.extend(line.head);
            out.extend(kept.concat());
            out.extend(line.tail);
        }
        if line.address == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            place = Some(out.len());
        }
    }
    if !done {
        let place = place.unwrap_or(out.len());
        let mut line = [format!("{OWN_ADDRESS}\t{}", own.join(" ")).as_bytes(), newline].concat();
        if place > 0 && out[place - 1] != b'\n' {
            // The last line has no end, and keeps none.
            line.truncate(line.len() - newline.len());
            line.splice(0..0, newline.iter().copied());
        }
        out.splice(place..place, line);
    }
    out
}

/// How long a word is without the white space before it.
fn text_len(word: &[u8]) -> usize {
    word.len() - word.iter().take_while(|byte| is_space(**byte)).count()
}

/// The names of the machine's line. A short name keeps the domain that the template's or its own had there.
fn own_names(bytes: &[u8], names: &Renaming, name: &Hostname, domain: Option<&str>) -> Vec<String> {
    let name = name.as_str();
    let mut own: Vec<String> = domain.map(str::to_owned).into_iter().collect();
    if domain.is_none() && !name.contains('.') {
        own.extend(own_domain(bytes, names, name).map(|domain| format!("{name}.{domain}")));
    }
    own.push(name.to_owned());
    own.push(short(name).to_owned());
    own.dedup();
    own
}

fn own_domain(bytes: &[u8], names: &Renaming, name: &str) -> Option<String> {
    let full = |word: &str| {
        let mine = short(word).eq_ignore_ascii_case(name);
        let domain = word.split_once('.').map(|(_, domain)| domain)?;
        (!is_everyones(word) && (names.is_old(word) || mine)).then(|| domain.trim_end_matches('.').to_owned())
    };
    let of_mine = |line: &Line<'_>| {
        let named = |word: &str| names.is_old(word) || word.eq_ignore_ascii_case(name);
        line.address == OWN_ADDRESS || (line.address.is_loopback() && line.any(named))
    };
    let mut found = lines(bytes).filter_map(Line::parse).filter(of_mine);
    found.find_map(|line| line.names.iter().filter_map(|word| text(word)).find_map(full))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edited(bytes: &[u8], old: &[&str], new: &str, domain: Option<&str>) -> Vec<u8> {
        let name: Hostname = new.parse().unwrap();
        let mut names = Renaming::new(old.iter().map(ToString::to_string), &name);
        learn(bytes, &mut names);
        hosts(bytes, &names, &name, domain)
    }

    fn case(before: &str, after: &str) {
        let once = edited(before.as_bytes(), &["parent"], "child", None);
        assert_eq!(String::from_utf8_lossy(&once), after, "{before:?}");
        assert_eq!(edited(&once, &["parent"], "child", None), once, "twice: {before:?}");
        assert_eq!(edited(&once, &["child"], "child", None), once, "after the kernel's name: {before:?}");
    }

    #[test]
    fn the_own_line_is_replaced_added_or_made_one_of_many() {
        case(
            "127.0.0.1 localhost\n127.0.1.1 parent\n::1 ip6\n",
            "127.0.0.1 localhost\n127.0.1.1 child\n::1 ip6\n",
        );
        case("127.0.0.1 localhost\n::1 ip6", "127.0.0.1 localhost\n127.0.1.1\tchild\n::1 ip6");
        case(
            "127.0.1.1 parent\n# x\n127.0.1.1\tparent\n127.0.1.10 c\n",
            "127.0.1.1 child\n# x\n127.0.1.10 c\n",
        );
        case("127.0.0.1 localhost", "127.0.0.1 localhost\n127.0.1.1\tchild");
        case("10.0.0.1 a", "10.0.0.1 a\n127.0.1.1\tchild");
        case("", "127.0.1.1\tchild\n");
        case("127.0.1.1\n", "127.0.1.1\tchild\n");
    }

    #[test]
    fn aliases_comments_and_white_space_of_the_own_line_stay() {
        case("127.0.1.1 parent app.local\n", "127.0.1.1 child app.local\n");
        case(
            "  127.0.1.1\t\tparent\t app.local \t# by hand\r\n",
            "  127.0.1.1\t\tchild\t app.local \t# by hand\r\n",
        );
        case("127.0.0.1 localhost\r\n", "127.0.0.1 localhost\r\n127.0.1.1\tchild\r\n");
        case("127.0.1.1 other parent#x\n127.0.1.1 db parent\n", "127.0.1.1 child other#x\n127.0.1.1 db\n");
    }

    #[test]
    fn the_templates_name_goes_from_every_loopback_line() {
        case(
            "127.0.0.1 parent parent.example.org localhost\n::1 parent\n127.9.9.9 x\n",
            "127.0.0.1 localhost\n127.0.1.1\tchild.example.org child\n127.9.9.9 x\n",
        );
        case("127.0.1.1 PARENT.Example.Org Parent\n", "127.0.1.1 child.Example.Org child\n");
        case("::1 localhost parent ip6-localhost\n", "::1 localhost ip6-localhost\n127.0.1.1\tchild\n");
        // Of others.
        case(
            "127.0.0.1 parent-2 grandparent parent.app.test\n192.0.2.9 parent\n",
            "127.0.0.1 parent-2 grandparent parent.app.test\n127.0.1.1\tchild\n192.0.2.9 parent\n",
        );
    }

    #[test]
    fn a_template_called_localhost_loses_nothing() {
        let before = b"127.0.0.1 localhost localhost.localdomain\n::1 localhost\n";
        let after = edited(before, &["localhost", "localhost.localdomain"], "child", None);
        let wanted = "127.0.0.1 localhost localhost.localdomain\n127.0.1.1\tchild\n::1 localhost\n";
        assert_eq!(String::from_utf8(after).unwrap(), wanted);
    }

    #[test]
    fn a_full_name_brings_its_short_form() {
        assert_eq!(edited(b"", &[], "web.example.org", None), b"127.0.1.1\tweb.example.org web\n");
        let before = b"127.0.1.1 parent.example.com parent\n";
        let after = edited(before, &["parent"], "web.example.org", None);
        assert_eq!(after, b"127.0.1.1 web.example.org web\n");
    }

    #[test]
    fn a_member_has_its_name_in_the_domain_first() {
        for (name, own) in [
            ("web", "web.ad.example.org web"),
            ("web.ad.example.org", "web.ad.example.org web"),
            ("web.dmz.example.org", "web.ad.example.org web.dmz.example.org web"),
        ] {
            for before in [&b""[..], b"127.0.1.1\tparent.example.com parent\n"] {
                let after = edited(before, &["parent"], name, Some("web.ad.example.org"));
                assert_eq!(after, format!("127.0.1.1\t{own}\n").as_bytes());
            }
        }
    }

    #[test]
    fn names_of_the_template_elsewhere_are_found() {
        let names = Renaming::new(["parent".to_owned()], &"child".parse().unwrap());
        let bytes =
            b"192.0.2.9\tparent.example.org parent # lan\n127.0.0.1 parent\n0.0.0.0 parent\n10.0.0.1 other\n";
        assert_eq!(elsewhere(bytes, &names), ["192.0.2.9\tparent.example.org parent # lan"]);
    }

    fn a_line() -> impl Strategy<Value = Vec<u8>> {
        let word = prop::sample::select(vec![
            "127.0.0.1",
            "127.0.1.1",
            "::1",
            "10.0.0.1",
            "parent",
            "parent.example.org",
            "child",
            "localhost",
            "app",
            "\t",
            " ",
            "#",
            "\r",
            "Parent",
            "child.example.org",
            "127.0.1.1\t",
        ]);
        let words = prop::collection::vec((word, any::<bool>()), 0..7);
        let foreign = prop::collection::vec(any::<u8>(), 0..20);
        prop_oneof![
            words.prop_map(|words| {
                words
                    .into_iter()
                    .flat_map(|(w, gap)| [w, if gap { " " } else { "" }])
                    .collect::<String>()
                    .into_bytes()
            }),
            foreign,
        ]
    }

    proptest! {
        #[test]
        fn twice_is_once_and_lines_of_others_stay(lines in prop::collection::vec(a_line(), 0..8), end: bool) {
            let mut bytes = lines.join(&b'\n');
            if end { bytes.push(b'\n'); }
            let once = edited(&bytes, &["parent"], "child", None);
            let twice = edited(&once, &["parent"], "child", None);
            prop_assert_eq!(String::from_utf8_lossy(&twice), String::from_utf8_lossy(&once));
            let foreign = |bytes: &[u8]| -> Vec<Vec<u8>> {
                super::lines(bytes)
                    .filter(|raw| Line::parse(raw).is_none_or(|line| !line.address.is_loopback()))
                    .map(|raw| raw.trim_ascii_end().to_vec())
                    .filter(|raw| !raw.is_empty())
                    .collect()
            };
            prop_assert_eq!(foreign(&bytes), foreign(&once));
        }
    }
}
