//! What sshd is told: `sshd_config(5)`, read as OpenSSH's own `servconf.c` and `misc.c` read it.
//!
//! sshd goes through its configuration twice: once for what holds for all, in which no `Match` but `Match all` holds, and
//! once for each connection, in which only the lines of `Match` blocks count and override the former.

use crate::{apply::ApplyError, glob, root::Root};
use std::{rc::Rc, str};

/// How deep `Include` may go, and how many files are read at all: sixteen levels of two globs would never end.
const MAX_DEPTH: usize = 16;
const MAX_FILES: usize = 1024;

/// A keyword and its arguments.
pub(in crate::apply) struct Line {
    /// In lower case.
    pub(in crate::apply) keyword: String,
    pub(in crate::apply) arguments: Vec<Vec<u8>>,
    /// Where it stands, for people.
    pub(in crate::apply) at: String,
    /// All of these have to hold.
    conditions: Vec<Rc<Condition>>,
}

/// A `Match` line: names of criteria in lower case, with their patterns.
struct Condition {
    criteria: Vec<(String, Vec<u8>)>,
}

/// Whether a `Match` block holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holds {
    No,
    /// It depends on what only a connection has: an address, for one.
    Perhaps,
    Yes,
}

/// Who logs in.
pub(in crate::apply) struct Who<'a> {
    pub(in crate::apply) name: &'a str,
    pub(in crate::apply) groups: &'a [Vec<u8>],
}

/// Everything in a configuration, `Include` lines followed.
#[derive(Default)]
pub(in crate::apply) struct Settings {
    lines: Vec<Line>,
    /// What sshd would not start with.
    pub(in crate::apply) faults: Vec<String>,
}

impl Line {
    /// Its argument `n` as a text.
    pub(in crate::apply) fn text(&self, n: usize) -> Result<&str, ApplyError> {
        self.arguments.get(n).and_then(|bytes| str::from_utf8(bytes).ok()).ok_or_else(|| {
            let value = self.arguments.get(n).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            ApplyError::Malformed(format!(
                "{}: {} has \"{}\", which is no name in UTF-8: rename the file",
                self.at,
                self.keyword,
                value.unwrap_or_default()
            ))
        })
    }

    /// Whether it counts in the first pass.
    fn is_global(&self) -> bool {
        self.conditions.iter().all(|one| matches!(&one.criteria[..], [(all, _)] if all == "all"))
    }
}

impl Settings {
    /// What `/path` says, after what the command line said. `directory` is where relative `Include` lines lead.
    pub(super) fn read(
        root: &Root,
        path: &str,
        directory: &str,
        options: Vec<Words>,
    ) -> Result<Self, ApplyError> {
        let mut reader = Reader { root, directory, settings: Self::default(), files: 0 };
        for (keyword, arguments) in options {
            let at = "the command line of sshd".to_owned();
            reader.settings.lines.push(Line { keyword, arguments, at, conditions: Vec::new() });
        }
        reader.file(path, &mut Vec::new(), 0)?;
        Ok(reader.settings)
    }

    /// The lines with `keyword` that hold for the server as a whole, in their order.
    pub(super) fn global(&self, keyword: &str) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.keyword == keyword && line.is_global())
    }

    /// The first value of `keyword`, which is the one that counts.
    pub(super) fn first(&self, keyword: &str) -> Option<&Line> {
        self.global(keyword).next()
    }

    /// Every line with `keyword`, whatever it depends on.
    pub(in crate::apply) fn all(&self, keyword: &str) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.keyword == keyword)
    }

    /// The lines with `keyword` that may count for `who`; which of several depends on the connection. `None` stands for the
    /// default.
    pub(in crate::apply) fn alternatives(&self, keyword: &str, who: &Who<'_>) -> Vec<Option<&Line>> {
        let mut found = Vec::new();
        for line in self.all(keyword).filter(|line| !line.conditions.is_empty()) {
            match line.conditions.iter().map(|one| one.holds(who)).min() {
                Some(Holds::Yes) => {
                    found.push(Some(line));
                    return found;
                }
                Some(Holds::Perhaps) => found.push(Some(line)),
                Some(Holds::No) | None => {}
            }
        }
        found.push(self.first(keyword));
        found
    }
}

impl Condition {
    fn parse(arguments: &[Vec<u8>]) -> Result<Self, &'static str> {
        let mut criteria = Vec::new();
        let mut rest = arguments.iter();
        while let Some(word) = rest.next() {
            let (name, value) = match word.iter().position(|byte| *byte == b'=') {
                Some(at) => (&word[..at], Some(word[at + 1..].to_vec())),
                None => (&word[..], None),
            };
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            let alone = matches!(&*name, "all" | "invalid-user");
            let value = match (alone, value) {
                (true, _) => Vec::new(),
                (false, Some(value)) => value,
                (false, None) => rest.next().cloned().ok_or("a criterion of Match has no value")?,
            };
            criteria.push((name, value));
        }
        if criteria.is_empty() || (criteria.len() > 1 && criteria.iter().any(|(name, _)| name == "all")) {
            return Err("Match has no criterion, or others beside all");
        }
        Ok(Self { criteria })
    }

    fn holds(&self, who: &Who<'_>) -> Holds {
        let one = |(name, patterns): &(String, Vec<u8>)| match &**name {
            "all" => Holds::Yes,
            "user" if list(who.name.as_bytes(), patterns) == Some(true) => Holds::Yes,
            "group" => {
                let answers: Vec<_> = who.groups.iter().map(|group| list(group, patterns)).collect();
                let held = answers.contains(&Some(true)) && !answers.contains(&Some(false));
                if held { Holds::Yes } else { Holds::No }
            }
            "user" | "invalid-user" => Holds::No,
            // Address, host, port, version, and what is new.
            _ => Holds::Perhaps,
        };
        self.criteria.iter().map(one).min().unwrap_or(Holds::No)
    }
}

struct Reader<'a> {
    root: &'a Root,
    directory: &'a str,
    settings: Settings,
    files: usize,
}

impl Reader<'_> {
    fn file(
        &mut self,
        path: &str,
        conditions: &mut Vec<Rc<Condition>>,
        depth: usize,
    ) -> Result<(), ApplyError> {
        self.files += 1;
        if self.files > MAX_FILES {
            return Err(ApplyError::Malformed(format!(
                "/{path}: sshd's configuration includes more than {MAX_FILES} files"
            )));
        }
        if depth > MAX_DEPTH {
            self.settings.faults.push(format!("/{path} is included more than {MAX_DEPTH} levels deep"));
            return Ok(());
        }
        // A directory is read as an empty file.
        let bytes = match self.root.read(path) {
            Err(error) if error.is(nix::errno::Errno::EISDIR) => None,
            read => read?,
        };
        // What an included file matches ends with it.
        let outer = conditions.len();
        for (n, line) in bytes.unwrap_or_default().split(|byte| *byte == b'\n').enumerate() {
            let at = format!("/{path}, line {}", n + 1);
            let (keyword, arguments) = match words(line) {
                Ok(None) => continue,
                Ok(Some(words)) => words,
                Err(what) => {
                    self.settings.faults.push(format!("{at}: {what}"));
                    continue;
                }
            };
            match &*keyword {
                "match" => match Condition::parse(&arguments) {
                    Ok(condition) => {
                        conditions.truncate(outer);
                        conditions.push(Rc::new(condition));
                    }
                    Err(what) => self.settings.faults.push(format!("{at}: {what}")),
                },
                "include" => {
                    for pattern in &arguments {
                        for found in self.found(pattern, &at)? {
                            let before = conditions.len();
                            self.file(&found, conditions, depth + 1)?;
                            conditions.truncate(before);
                        }
                    }
                }
                _ => {
                    let conditions = conditions.clone();
                    self.settings.lines.push(Line { keyword, arguments, at, conditions });
                }
            }
        }
        conditions.truncate(outer);
        Ok(())
    }

    /// The files that `pattern` names, in glob(3)'s order.
    fn found(&self, pattern: &[u8], at: &str) -> Result<Vec<String>, ApplyError> {
        let Ok(pattern) = str::from_utf8(pattern) else {
            return Err(ApplyError::Malformed(format!(
                "{at}: Include names a file that is no UTF-8: rename it"
            )));
        };
        let whole = match pattern.strip_prefix('/') {
            Some(below) => below.to_owned(),
            None => format!("{}/{pattern}", self.directory),
        };
        Ok(glob::expand(self.root, &whole)?)
    }
}

/// A keyword and its arguments.
type Words = (String, Vec<Vec<u8>>);

/// A line's keyword, in lower case, and its arguments; `None` where it is empty or a comment.
fn words(line: &[u8]) -> Result<Option<Words>, &'static str> {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
    let start = line.iter().position(|byte| !is_space(byte)).unwrap_or(line.len());
    let end = line.iter().rposition(|byte| !is_space(byte) && *byte != b'\x0c').map_or(start, |at| at + 1);
    let line = &line[start..end.max(start)];
    if line.contains(&0) {
        return Err("a byte of zero");
    }
    let Some((mut keyword, mut rest)) = keyword(line) else { return Err("a quote that does not end") };
    if keyword.is_empty() {
        (keyword, rest) = self::keyword(rest).ok_or("a quote that does not end")?;
    }
    if keyword.is_empty() || keyword.starts_with(b"#") {
        return Ok(None);
    }
    let arguments = arguments(rest).ok_or("a quote that does not end")?;
    if arguments.is_empty() {
        return Err("a keyword without a value");
    }
    Ok(Some((String::from_utf8_lossy(&keyword).to_ascii_lowercase(), arguments)))
}

/// `strdelim()`: the first word, which may be in double quotes, and what follows it and one `=`.
fn keyword(line: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let skip = |rest: &'_ [u8]| rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
    let Some(at) = line.iter().position(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'"' | b'=')) else {
        return Some((line.to_vec(), &[]));
    };
    if line[at] == b'"' {
        let inside = &line[at + 1..];
        let end = inside.iter().position(|byte| *byte == b'"')?;
        let rest = &inside[end + 1..];
        return Some(([&line[..at], &inside[..end]].concat(), &rest[skip(rest)..]));
    }
    let mut rest = &line[at + 1..];
    rest = &rest[skip(rest)..];
    if line[at] != b'=' && rest.starts_with(b"=") {
        rest = &rest[1..];
        rest = &rest[skip(rest)..];
    }
    Some((line[..at].to_vec(), rest))
}

/// `argv_split()`: words in quotes of either kind, or with a backslash before a blank or a quote, up to a comment; `None`
/// where a quote does not end.
pub(super) fn arguments(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.peek().copied() {
        if matches!(byte, b' ' | b'\t') {
            bytes.next();
            continue;
        }
        if byte == b'#' {
            break;
        }
        let (mut word, mut quote) = (Vec::new(), None);
        while let Some(byte) = bytes.peek().copied() {
            if quote.is_none() && matches!(byte, b' ' | b'\t') {
                break;
            }
            bytes.next();
            match (byte, quote) {
                (b'\\', _) => {
                    let is_escaped = |next: &u8| {
                        matches!(next, b'\'' | b'"' | b'\\') || (quote.is_none() && *next == b' ')
                    };
                    word.push(bytes.next_if(is_escaped).unwrap_or(byte));
                }
                (b'"' | b'\'', None) => quote = Some(byte),
                (_, Some(end)) if byte == end => quote = None,
                _ => word.push(byte),
            }
        }
        if quote.is_some() {
            return None;
        }
        words.push(word);
    }
    Some(words)
}

/// `match_pattern_list()`: whether `text` is in a list of patterns with commas: yes, or ruled out by one with `!`, or `None`.
pub(super) fn list(text: &[u8], patterns: &[u8]) -> Option<bool> {
    let mut found = None;
    for pattern in patterns.split(|byte| *byte == b',') {
        match pattern.strip_prefix(b"!") {
            Some(pattern) if glob::wild(pattern, text, false) => return Some(false),
            None if glob::wild(pattern, text, false) => found = Some(true),
            Some(_) | None => {}
        }
    }
    found
}

#[cfg(test)]
mod tests;
