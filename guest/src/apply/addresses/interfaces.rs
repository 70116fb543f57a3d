//! Reading interfaces(5), and making comments of its lines, on bytes: what is not understood is carried through.

use crate::glob::fits;
use std::ops::Range;

/// What the image's lines begin with while they do not count.
const MARK: &[u8] = b"#ramet# ";

/// The comment before a line of the agent's among the image's.
const ADDED: &[u8] = b"#ramet+ the next line is ramet-agent's\n";

/// The words that begin a stanza. The last is of ifupdown-ng.
const STANZAS: &[&str] = &[
    "iface",
    "mapping",
    "auto",
    "source",
    "source-directory",
    "no-auto-down",
    "no-scripts",
    "rename",
    "template",
];

/// A line that means something, together with those that continue it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Which of the file's lines these are.
    at: Range<usize>,
    pub(super) words: Vec<String>,
}

impl Line {
    pub(super) fn word(&self, n: usize) -> &str {
        self.words.get(n).map_or("", String::as_str)
    }

    /// Whether this names interfaces that are brought up.
    pub(super) fn selects(&self) -> bool {
        self.word(0) == "auto" || self.word(0).starts_with("allow-")
    }
}

/// A stanza: its first line, and its options.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stanza {
    pub(super) head: Line,
    pub(super) options: Vec<Line>,
}

/// The physical lines of a file, each with its end.
fn physical(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').collect()
}

/// The stanzas of a file. A line may go on behind a backslash, a comment may not ("FILE FORMAT").
pub(super) fn stanzas(bytes: &[u8]) -> Vec<Stanza> {
    let lines = physical(bytes);
    let mut found: Vec<Stanza> = Vec::new();
    let mut n = 0;
    while n < lines.len() {
        let start = n;
        let first = lines[n].trim_ascii();
        n += 1;
        if first.is_empty() || first.starts_with(b"#") {
            continue;
        }
        let mut text = lines[start].strip_suffix(b"\n").unwrap_or(lines[start]).to_vec();
        while text.last() == Some(&b'\\') {
            text.pop();
            let Some(more) = lines.get(n) else { break };
            text.extend(more.strip_suffix(b"\n").unwrap_or(more));
            n += 1;
        }
        let words = String::from_utf8_lossy(&text).split_ascii_whitespace().map(str::to_owned).collect();
        let line = Line { at: start..n, words };
        let begins = STANZAS.contains(&line.word(0)) || line.word(0).starts_with("allow-");
        match found.last_mut() {
            Some(stanza) if !begins => stanza.options.push(line),
            // What comes before any stanza is none of one.
            _ => found.push(Stanza { head: line, options: Vec::new() }),
        }
    }
    found
}

/// The file as the image has it.
pub(super) fn restored(bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(bytes.len());
    let mut lines = physical(bytes).into_iter();
    while let Some(line) = lines.next() {
        if line == ADDED {
            lines.next();
        } else {
            all.extend(line.strip_prefix(MARK).unwrap_or(line));
        }
    }
    all
}

/// What an interface's stanzas are known by: its name, and what is on it as an alias.
pub(super) fn is_of(name: &str, nic: &str) -> bool {
    name.strip_prefix(nic).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// The image's file, in which nothing gives an address to one of `nics` or to an alias of it, and which reads the files
/// `sources` besides.
pub(super) fn without(bytes: &[u8], nics: &[&str], sources: &[String]) -> Vec<u8> {
    let lines = physical(bytes);
    let mut marked = vec![false; lines.len()];
    let mut instead: Vec<Option<String>> = vec![None; lines.len()];
    let mut mark = |line: &Line| marked[line.at.clone()].fill(true);
    for Stanza { head, options } in stanzas(bytes) {
        if head.word(0) == "iface" && nics.iter().any(|nic| is_of(head.word(1), nic)) {
            mark(&head);
            options.iter().for_each(&mut mark);
        } else if head.selects() {
            // An alias without a stanza would be an error of ifup(8), and a logical interface is the image's.
            let goes = |word: &str| {
                nics.iter().any(|nic| word.strip_prefix(nic).is_some_and(|rest| rest.starts_with([':', '='])))
            };
            let kept: Vec<_> = head.words.iter().filter(|word| !goes(word)).map(String::as_str).collect();
            if kept.len() < head.words.len() {
                mark(&head);
                instead[head.at.start] = (kept.len() > 1).then(|| kept.join(" "));
            }
        }
    }
    let mut all = Vec::new();
    let add = |all: &mut Vec<u8>, line: &str| {
        all.extend(ADDED);
        all.extend(line.as_bytes());
        all.push(b'\n');
    };
    for path in sources {
        add(&mut all, &format!("source /{path}"));
    }
    for (n, line) in lines.iter().enumerate() {
        if let Some(line) = &instead[n] {
            add(&mut all, line);
        }
        if marked[n] {
            all.extend(MARK);
        }
        all.extend(*line);
    }
    all
}

/// Options whose value is the interfaces that another is made of, or that is a part of.
const PORTS: &[&str] = &[
    "bridge-ports",
    "bond-slaves",
    "slaves",
    "bond-members",
    "vlan-raw-device",
    "ovs-ports",
    "ovs-bonds",
    "team-ports",
    "macvlan-device",
    "tunnel-physdev",
    "vxlan-physdev",
    "batman-interfaces",
];

/// Options that make the interface itself a part of another.
const PART_OF: &[&str] = &["bond-master", "bond-primary", "ovs-bridge", "team-master", "vrf", "master"];

/// Why `nic` cannot be given addresses of its own beside `stanza`, with the name of what is in the way.
pub(super) fn obstacle(stanza: &Stanza, nic: &str) -> Option<String> {
    let head = &stanza.head;
    let name = head.word(1);
    let named = |word: &str| word == nic || (word.contains(['*', '?', '[']) && fits(word, nic));
    match head.word(0) {
        "iface" | "template" => {
            if name != nic && name.contains(['*', '?', '[']) && fits(name, nic) {
                return Some(format!("the stanza \"iface {name}\" is for it, too"));
            }
            if name.strip_prefix(nic).is_some_and(|rest| rest.starts_with('.')) {
                return Some(format!("the VLAN {name} is on it"));
            }
            if !is_of(name, nic) && head.words.windows(2).any(|pair| pair[0] == "inherits" && pair[1] == nic)
            {
                return Some(format!("{name} inherits its stanza"));
            }
            stanza.options.iter().find_map(|option| {
                let key = option.word(0).replace('_', "-");
                let value = option.words.get(1..).unwrap_or_default();
                if is_of(name, nic) {
                    return PART_OF
                        .contains(&key.as_str())
                        .then(|| format!("it is a part of another by \"{}\"", option.words.join(" ")));
                }
                let any = |words: &[&str]| value.iter().any(|word| words.contains(&word.as_str()));
                let is_port = PORTS.contains(&key.as_str())
                    && (value.iter().any(|word| named(word)) || any(&["all", "regex", "glob"]));
                let by_command = value.iter().any(|word| word == nic)
                    && (any(&["addif", "master", "add-port", "add-bond", "addr", "address", "ifconfig"])
                        || (any(&["link", "l"]) && any(&["add", "a"])));
                (is_port || by_command).then(|| {
                    format!("{name} is made of it or configures it by \"{}\"", option.words.join(" "))
                })
            })
        }
        "mapping" => head.words[1..]
            .iter()
            .find(|pattern| fits(pattern, nic))
            .map(|pattern| format!("\"mapping {pattern}\" gives it another name")),
        "rename" => head.words[1..]
            .iter()
            .find(|pair| pair.split('=').any(|side| side == nic || fits(pattern_value(side), nic)))
            .map(|pair| format!("\"rename {pair}\" gives it another name")),
        _ if head.selects() => head.words[1..].iter().find_map(|word| {
            let (pattern, logical) = word.split_once('=')?;
            let (variable, _) = pattern.split_once('/')?;
            // Of another variable than the name it is not known here whose value it is.
            let may_be = !variable.is_empty() || fits(pattern_value(pattern), nic);
            (may_be && logical != nic).then(|| format!("\"{word}\" brings it up as {logical}"))
        }),
        _ => None,
    }
}

/// The value of `[VARIABLE]/VALUE[/[OPTIONS]]` ("PATTERN MATCHING INTERFACES"), or all of it if it is none.
fn pattern_value(word: &str) -> &str {
    word.split('/').nth(1).unwrap_or(word)
}

/// Whether ifupdown has something to do with `nic` by `stanza`.
pub(super) fn names(stanza: &Stanza, nic: &str) -> bool {
    let head = &stanza.head;
    let first = |word: &str| word.split_once('=').map_or(word, |(name, _)| name) == nic;
    match head.word(0) {
        "iface" => is_of(head.word(1), nic),
        _ if head.selects() => head.words[1..].iter().any(|word| first(word)),
        _ => false,
    }
}

/// The interfaces by name that a stanza makes another of.
pub(super) fn ports(stanza: &Stanza) -> impl Iterator<Item = &str> {
    let of_kind = |word: &str| PORTS.contains(&word.replace('_', "-").as_str());
    let words = stanza.options.iter().filter(move |option| of_kind(option.word(0)));
    let words = words.flat_map(|option| option.words.iter().skip(1).map(String::as_str));
    words.filter(|word| !["all", "none", "regex", "glob"].contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(bytes: &[u8]) -> Vec<String> {
        stanzas(bytes)
            .iter()
            .map(|one| format!("{} +{}", one.head.words.join(" "), one.options.len()))
            .collect()
    }

    #[test]
    fn lines_go_on_behind_a_backslash_and_comments_do_not() {
        let text = b"# auto x \\\nauto lo \\\n  ens2\n\n  iface ens2 inet \\\n\tdhcp\n# B\xfcro\n\tmetric \\\n#5\n  \\\nauto z\\";
        assert_eq!(shown(text), ["auto lo ens2 +0", "iface ens2 inet dhcp +1", "auto z +0"]);
        let gone = without(text, &["ens2"], &[]);
        assert_eq!(shown(&gone), ["auto lo ens2 +0", "auto z +0"]);
        assert_eq!(restored(&gone), text);
    }

    #[test]
    fn what_stands_on_a_nic_is_named() {
        for (text, name) in [
            ("iface br0 inet static\n bridge_ports ens2 ens3\n", "br0"),
            ("iface br0 inet static\n bridge-ports all\n", "br0"),
            ("iface br0 inet static\n bridge_ports regex en.*\n", "br0"),
            ("iface bond0 inet dhcp\n bond-slaves ens2\n", "bond0"),
            ("iface ens2 inet manual\n bond-master bond0\n", "bond0"),
            ("iface vlan7 inet dhcp\n vlan-raw-device ens2\n", "vlan7"),
            ("iface ens2.7 inet dhcp\n", "ens2.7"),
            ("iface ens2.7:1 inet dhcp\n", "ens2.7:1"),
            ("iface en* inet dhcp\n", "en*"),
            ("iface lan inet static inherits ens2\n", "lan"),
            ("mapping en*\n script /x\n", "en*"),
            ("rename ens2=lan\n", "ens2=lan"),
            ("rename /en*=lan\n", "/en*=lan"),
            ("auto lo /en*=lan\n", "/en*=lan"),
            ("allow-hotplug mac/52:54:*=lan\n", "mac/52:54:*=lan"),
            ("iface lo inet loopback\n up ip addr add 192.0.2.9/24 dev ens2\n", "lo"),
            ("iface br0 inet manual\n pre-up brctl addif br0 ens2\n", "br0"),
            ("iface x inet manual\n pre-up ip link add link ens2 name x type vlan id 7\n", "x"),
        ] {
            let found = stanzas(text.as_bytes()).iter().find_map(|stanza| obstacle(stanza, "ens2"));
            assert!(found.as_ref().is_some_and(|why| why.contains(name)), "{text}{found:?}");
        }
        let fine = "auto /en* ens2 ens2=lan\nallow-hotplug /eth*=lan\niface ens2 inet dhcp inherits base\n up x\n\
                    iface ens20 inet dhcp\niface ens2:0 inet dhcp\niface br0 inet dhcp\n bridge_ports ens3 ens20\n\
                    iface lo inet loopback\n up ip link set ens2 mtu 1400\nmapping eth*\n script x\nsource x\n";
        assert_eq!(stanzas(fine.as_bytes()).iter().find_map(|stanza| obstacle(stanza, "ens2")), None);
    }

    #[test]
    fn aliases_go_and_so_does_what_brings_them_up() {
        let text = b"auto lo ens2:0 ens2\nauto ens2:1 ens2=lan\nallow-hotplug ens2\niface ens2:0 inet static\n address 192.0.2.200/24\niface ens20 inet dhcp";
        let gone = without(text, &["ens2"], &["etc/network/interfaces.d/ramet-ens2".into()]);
        let expected = "source /etc/network/interfaces.d/ramet-ens2 +0";
        assert_eq!(
            shown(&gone),
            [expected, "auto lo ens2 +0", "allow-hotplug ens2 +0", "iface ens20 inet dhcp +0"]
        );
        assert_eq!(restored(&gone), text);
    }

    fn line() -> impl Strategy<Value = Vec<u8>> {
        let known = prop::sample::select(vec![
            "auto ens2 ens2:0 lo",
            "allow-hotplug ens2:1",
            "iface ens2 inet dhcp",
            "iface ens2:0 inet static",
            "iface ens3 inet dhcp",
            "  address 192.0.2.9/24",
            "source /x/*",
            "mapping eth*",
            "iface ens2 inet \\",
            "# auto ens2",
            "",
            "\\",
        ]);
        prop_oneof![
            known.prop_map(|text| text.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>().prop_filter("one line", |byte| *byte != b'\n'), 0..12),
        ]
        .prop_filter("the agent's own marks are not the image's", |line| !line.starts_with(b"#ramet"))
    }

    proptest! {
        #[test]
        fn every_byte_of_the_image_comes_back(lines in prop::collection::vec(line(), 0..12), end in any::<bool>()) {
            let mut text = lines.join(&b'\n');
            if end { text.push(b'\n'); }
            for sources in [vec![], vec!["etc/x".to_owned()]] {
                let gone = without(&text, &["ens2"], &sources);
                prop_assert_eq!(&restored(&gone), &text);
                prop_assert_eq!(&without(&restored(&gone), &["ens2"], &sources), &gone, "twice");
                let left = stanzas(&gone);
                prop_assert!(!left.iter().any(|one| one.head.word(0) == "iface" && is_of(one.head.word(1), "ens2")));
                // Lines of others are there as they were.
                for line in text.split_inclusive(|byte| *byte == b'\n') {
                    prop_assert!(gone.windows(line.len()).any(|part| part == line));
                }
            }
            prop_assert_eq!(&restored(&text), &text, "nothing of the agent's");
            prop_assert_eq!(&without(&text, &["eth9"], &[]), &text, "nothing of this NIC");
        }
    }
}
