//! What a parent's agent found in its system: what is kept of it, and what no template is made of.

use crate::agent::Greeting;
use ramet_proto::message::{Finding, Grade};

/// The most findings that are kept, besides the host's own. A guest says what it likes.
pub const MAX: usize = 64;

/// What is kept of what the agent found, the worst first, and what the host has to say of the agent.
pub(super) fn kept(mut found: Vec<Finding>, greeting: &Greeting) -> Vec<Finding> {
    if greeting.version < 2 {
        let what = "the agent in the image speaks version 1 of the protocol: it looks for no faults of the image, does not \
                    say which steps of an identity it has taken, and ignores what it does not know of one";
        found.push(Finding::new(
            Grade::Note,
            what,
            "update ramet-agent in the image and create the template again",
        ));
    }
    // Stable: of a grade, in the agent's order.
    found.sort_by_key(|finding| finding.grade);
    let left = found.len().saturating_sub(MAX);
    if left > 0 {
        found.truncate(MAX);
        let what = format!("{left} more findings");
        found.push(Finding::new(Grade::Note, &what, "ramet-agent doctor in the image has all of them"));
    }
    found
}

/// Those because of which no template is made: what every child would die of, and if `strict` whatever is more than a note.
pub(super) fn refused(found: &[Finding], strict: bool) -> Vec<Finding> {
    let is_refused = |finding: &&Finding| match finding.grade {
        Grade::Fatal => true,
        Grade::Open | Grade::Broken => strict,
        Grade::Note => false,
    };
    found.iter().filter(is_refused).cloned().collect()
}

/// A finding for people: what is so, and what to do.
#[must_use]
pub fn sentence(Finding { grade, what, fix }: &Finding) -> String {
    format!("{grade}: {what}; {fix}")
}

/// A line for each.
pub(super) fn lines(findings: &[Finding]) -> String {
    let lines: Vec<_> = findings.iter().map(|one| format!("\n  {}", sentence(one))).collect();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ramet_proto::{message::GuestState, text::Text};

    fn greeting(version: u16) -> Greeting {
        Greeting { agent: Text::new("0.1.0"), version, features: Vec::new(), state: GuestState::Held }
    }

    fn finding(grade: Grade) -> Finding {
        Finding::new(grade, "/etc/hosts cannot be changed\u{1b}[2J", "chattr -i /etc/hosts")
    }

    #[test]
    fn a_fatal_finding_always_refuses_and_others_if_that_is_asked_for() {
        let found = Grade::ALL.iter().map(|grade| finding(*grade)).collect::<Vec<_>>();
        let grades = |strict| refused(&found, strict).iter().map(|one| one.grade).collect::<Vec<_>>();
        assert_eq!(grades(false), [Grade::Fatal]);
        assert_eq!(grades(true), [Grade::Fatal, Grade::Open, Grade::Broken]);
        assert!(refused(&found[3..], true).is_empty());
        let shown = lines(&refused(&found, false));
        assert_eq!(shown, "\n  fatal: /etc/hosts cannot be changed [2J; chattr -i /etc/hosts");
    }

    #[test]
    fn the_worst_are_kept_of_too_many() {
        let mut found = vec![finding(Grade::Note); 3 * MAX];
        found.push(finding(Grade::Fatal));
        let kept = kept(found, &greeting(2));
        assert_eq!((kept.len(), kept[0].grade), (MAX + 1, Grade::Fatal));
        assert_eq!(kept[MAX].what.as_str(), format!("{} more findings", 2 * MAX + 1));
    }

    #[test]
    fn an_old_agent_is_told_of_and_refused_nothing() {
        let found = kept(Vec::new(), &greeting(1));
        assert!(found[0].what.as_str().contains("version 1"), "{found:?}");
        assert!(refused(&found, true).is_empty());
        assert!(kept(Vec::new(), &greeting(2)).is_empty());
    }
}
