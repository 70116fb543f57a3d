//! Templates: damaged ones give no children, whole ones never change.

use crate::Case;
use anyhow::{Context as _, Result, ensure};
use ramet::template::manifest::Manifest;
use ramet_tests::{TEMPLATE, World, contains, succeeded, until};
use std::{fs, os::unix::fs::FileExt as _, process::Command, time::Duration};

pub(crate) const CASES: &[Case] = &[
    ("template::damaged_ones_give_no_children", damaged_ones_give_no_children),
    ("template::one_made_elsewhere_gives_no_children", one_made_elsewhere_gives_no_children),
];

pub(crate) const LAST: &[Case] = &[
    ("template::the_parents_address_was_never_seen", the_parents_address_was_never_seen),
    ("template::no_bit_of_it_has_changed", no_bit_of_it_has_changed),
];

/// A second template of the same files.
fn linked(world: &World, name: &str) -> Result<()> {
    let (from, to) = (world.template_file(TEMPLATE, ""), world.template_file(name, ""));
    succeeded(Command::new("cp").arg("-al").arg(from).arg(to)).map(drop)
}

/// Replaces a file of a template by a copy of its own, so that it can be damaged.
fn own_copy(world: &World, name: &str, file: &str) -> Result<std::path::PathBuf> {
    let path = world.template_file(name, file);
    let copy = world.template_file(name, "copy");
    succeeded(Command::new("cp").args(["--sparse=always", "--preserve=timestamps"]).arg(&path).arg(&copy))?;
    fs::rename(copy, &path)?;
    Ok(path)
}

fn damaged_ones_give_no_children(world: &World) -> Result<()> {
    for file in ["ram", "state", "disk.qcow2", "overlay.qcow2", "manifest.json"] {
        linked(world, "damaged")?;
        let path = own_copy(world, "damaged", file)?;
        let bytes = fs::File::options().read(true).write(true).open(&path)?;
        let len = bytes.metadata()?.len();

        let mut byte = [0];
        bytes.read_exact_at(&mut byte, len / 2)?;
        bytes.write_all_at(&[!byte[0]], len / 2)?;
        refused(world, if file == "manifest.json" { "damaged" } else { "was altered" })?;

        bytes.set_len(len / 2)?;
        refused(world, if file == "manifest.json" { "damaged" } else { "bytes instead of" })?;

        fs::remove_file(&path)?;
        refused(world, if file == "manifest.json" { "cannot read" } else { "is missing" })?;
        world.ok(["template", "rm", "damaged"])?;
    }
    world.nothing_left()
}

fn refused(world: &World, why: &str) -> Result<()> {
    let told = world.fails(["fork", "damaged"])?;
    contains(&told, "the template damaged is damaged")?;
    contains(&told, why)?;
    contains(&told, "create it again")?;
    contains(&world.ok(["template", "ls"])?, "damaged")?;
    world.fails(["template", "verify", "damaged"]).map(drop)
}

fn one_made_elsewhere_gives_no_children(world: &World) -> Result<()> {
    linked(world, "foreign")?;
    let path = world.template_file("foreign", "manifest.json");
    let whole = Manifest::read(&path)?;
    let write = |manifest: &Manifest| -> Result<()> { Ok(manifest.write(&path)?) };

    let mut newer_qemu = whole.clone();
    newer_qemu.qemu = "99.0.0".parse()?;
    write(&newer_qemu)?;
    contains(&world.fails(["fork", "foreign"])?, "made by QEMU 99.0.0, this is the older")?;

    let mut other_cpu = whole.clone();
    other_cpu.cpu.model = "Some other CPU".into();
    write(&other_cpu)?;
    contains(&world.fails(["fork", "foreign"])?, "made on another CPU")?;

    let mut more_flags = whole.clone();
    more_flags.cpu.flags.push("future_extension".into());
    write(&more_flags)?;
    contains(&world.fails(["fork", "foreign"])?, "lacks what the template's guest uses: future_extension")?;

    let mut unknown_machine = whole.clone();
    unknown_machine.machine = "pc-q35-99.0".into();
    write(&unknown_machine)?;
    contains(&world.fails(["fork", "foreign"])?, "unsupported machine type")?;

    let mut no_bridge = whole;
    no_bridge.nics[0].net = "bridge=nosuchbr0".parse()?;
    write(&no_bridge)?;
    contains(&world.fails(["fork", "foreign"])?, "there is no bridge nosuchbr0")?;

    let newer = fs::read_to_string(&path)?.replace("\"version\":1", "\"version\":2");
    fs::write(&path, newer)?;
    contains(&world.fails(["fork", "foreign"])?, "has version 2, this ramet reads 1: use a newer ramet")?;
    world.ok(["template", "rm", "foreign"])?;
    world.nothing_left()
}

fn the_parents_address_was_never_seen(world: &World) -> Result<()> {
    let template = world.json(&["template", "show", TEMPLATE])?;
    for nic in template["nics"].as_array().context("nics")? {
        let mac = nic["mac"].as_str().context("a MAC address")?;
        let frames = world.network.frames(&format!("ether host {mac}"))?;
        ensure!(frames == 0, "{frames} frames with the parent's address {mac}");
    }
    // The record itself works: a child's request is in it.
    world.ok(["fork", TEMPLATE, "--name", "witness"])?;
    until(Duration::from_secs(60), || {
        ensure!(world.network.frames("udp port 67")? > 0, "no DHCP request was recorded");
        Ok(())
    })?;
    world.remove(&["witness"])
}

fn no_bit_of_it_has_changed(world: &World) -> Result<()> {
    world.ok(["template", "verify", TEMPLATE])?;
    let sums = world.sums()?;
    let made = world.shared_template()?;
    ensure!(sums == made, "it was\n{made}and is\n{sums}");
    world.ok(["template", "rm", TEMPLATE])?;
    let left: Vec<_> = fs::read_dir(world.state_dir().join("templates"))?.collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
