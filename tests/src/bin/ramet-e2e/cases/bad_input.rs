//! What cannot be is refused, with the reason and what to do, and nothing is left of it.

use crate::Case;
use anyhow::{Context as _, Result, ensure};
use ramet_tests::{TEMPLATE, World, contains, failed, succeeded};
use std::{fs, process::Command};

pub(crate) const CASES: &[Case] = &[
    ("bad_input::disks_that_are_none", disks_that_are_none),
    ("bad_input::an_image_without_the_agent", an_image_without_the_agent),
    ("bad_input::names_that_are_taken_or_none", names_that_are_taken_or_none),
    ("bad_input::identities_that_cannot_be", identities_that_cannot_be),
    ("bad_input::a_log_filter_that_is_none", a_log_filter_that_is_none),
    ("bad_input::too_little_memory", too_little_memory),
    ("bad_input::a_full_disk", a_full_disk),
    ("bad_input::a_host_without_kvm_or_vsock", a_host_without_kvm_or_vsock),
    ("bad_input::no_qemu_or_an_old_one", no_qemu_or_an_old_one),
];

fn disks_that_are_none(world: &World) -> Result<()> {
    let files = tempfile::tempdir()?;
    let text = files.path().join("notes.txt");
    fs::write(&text, "not a disk\n".repeat(100))?;
    let truncated = files.path().join("truncated.qcow2");
    fs::write(&truncated, &fs::read(world.images.join("plain.qcow2"))?[..60])?;
    for (disk, why) in [
        (files.path().join("missing.qcow2"), "cannot read the disk image"),
        (files.path().to_owned(), "it is not a regular file"),
        (text, "is not a disk image"),
        (truncated, "is not a disk image"),
    ] {
        let disk = disk.to_str().context("a path")?;
        contains(&world.fails(["template", "create", "bad", "--disk", disk])?, why)?;
    }
    nothing_left_of_bad(world)
}

fn nothing_left_of_bad(world: &World) -> Result<()> {
    let left: Vec<_> = fs::read_dir(world.state_dir().join("templates"))?.filter_map(Result::ok).collect();
    ensure!(left.len() == 1, "{left:?}");
    Ok(())
}

fn an_image_without_the_agent(world: &World) -> Result<()> {
    let disk = world.images.join("plain.qcow2");
    let disk = disk.to_str().context("a path")?;
    let told =
        world.fails(["template", "create", "bad", "--memory", "256M", "--timeout", "25s", "--disk", disk])?;
    contains(&told, "is ramet-agent in the image, and enabled?")?;
    contains(&told, "the end of its console")?;
    contains(&told, "\n  | ")?;
    nothing_left_of_bad(world)
}

fn names_that_are_taken_or_none(world: &World) -> Result<()> {
    let disk = world.images.join("plain.qcow2");
    let disk = disk.to_str().context("a path")?;
    contains(
        &world.fails(["template", "create", TEMPLATE, "--disk", disk])?,
        "there is a template debian already",
    )?;
    for args in
        [&["fork", "de/bian"][..], &["rm", "../x"], &["fork", TEMPLATE, "--name", "a_b"], &["show", ""]]
    {
        let output = world.ramet(args).output()?;
        ensure!(output.status.code() == Some(2), "{args:?}: {output:?}");
    }
    contains(&world.fails(["fork", "nosuch"])?, "there is no template nosuch")?;
    for command in ["show", "console", "ssh", "stop", "start", "rm"] {
        contains(&world.fails([command, "nosuch"])?, "there is no child nosuch")?;
    }
    world.nothing_left()
}

fn identities_that_cannot_be(world: &World) -> Result<()> {
    let files = tempfile::tempdir()?;
    let parent = world.json(&["template", "show", TEMPLATE])?;
    let parent = parent["nics"][0]["mac"].as_str().context("a MAC address")?.to_owned();
    let parents_mac = format!("macs = [\"{parent}\", \"52:54:00:00:00:01\"]");
    for (text, why) in [
        ("hostnam = \"a\"", "unknown field `hostnam`"),
        ("hostname = \"a_b\"", "only letters, digits, hyphens and dots"),
        ("macs = [\"33:33:00:00:00:01\"]", "multicast"),
        ("machine_sid = \"S-1-5\"", "SID"),
        ("macs = [\"52:54:00:00:00:01\"]", "1 MAC addresses and the template 2 NICs"),
        (&parents_mac, "in use by the template debian"),
        ("macs = [\"52:54:00:00:00:01\", \"52:54:00:00:00:01\"]", "another NIC of the same child"),
        ("not toml", "is not an identity file"),
    ] {
        let file = files.path().join("identity.toml");
        fs::write(&file, text)?;
        let file = file.to_str().context("a path")?;
        contains(&world.fails(["fork", TEMPLATE, "--identity", file])?, why)?;
    }
    contains(&world.fails(["fork", TEMPLATE, "--identity", "/nonexistent"])?, "cannot read /nonexistent")?;
    world.nothing_left()
}

/// Told, and no reason not to do what was asked.
fn a_log_filter_that_is_none(world: &World) -> Result<()> {
    let output = world.ramet(["ls"]).env("RAMET_LOG", "ramet=loud").output()?;
    ensure!(output.status.success(), "{output:?}");
    contains(&String::from_utf8(output.stderr)?, "RAMET_LOG is not a filter such as ramet=debug")
}

fn too_little_memory(world: &World) -> Result<()> {
    let told = world.fails(["fork", TEMPLATE, "--count", "1000"])?;
    contains(&told, "too little memory: forking 1000 of debian needs about")?;
    let disk = world.images.join("plain.qcow2");
    let disk = disk.to_str().context("a path")?;
    let told = world.fails(["template", "create", "bad", "--memory", "512G", "--disk", disk])?;
    contains(&told, "too little memory")?;
    world.nothing_left()
}

fn a_full_disk(world: &World) -> Result<()> {
    let files = tempfile::tempdir()?;
    let small = files.path().to_str().context("a path")?;
    succeeded(Command::new("mount").args(["-t", "tmpfs", "-o", "size=100m", "none", small]))?;
    let disk = world.images.join("plain.qcow2");
    let told = failed(
        Command::new("ramet").args(["--state-dir", small, "template", "create", "bad", "--disk"]).arg(disk),
    );
    let left = fs::read_dir(files.path().join("templates")).map(Iterator::count);
    succeeded(Command::new("umount").arg(small))?;
    contains(&told?, "too little disk")?;
    ensure!(left? == 0, "something is left");
    Ok(())
}

/// `ramet` where `/dev` holds nothing but what `devices` makes.
fn in_bare_dev(world: &World, devices: &str, args: &str) -> Result<String> {
    let state = world.state_dir().to_str().context("a path")?;
    let script = format!(
        "mount -t tmpfs none /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9 && {devices} \
         exec ramet --state-dir {state} {args}"
    );
    failed(Command::new("unshare").args(["--mount", "sh", "-c", &script]))
}

fn a_host_without_kvm_or_vsock(world: &World) -> Result<()> {
    let kvm = fs::metadata("/dev/kvm")?;
    let number = std::os::unix::fs::MetadataExt::rdev(&kvm);
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff);
    contains(&in_bare_dev(world, "", "fork debian")?, "cannot open /dev/kvm: enable virtualization")?;
    let with_kvm = format!("mknod /dev/kvm c {major} {minor} &&");
    contains(&in_bare_dev(world, &with_kvm, "fork debian")?, "modprobe vhost_vsock")?;
    world.nothing_left()
}

fn no_qemu_or_an_old_one(world: &World) -> Result<()> {
    let files = tempfile::tempdir()?;
    let ramet = succeeded(Command::new("sh").args(["-c", "command -v ramet"]))?;
    let bare = |args: &[&str]| {
        let mut command = Command::new(ramet.trim());
        command.arg("--state-dir").arg(world.state_dir()).args(args).env("PATH", files.path());
        failed(&mut command)
    };
    contains(&bare(&["fork", TEMPLATE])?, "qemu-system-x86_64 is not on PATH: install QEMU 8.2 or newer")?;
    let old = files.path().join("qemu-system-x86_64");
    fs::write(&old, "#!/bin/sh\necho 'QEMU emulator version 7.2.9 (Debian 1:7.2)'\n")?;
    fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut doctor = Command::new(ramet.trim());
    doctor.args(["doctor"]).env("PATH", format!("{}:/usr/bin:/bin", files.path().display()));
    let output = doctor.output()?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    contains(&String::from_utf8(output.stdout)?, "7.2.9 is too old, 8.2.0 or newer is needed")?;
    world.nothing_left()
}
