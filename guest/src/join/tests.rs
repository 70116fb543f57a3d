//! Trials with made-up programs.

use super::*;
use crate::apply::{
    domain::tests::account,
    tests::{Fake, template},
};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

fn guest(client: Client, limit: Duration, files: &[&str]) -> (TempDir, Root, Fake, Trial) {
    let (dir, root) = template();
    for path in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    let system = Fake::new();
    system.interfaces.borrow_mut()[0].addresses = vec!["192.0.2.7".parse().unwrap()];
    let trial = Trial::new(account(), client, &root, limit).unwrap();
    (dir, root, system, trial)
}

/// What comes of a trial that is asked to go on `times` at most.
fn over(trial: &mut Trial, root: &Root, system: &Fake, times: u32) -> Result<JoinEvidence, Failure> {
    for _ in 0..times {
        match trial.step(root, system, true) {
            Progress::Over(result) => return result,
            Progress::Next | Progress::Again => {}
        }
    }
    panic!("not over after {times} steps: {:?}", system.ran.borrow());
}

fn commands(evidence: &JoinEvidence) -> Vec<(&str, &str)> {
    evidence.checks.iter().map(|check| (check.command.as_str(), check.printed.as_str())).collect()
}

const KINIT: &str = "kinit -k -t /etc/krb5.keytab -c MEMORY: WEB-1$@AD.EXAMPLE.ORG";
const TEST_JOIN: &str = "net --debuglevel=0 ads testjoin -P";

#[test]
fn a_member_through_samba() {
    for (files, winbind) in
        [(&[][..], false), (&[WINBIND_IS_WANTED][..], true), (&[WINBIND_LISTENS][..], true)]
    {
        let (_dir, root, system, mut trial) = guest(Client::Samba, LONG, files);
        system.answer("net", Ok("Join is OK\n"));
        let evidence = over(&mut trial, &root, &system, 4).unwrap();
        let mut expected = vec![(KINIT, ""), (TEST_JOIN, "Join is OK")];
        expected.extend(winbind.then_some(("wbinfo -t", "")));
        assert_eq!(commands(&evidence), expected);
        let pinned = root.read_text(PINNED).unwrap().unwrap();
        assert_eq!(pinned, "[realms]\n\tAD.EXAMPLE.ORG = {\n\t\tkdc = dc1.ad.example.org\n\t}\n");
    }
}

#[test]
fn a_member_through_sssd_is_online() {
    let (_dir, root, system, mut trial) = guest(Client::Sssd, LONG, &SSSD_STATUS);
    system.answer("sssctl", Ok("Online status: Offline\n\n"));
    assert!(matches!(trial.step(&root, &system, true), Progress::Next));
    for _ in 0..11 {
        assert!(matches!(trial.step(&root, &system, true), Progress::Again));
    }
    let told = "systemctl kill --kill-who=main --signal=USR2 sssd.service";
    assert_eq!(system.ran.borrow().iter().filter(|line| *line == told).count(), 2, "not each time");
    system.answer("sssctl", Ok("Online status: Online\n\n"));
    let evidence = over(&mut trial, &root, &system, 2).unwrap();
    let status = "sssctl domain-status ad.example.org --online";
    assert_eq!(commands(&evidence), [(KINIT, ""), (status, "Online status: Online")]);

    for tools in [&[][..], &SSSD_STATUS[..1], &SSSD_STATUS[1..]] {
        let (_dir, root, system, mut trial) = guest(Client::Sssd, LONG, tools);
        assert_eq!(over(&mut trial, &root, &system, 2).unwrap().checks.len(), 1, "{tools:?} are not enough");
    }
}

#[test]
fn sssd_that_gave_up_is_started_again() {
    let (_dir, root, system, mut trial) = guest(Client::Sssd, LONG, &SSSD_STATUS);
    assert!(matches!(trial.step(&root, &system, true), Progress::Next));
    system.answer("sssctl", Err("SSSD needs to be running. Start SSSD now? (yes/no) [yes] "));
    for _ in 0..11 {
        assert!(matches!(trial.step(&root, &system, true), Progress::Again));
    }
    let told = "systemctl --no-block start sssd.service";
    assert_eq!(system.ran.borrow().iter().filter(|line| *line == told).count(), 2, "not each time");
    system.answer("sssctl", Ok("Online status: Online\n\n"));
    over(&mut trial, &root, &system, 2).unwrap();
}

#[test]
fn while_boot_goes_on_only_the_account_is_tried_and_no_time_runs_out() {
    let (_dir, root, system, mut trial) = guest(Client::Samba, Duration::ZERO, &[]);
    system.answer("kinit", Err("kinit: Cannot contact any KDC"));
    assert!(matches!(trial.step(&root, &system, false), Progress::Again));
    system.answer("kinit", Ok(""));
    assert!(matches!(trial.step(&root, &system, false), Progress::Next));
    for _ in 0..3 {
        assert!(matches!(trial.step(&root, &system, false), Progress::Again));
    }
    assert_eq!(system.ran.borrow().len(), 2, "{:?}", system.ran.borrow());
    let evidence = over(&mut trial, &root, &system, 2).unwrap();
    assert_eq!(evidence.checks.len(), 2);
    assert!(evidence.checks[0].after_ms <= evidence.checks[1].after_ms);
}

#[test]
fn nothing_is_run_without_a_network_and_what_cannot_be_reached_is_tried_again() {
    let (_dir, root, system, mut trial) = guest(Client::Samba, LONG, &[]);
    let interfaces = system.interfaces.take();
    assert!(matches!(trial.step(&root, &system, true), Progress::Again));
    assert!(system.ran.borrow().is_empty());
    *system.interfaces.borrow_mut() = interfaces;
    for said in [
        "kinit: Cannot contact any KDC for realm 'AD.EXAMPLE.ORG' while getting initial credentials",
        "kinit: Cannot resolve network address for KDC in realm \"AD.EXAMPLE.ORG\"",
    ] {
        system.answer("kinit", Err(said));
        assert!(matches!(trial.step(&root, &system, true), Progress::Again));
    }
    system.answer("kinit", Ok(""));
    over(&mut trial, &root, &system, 4).unwrap();
}

#[test]
fn the_controller_that_knows_the_account_has_the_last_word() {
    for said in [
        "kinit: Preauthentication failed while getting initial credentials",
        "kinit: Client 'WEB-1$@AD.EXAMPLE.ORG' not found in Kerberos database while getting initial credentials",
        "kinit: Client's credentials have been revoked while getting initial credentials",
        "kinit: Clock skew too great while getting initial credentials",
    ] {
        let (_dir, root, system, mut trial) = guest(Client::Samba, LONG, &[]);
        system.answer("kinit", Err("kinit: Cannot contact any KDC"));
        assert!(matches!(trial.step(&root, &system, true), Progress::Again));
        system.answer("kinit", Err(said));
        assert!(matches!(trial.step(&root, &system, true), Progress::Again), "another controller said it");
        let failure = over(&mut trial, &root, &system, 1).unwrap_err();
        assert_eq!((failure.step, failure.reason, failure.retryable), (Step::Join, Reason::Refused, false));
        assert!(failure.detail.as_str().ends_with(said), "{failure}");
    }
}

#[test]
fn it_ends_with_what_was_said_last() {
    let cannot = "kinit: Cannot contact any KDC for realm 'AD.EXAMPLE.ORG' while getting initial credentials";
    let refused = "kinit: Preauthentication failed while getting initial credentials";
    for (said, reason, retryable) in [(cannot, Reason::Timeout, true), (refused, Reason::Refused, false)] {
        let (_dir, root, system, mut trial) = guest(Client::Samba, Duration::ZERO, &[]);
        system.answer("kinit", Err(said));
        let failure = over(&mut trial, &root, &system, 1).unwrap_err();
        assert_eq!((failure.reason, failure.retryable), (reason, retryable));
        assert!(failure.detail.as_str().ends_with(said), "{failure}");
    }
    let (_dir, root, system, mut trial) = guest(Client::Samba, LONG, &[]);
    system.answer("kinit", Err("not found"));
    assert_eq!(over(&mut trial, &root, &system, 1).unwrap_err().reason, Reason::Missing);
}
