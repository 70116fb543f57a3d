//! Steps whose state only some guests have.

use super::*;
use ramet_proto::login::UserKeys;
use std::os::unix::fs::{MetadataExt as _, symlink};

/// Puts files into the root.
fn add(dir: &TempDir, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn value<'a>(evidence: &'a Evidence, name: &str) -> &'a str {
    let found = evidence.unique.iter().find(|one| one.name.as_str() == name);
    found.unwrap_or_else(|| panic!("no {name} in {:?}", evidence.unique)).value.as_str()
}

#[test]
fn each_time_there_is_another_boot_id() {
    let (dir, root) = template();
    let kernels = ("proc/sys/kernel/random/boot_id", "d9aa0fd3-dbbb-4b43-9b8d-8e5a5b5b5b5b\n");
    add(&dir, &[kernels]);
    let system = Fake::new();
    let mut seen = vec![kernels.1.trim().to_owned()];
    for _ in 0..2 {
        let id = apply_to(&root, &system, &identity()).unwrap().boot_id.unwrap().to_string();
        assert!(!seen.contains(&id), "{id} again");
        assert_eq!(value(&apply_to(&root, &system, &identity()).unwrap(), "pid1_boot_id").len(), 32);
        seen.push(id);
    }
    // What was named with any id that this machine went by is left alone.
    let kept = root.read_text("run/tmpfiles.d/ramet-boot-id.conf").unwrap().unwrap();
    for id in seen.iter().map(|id| id.replace('-', "")) {
        assert_eq!(kept.lines().filter(|line| line.contains(&id)).count(), 4, "{id} in {kept}");
    }
    system.broken.set("cover");
    let failure = apply_to(&root, &system, &identity()).unwrap_err();
    assert_eq!((failure.step, failure.reason), (Step::BootId, Reason::System));
}

#[test]
fn names_for_storage_are_made_where_there_is_storage() {
    let (dir, root) = template();
    let old = "## Do not change\nInitiatorName=iqn.2004-10.com.ubuntu:01:parent\n";
    let uuid = "d9aa0fd3-dbbb-4b43-9b8d-8e5a5b5b5b5b";
    let nqn = format!("nqn.2014-08.org.nvmexpress:uuid:{uuid}");
    add(
        &dir,
        &[("etc/iscsi/initiatorname.iscsi", old), ("etc/nvme/hostnqn", &nqn), ("etc/nvme/hostid", uuid)],
    );
    let system = Fake::new();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let evidence = apply_to(&root, &system, &identity()).unwrap();
        let initiator = value(&evidence, "iscsi_initiator").to_owned();
        let (prefix, number) = initiator.rsplit_once(':').unwrap();
        assert_eq!((prefix, number.len()), ("iqn.2004-10.com.ubuntu:01", 12));
        let hostid = value(&evidence, "nvme_hostid").to_owned();
        assert_eq!(value(&evidence, "nvme_hostnqn"), format!("nqn.2014-08.org.nvmexpress:uuid:{hostid}"));
        assert!(hostid != uuid && !seen.contains(&hostid) && !seen.contains(&initiator));
        seen.extend([hostid, initiator]);
    }
    let text = root.read_text("etc/iscsi/initiatorname.iscsi").unwrap().unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");

    // No name yet, but somebody to use it.
    let (dir, root) = template();
    add(&dir, &[("etc/iscsi/iscsid.conf", ""), ("usr/sbin/iscsid", "")]);
    let evidence = apply_to(&root, &Fake::new(), &identity()).unwrap();
    assert!(value(&evidence, "iscsi_initiator").starts_with("iqn.1993-08.org.debian:01:"));
    let mode = fs::metadata(dir.path().join("etc/iscsi/initiatorname.iscsi")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!dir.path().join("etc/nvme").exists());
}

#[test]
fn leases_and_secrets_of_the_network_go() {
    let (dir, root) = template();
    let gone = [
        "run/systemd/netif/leases/2",
        "run/systemd/netif/links/2",
        "var/lib/systemd/network/dhcp-server-lease/br0",
        "var/lib/NetworkManager/secret_key",
        "var/lib/NetworkManager/internal-d9aa0fd3-ens3.lease",
        "var/lib/NetworkManager/timestamps",
        "var/lib/NetworkManager/seen-bssids",
        "run/NetworkManager/internal-d9aa0fd3-ens3.lease",
        "var/lib/dhcp/dhclient.leases",
        "var/lib/dhcp/dhclient6.ens3.leases",
        "var/lib/dhclient/dhclient.leases",
        "var/lib/dhcpcd/secret",
        "var/lib/dhcpcd/ens3.lease",
        "var/lib/dhcpcd/ens3.lease6",
        "var/lib/dhcpcd5/dhcpcd-ens3.lease",
        "etc/dhcpcd.secret",
        "var/lib/wicked/duid.xml",
        "var/lib/wicked/lease-eth0-dhcp-ipv4.xml",
        "run/net-ens3.conf",
    ];
    let kept = [
        "var/lib/NetworkManager/NetworkManager.state",
        "var/lib/dhcp/dhcpd.leases",
        "etc/dhcpcd.conf",
        "var/lib/dhcpcd/rdm_monotonic",
    ];
    let secret = "proc/sys/net/ipv6/conf/default/stable_secret";
    add(&dir, &[(secret, "2001:db8::1\n"), ("var/lib/dhcpcd/duid", "00:04:parent\n")]);
    let system = Fake::new();
    let mut seen = vec!["2001:db8::1".to_owned(), "00:04:parent".to_owned()];
    for _ in 0..2 {
        add(&dir, &[gone, gone].concat().iter().map(|path| (*path, "x")).collect::<Vec<_>>());
        add(&dir, &kept.map(|path| (path, "x")));
        let evidence = apply_to(&root, &system, &identity()).unwrap();
        assert_eq!(gone.iter().find(|path| dir.path().join(path).exists()), None);
        assert_eq!(kept.iter().find(|path| !dir.path().join(path).exists()), None);
        let duid = value(&evidence, "dhcpcd_duid").to_owned();
        assert!(duid.starts_with("00:04:") && duid.split(':').count() == 18, "{duid}");
        let secret = root.read_text(secret).unwrap().unwrap();
        secret.parse::<std::net::Ipv6Addr>().unwrap();
        for new in [duid, secret] {
            assert!(!seen.contains(&new), "{new} again");
            seen.push(new);
        }
    }
}

#[test]
fn samba_gets_the_sid_and_no_samba_has_none() {
    let sid: ramet_proto::Sid = "S-1-5-21-1-2-3".parse().unwrap();
    let identity = Identity { machine_sid: Some(sid.clone()), ..identity() };
    let (dir, root) = template();
    let system = Fake::new();
    assert_eq!(apply_to(&root, &system, &identity).unwrap().machine_sid, None);
    assert_eq!(*system.sid.borrow(), "");

    add(&dir, &[("usr/bin/net", "")]);
    for _ in 0..2 {
        assert_eq!(apply_to(&root, &system, &identity).unwrap().machine_sid, Some(sid.clone()));
    }
    system.broken.set("set_local_sid");
    *system.sid.borrow_mut() = "S-1-5-21-9-9-9".into();
    let failure = apply_to(&root, &system, &identity).unwrap_err();
    assert_eq!((failure.step, failure.reason), (Step::Verify, Reason::Mismatch), "{failure}");
}

fn keys(user: &str, keys: &[&str]) -> UserKeys {
    UserKeys { user: user.parse().unwrap(), keys: keys.iter().map(|key| key.parse().unwrap()).collect() }
}

/// A passwd(5) with a user jane, who is whoever runs the test: giving files away takes root.
fn with_jane() -> (TempDir, Root) {
    let (dir, root) = template();
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let passwd = format!(
        "root:x:0:0:root:/root:/bin/sh\njane:x:{uid}:{gid}:Jane,,,:/home/jane:/bin/sh\nno:x:1:1::/no:\n"
    );
    add(&dir, &[("etc/passwd", &passwd)]);
    fs::create_dir_all(dir.path().join("home/jane")).unwrap();
    (dir, root)
}

#[test]
fn keys_of_a_user_take_the_place_of_the_templates() {
    let (dir, root) = with_jane();
    let path = dir.path().join("home/jane/.ssh/authorized_keys");
    let identity = Identity {
        authorized_keys: vec![keys("jane", &["ssh-ed25519 AAAAC3Nz jane", "ssh-rsa AAAAB3Nz"])],
        ..identity()
    };
    let system = Fake::new();
    for _ in 0..2 {
        apply_to(&root, &system, &identity).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "ssh-ed25519 AAAAC3Nz jane\nssh-rsa AAAAB3Nz\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        fs::write(&path, "ssh-ed25519 AAAAold template\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    }
}

#[test]
fn keys_that_cannot_be_placed_fail() {
    let (dir, root) = with_jane();
    let failed = |keys: &[UserKeys]| {
        let identity = Identity { authorized_keys: keys.to_vec(), ..identity() };
        let failure = apply_to(&root, &Fake::new(), &identity).unwrap_err();
        assert_eq!(failure.step, Step::AuthorizedKeys, "{failure}");
        failure.reason
    };
    assert_eq!(failed(&[keys("john", &[])]), Reason::Missing, "no such user");
    assert_eq!(failed(&[keys("no", &[])]), Reason::Missing, "no home directory");
    assert_eq!(failed(&[keys("jane", &[]), keys("jane", &[])]), Reason::Malformed);
    fs::remove_dir_all(dir.path().join("home/jane/.ssh")).unwrap();
    symlink("/etc", dir.path().join("home/jane/.ssh")).unwrap();
    assert_eq!(failed(&[keys("jane", &[])]), Reason::Mismatch, "a link to what is not the user's");
    assert!(!dir.path().join("etc/authorized_keys").exists());
}

/// An executable applier of the site.
fn applier(dir: &TempDir, name: &str, script: &str) -> std::path::PathBuf {
    let path = format!("etc/ramet/appliers.d/{name}");
    add(dir, &[(&path, &format!("#!/bin/sh\n{script}\n"))]);
    let path = dir.path().join(path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn appliers_of_the_site_run_in_order_and_are_told_who_this_is() {
    let (dir, root) = template();
    let heard = dir.path().join("heard");
    applier(&dir, "20-second", &format!("echo second >> {}", heard.display()));
    applier(
        &dir,
        "10-first",
        &format!("tee -a {} > /dev/null; echo >> {0}; echo minion_id=$$", heard.display()),
    );
    let (system, identity) = (Fake::new(), identity());
    for _ in 0..2 {
        let _ = fs::remove_file(&heard);
        let evidence = apply_to(&root, &system, &identity).unwrap();
        assert!(!value(&evidence, "site/10-first/minion_id").is_empty());
        let heard = fs::read_to_string(&heard).unwrap();
        let [told, "second"] = heard.lines().collect::<Vec<_>>()[..] else { panic!("{heard}") };
        let told: serde_json::Value = serde_json::from_str(told).unwrap();
        assert_eq!(told["hostname"], "web-1");
        assert_eq!(told["nics"][0]["mac"], mac(11).to_string());
        assert_eq!(told["instance_id"], identity.instance_id.to_string());
        assert!(told.get("entropy").is_none(), "{told}");
    }
}

#[test]
fn an_applier_that_fails_hangs_or_could_be_anybodys_ends_it() {
    let failed = |script: &str, spoil: &dyn Fn(&Path)| {
        let (dir, root) = template();
        add(&dir, &[("etc/ramet/agent.toml", "site_applier_timeout_seconds = 1\n")]);
        spoil(&applier(&dir, "x", script));
        let failure = apply_to(&root, &Fake::new(), &identity()).unwrap_err();
        assert_eq!(failure.step, Step::Site, "{failure}");
        failure.reason
    };
    let mode = |mode| move |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(failed("exit 3", &|_| {}), Reason::System);
    assert_eq!(failed("exec sleep 60", &|_| {}), Reason::Timeout);
    assert_eq!(failed("echo hello", &|_| {}), Reason::Mismatch);
    assert_eq!(failed("", &mode(0o644)), Reason::Mismatch, "not executable");
    assert_eq!(failed("", &mode(0o757)), Reason::Mismatch, "anybody can write it");
    assert_eq!(failed("", &|path| mode(0o777)(path.parent().unwrap())), Reason::Mismatch, "or replace it");
    let link = |path: &Path| {
        fs::remove_file(path).unwrap();
        symlink("/bin/true", path).unwrap();
    };
    assert_eq!(failed("", &link), Reason::Mismatch);
}

#[test]
fn cloud_init_finds_a_seed_of_the_child_and_a_network_that_is_not_its_own() {
    let (dir, root) = template();
    let seed = "var/lib/cloud/seed/nocloud";
    let (meta_data, user_data) = (format!("{seed}/meta-data"), format!("{seed}/user-data"));
    let golden = "instance-id: iid-golden-7\nlocal-hostname: golden\n";
    add(&dir, &[(&meta_data, golden), (&user_data, "#cloud-config\n"), ("etc/cloud/cloud.cfg.d/x.cfg", "")]);
    let (system, mut wanted) = (Fake::new(), identity());
    let network = dir.path().join("etc/cloud/cloud.cfg.d/99-ramet-network.cfg");
    for _ in 0..2 {
        apply_to(&root, &system, &wanted).unwrap();
        let text = root.read_text(&meta_data).unwrap().unwrap();
        assert_eq!(text, format!("instance-id: {}\nlocal-hostname: web-1\n", wanted.instance_id));
        assert_eq!(root.read_text(&user_data).unwrap().unwrap(), "#cloud-config\n");
        assert!(!network.exists());
        wanted.instance_id = InstanceId::random();
    }
    let settings = include_str!("../../../rootfs/usr/lib/ramet-agent/cloud.cfg");
    let keeps = [
        "preserve_hostname: true",
        "manage_etc_hosts: false",
        "ssh_deletekeys: false",
        "ssh_genkeytypes: []",
    ];
    assert!(keeps.iter().all(|line| settings.lines().any(|other| other == *line)), "{settings}");
}

#[test]
fn pid_1_goes_by_the_childs_machine_id_although_it_remembers_the_templates() {
    let (_dir, root) = template();
    let (system, wanted) = (Fake::new(), identity());
    *system.remembered.borrow_mut() = Some("0123456789abcdef0123456789abcdef".into());
    let evidence = apply_to(&root, &system, &wanted).unwrap();
    assert_eq!(value(&evidence, "pid1_machine_id"), wanted.machine_id.to_string());
    assert!(system.ran.borrow().iter().any(|line| line == "systemctl daemon-reexec"));
}
