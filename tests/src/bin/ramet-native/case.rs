//! A case: a root, what is added to it, and what its programs say once it is a child.

use crate::{
    child::Child,
    setting::{Copy, Setting},
};
use anyhow::{Result, bail};
use ramet_proto::message::{Finding, Grade, Step};
use std::{collections::BTreeSet, fmt::Write, fs, thread};

/// A case.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The recipe whose root it is tried in.
    pub(crate) root: &'static str,
    /// Files that are added to the root, bytes and all.
    pub(crate) files: &'static [(&'static str, &'static [u8])],
    /// What sh(1) does in the root before it is booted, for what is not worth a file.
    pub(crate) script: &'static str,
    /// Files that are then made immutable.
    pub(crate) immutable: &'static [&'static str],
    /// What its identity has besides a name and ids.
    pub(crate) told: Told,
    /// What comes of it.
    pub(crate) outcome: Outcome,
}

impl Case {
    /// A case in `root` to which nothing is added, and of which all but the usual is to be said.
    pub(crate) const fn of(name: &'static str, root: &'static str, outcome: Outcome) -> Self {
        Self { name, root, files: &[], script: "", immutable: &[], told: Told::ADDRESS, outcome }
    }
}

/// What an identity tells.
#[derive(Clone, Copy)]
pub(crate) struct Told {
    /// A static address for its NIC.
    pub(crate) address: bool,
    /// The key `own` ([`Copy::talk`]) for these users.
    pub(crate) users: &'static [&'static str],
}

impl Told {
    pub(crate) const ADDRESS: Self = Self { address: true, users: &[] };
    pub(crate) const NOTHING: Self = Self { address: false, users: &[] };
}

/// What comes of a root.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    /// Children that are what they were told, and of which this is true as well.
    Individuals(&'static [Ask]),
    /// No template: a finding says that children would die of it, with this word.
    Refused(&'static str),
    /// A template that a finding with this word is about, and no child: the agent refuses the identity with that word.
    NotThisIdentity(&'static str),
    /// Either is right.
    Either(&'static str, &'static [Ask]),
    /// Children, and a finding that has this word.
    Named(&'static str, &'static [Ask]),
}

/// A question to a child's programs.
#[derive(Clone, Copy)]
pub(crate) struct Ask {
    /// What is asked.
    pub(crate) what: &'static str,
    /// How: for sh(1) in the child, with the child's own `{words}`.
    pub(crate) script: &'static str,
    pub(crate) must: Must,
}

/// What the answer must do.
#[derive(Clone, Copy)]
pub(crate) enum Must {
    /// Be this, with the child's own `{words}`.
    Be(&'static str),
    /// Contain it.
    Have(&'static str),
    /// Not contain it.
    Lack(&'static str),
    /// Not be any other child's, nor empty.
    Differ,
}

pub(crate) const fn ask(what: &'static str, script: &'static str, must: Must) -> Ask {
    Ask { what, script, must }
}

/// Tries a case, and says all that is wrong.
pub(crate) fn run(setting: &Setting, case: &Case, usual: &[Ask]) -> Result<()> {
    let mut wrong = Wrong::default();
    let asks = match case.outcome {
        Outcome::Individuals(asks) | Outcome::Either(_, asks) | Outcome::Named(_, asks) => asks,
        Outcome::Refused(_) | Outcome::NotThisIdentity(_) => &[],
    };
    let all: Vec<&Ask> = usual.iter().chain(asks).collect();
    let count = if all.iter().any(|ask| matches!(ask.must, Must::Differ)) { 2 } else { 1 };
    let copies: Vec<Copy> = (1..=count)
        .map(|number| {
            let copy = setting.copy(case.root, &format!("{}-{number}", case.name.replace("::", "-")))?;
            let old_key = fs::read_to_string(copy.talk.join("old.pub"))?;
            for (path, contents) in case.files {
                // Bytes, which need not be UTF-8.
                match std::str::from_utf8(contents) {
                    Ok(text) => copy.write(path, text.replace("{old_key}", old_key.trim()))?,
                    Err(_) => copy.write(path, contents)?,
                }
            }
            if !case.script.is_empty() {
                copy.sh(case.script)?;
            }
            for path in case.immutable {
                copy.fix(path)?;
            }
            Ok(copy)
        })
        .collect::<Result<_>>()?;
    let tests = setting.made.tests.as_path();
    let children: Vec<Child> = thread::scope(|scope| {
        let threads: Vec<_> = copies
            .iter()
            .enumerate()
            .map(|(index, copy)| scope.spawn(move || Child::make(tests, case, copy, index + 1)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<_>>()
    })?;

    let first = &children[0];
    let fatal = first.findings.iter().any(|finding| finding.grade == Grade::Fatal);
    match case.outcome {
        Outcome::Refused(word) => {
            if !is_refused(first, word) {
                wrong.say(format!("no fatal finding has {word:?}: {}", first.found()));
            }
            return wrong.result();
        }
        Outcome::NotThisIdentity(word) => {
            let failure = first.failure.as_ref().map(|failure| failure.detail.as_str());
            let said = first.findings.iter().any(|finding| names(finding, word));
            if !said || failure.is_none_or(|detail| !detail.contains(word)) {
                wrong.say(format!("{word:?} is not in a finding and the failure: {}", first.found()));
            }
            return wrong.result();
        }
        Outcome::Either(word, _) if is_refused(first, word) => return Ok(()),
        Outcome::Named(word, _) if !first.findings.iter().any(|finding| names(finding, word)) => {
            wrong.say(format!("no finding has {word:?}: {}", first.found()));
        }
        Outcome::Individuals(_) | Outcome::Either(..) | Outcome::Named(..) => {}
    }
    if fatal {
        wrong.say(format!("a template was refused: {}", first.found()));
        return wrong.result();
    }

    for child in &children {
        child.is_as_told(&mut wrong);
    }
    if let [one, other] = &children[..] {
        one.shares_nothing_with(other, &mut wrong);
    }
    if children.iter().all(Child::is_open) {
        for ask in all {
            put(ask, &children, &mut wrong);
        }
    }
    wrong.result()
}

fn names(finding: &Finding, word: &str) -> bool {
    finding.what.as_str().contains(word) || finding.fix.as_str().contains(word)
}

/// Whether no template is made of it, and the reason has `word`.
fn is_refused(child: &Child, word: &str) -> bool {
    let fatal = child.findings.iter().filter(|finding| finding.grade == Grade::Fatal);
    let unprepared = child.failure.iter().filter(|failure| failure.step == Step::Prepare);
    fatal.into_iter().any(|finding| names(finding, word))
        || unprepared.into_iter().any(|failure| failure.detail.as_str().contains(word))
}

fn put(ask: &Ask, children: &[Child], wrong: &mut Wrong) {
    let mut answers = BTreeSet::new();
    for child in children {
        let script = child.fill(ask.script);
        let answer = match child.sh(&script) {
            Ok(answer) => answer,
            Err(error) => {
                wrong.say(format!("{}: {error:#}", ask.what));
                continue;
            }
        };
        let mut must = |is: bool, verb: &str, wanted: &str| {
            if !is {
                wrong.say(format!("{}: `{script}` says {answer:?}, which must {verb} {wanted:?}", ask.what));
            }
        };
        match ask.must {
            Must::Be(wanted) => {
                let wanted = child.fill(wanted);
                must(answer == wanted, "be", &wanted);
            }
            Must::Have(wanted) => {
                let wanted = child.fill(wanted);
                must(answer.contains(&wanted), "have", &wanted);
            }
            Must::Lack(wanted) => {
                let wanted = child.fill(wanted);
                must(!answer.contains(&wanted), "not have", &wanted);
            }
            Must::Differ => {
                let is_new = !answer.is_empty() && answers.insert(answer.clone());
                must(is_new, "be unlike", "any sibling's");
            }
        }
    }
}

/// All that is wrong with a case.
#[derive(Default)]
pub(crate) struct Wrong(Vec<String>);

impl Wrong {
    pub(crate) fn say(&mut self, what: String) {
        self.0.push(what);
    }

    /// Unless both are alike.
    pub(crate) fn unless_same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: &T, wanted: &T) {
        if found != wanted {
            self.say(format!("{what} is {found:?} and should be {wanted:?}"));
        }
    }

    fn result(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut text = format!("{} wrong:", self.0.len());
        for what in self.0 {
            let _ = write!(text, "\n    {what}");
        }
        bail!(text)
    }
}
