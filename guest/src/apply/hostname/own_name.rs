//! The name that the template had, in all its forms, and the child's.

use ramet_proto::Hostname;

/// Domains of one label that are no public ones: `parent.lan` is the machine, `example.org` of a machine called `example` is
/// not.
const LOCAL: &[&str] = &["local", "localdomain", "localnet", "lan", "home", "internal", "intranet", "corp"];

/// What the template called itself, and what the child is called.
#[derive(Clone, Debug, Default)]
pub(in crate::apply) struct Renaming {
    /// In lower case: names are the same in any (RFC 4343).
    old: Vec<String>,
    new: String,
}

impl Renaming {
    /// `old` are the names that the template goes by: the kernel's, hostname(5)'s. That of every machine is nobody's own.
    pub(in crate::apply) fn new(old: impl IntoIterator<Item = String>, new: &Hostname) -> Self {
        let mut names = Self { old: Vec::new(), new: new.as_str().to_owned() };
        for name in old {
            names.learn(&name);
        }
        names
    }

    /// Takes `name` for one of the template's.
    pub(in crate::apply) fn learn(&mut self, name: &str) {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if !name.is_empty() && name != "(none)" && !is_everyones(&name) && !self.old.contains(&name) {
            self.old.push(name);
        }
    }

    /// The child's name.
    pub(in crate::apply) fn new_name(&self) -> &str {
        &self.new
    }

    /// Whether `word` is one of the names known, or the first label of one.
    pub(in crate::apply) fn is_old(&self, word: &str) -> bool {
        let word = word.trim_end_matches('.');
        self.old.iter().any(|old| old.eq_ignore_ascii_case(word) || short(old).eq_ignore_ascii_case(word))
    }

    /// Whether `word` is the template's short name and a domain.
    pub(in crate::apply) fn is_full(&self, word: &str) -> bool {
        let word = word.trim_end_matches('.');
        word.contains('.') && self.old.iter().any(|old| short(old).eq_ignore_ascii_case(short(word)))
    }

    /// What stands in place of `word`, if that is a name of the template's: the child's name, in the same domain if there
    /// was one. A name in capitals, as NetBIOS has them, stays in capitals.
    pub(in crate::apply) fn renamed(&self, word: &str) -> Option<String> {
        let bare = word.trim_end_matches('.');
        let domain = bare.split_once('.').map(|(_, domain)| domain);
        let fits = self.is_old(bare)
            || (self.is_full(bare)
                && domain
                    .is_some_and(|d| d.contains('.') || LOCAL.iter().any(|l| l.eq_ignore_ascii_case(d))));
        if !fits {
            return None;
        }
        let mut name = match domain {
            Some(domain) if !self.new.contains('.') => format!("{}.{domain}", self.new),
            Some(_) => self.new.clone(),
            None => short(&self.new).to_owned(),
        };
        if bare.contains(|c: char| c.is_ascii_uppercase()) && !bare.contains(|c: char| c.is_ascii_lowercase())
        {
            name.make_ascii_uppercase();
        }
        Some(name + &word[bare.len()..])
    }
}

/// The first label.
pub(in crate::apply) fn short(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Whether every machine has this name for itself (RFC 6761, section 6.3), so that it is nobody's own.
pub(in crate::apply) fn is_everyones(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("localhost") || name.ends_with("-localhost") || name == "ip6-loopback"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renaming(old: &[&str], new: &str) -> Renaming {
        Renaming::new(old.iter().map(ToString::to_string), &new.parse().unwrap())
    }

    #[test]
    fn a_name_is_renamed_in_each_of_its_forms_and_no_other() {
        let names = renaming(&["parent", "Example", "localhost.localdomain", "(none)"], "web-1");
        for (word, becomes) in [
            ("parent", Some("web-1")),
            ("PARENT", Some("WEB-1")),
            ("Parent", Some("web-1")),
            ("parent.example.org", Some("web-1.example.org")),
            ("parent.example.org.", Some("web-1.example.org.")),
            ("parent.lan", Some("web-1.lan")),
            ("example.org", None),
            ("grandparent", None),
            ("parent-2", None),
            ("www.parent.org", None),
            ("localhost", None),
            ("", None),
        ] {
            assert_eq!(names.renamed(word).as_deref(), becomes, "{word}");
        }
        let names = renaming(&["parent.org"], "web.example.net");
        assert_eq!(names.renamed("parent.org").as_deref(), Some("web.example.net"));
        assert_eq!(names.renamed("parent").as_deref(), Some("web"));
    }
}
