//! Forks beside restores that copy RAM.
//!
//! QEMU does not copy pages that are all zero, and most of a parent's are: it has only booted. So a restore of its state copies a
//! part of its RAM; one that copies all is of a guest that has used its memory.

use crate::{RUNS, report::Report};
use anyhow::{Context as _, Result};
use ramet::{
    net::NetSpec,
    qemu::{
        self,
        argv::{Begin, Cable, Ram, Vm},
        process::{self, Process},
        qmp::Qmp,
    },
    state::StateDir,
    template::{Template, files},
    vsock::ReservedCid,
};
use ramet_proto::MacAddr;
use ramet_tests::World;
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The name of the template whose state is restored.
pub(crate) const TEMPLATE: &str = "middle";

/// How long QEMU may take to write or to read all RAM.
const DEADLINE: Duration = Duration::from_secs(600);

/// A VM that holds the device state of a template, and RAM.
struct Restored {
    process: Process,
    qmp: Qmp,
}

/// The same QEMU with the same devices, stopped at the same line.
pub(crate) fn restores(world: &World, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let state = StateDir::open(world.state_dir())?;
        let template = Template::open(&state, &TEMPLATE.parse()?)?;
        // As deep as a child's: the overlay names its backing file by a relative path.
        let dir = world.state_dir().join("bench/one");
        fs::create_dir_all(&dir)?;
        let shared = Ram::CopyOnWrite(template.file(files::RAM));
        let booted = dir.join("booted.state");
        let mut source = restore(&template, &dir, shared.clone(), &template.file(files::STATE)).await?;
        source.qmp.save_state("booted.state", true, DEADLINE).await?;
        source.process.kill()?;
        let used = used_guest(world, &dir).await?;

        let kinds = [
            ("QEMU with copy-on-write RAM", shared, template.file(files::STATE)),
            ("QEMU that copies what a parent's RAM holds", Ram::Anonymous, booted),
            ("QEMU that copies all RAM", Ram::Anonymous, used),
        ];
        let mut resumed: [Vec<u64>; 3] = Default::default();
        for run in 0..=RUNS {
            for ((_, ram, file), times) in kinds.iter().zip(&mut resumed) {
                let begin = Instant::now();
                let mut restored = restore(&template, &dir, ram.clone(), file).await?;
                restored.qmp.cont().await?;
                let time = u64::try_from(begin.elapsed().as_millis())?;
                restored.process.kill()?;
                if run > 0 {
                    times.push(time);
                }
            }
        }
        for (what, _, file) in &kinds[1..] {
            report.add(&format!("{what}, 2G: its file"), "MiB", vec![fs::metadata(file)?.len() >> 20]);
        }
        process::kill(&dir).await?;
        fs::remove_dir_all(&dir)?;
        let mut medians = kinds
            .iter()
            .zip(resumed)
            .map(|((what, _, _), times)| report.add(&format!("{what}, 2G, to resumed"), "ms", times));
        let (fork, all) = (medians.next().context("a fork")?, medians.last().context("a restore")?);
        report.at_least("restore that copies all RAM : fork, 2 GiB, to resumed", (all, fork), 5.0);
        Ok(())
    })
}

/// The state and all RAM of a child of the template that has filled its memory, as a file in `dir`.
async fn used_guest(world: &World, dir: &Path) -> Result<PathBuf> {
    world.ok(["fork", TEMPLATE, "--name", "used"])?;
    eprintln!("bench: having a child of it use its memory");
    world.ssh("used", "mount -o remount,size=90% /dev/shm && yes | head -c 100M > /dev/shm/0")?;
    for part in 1..=5 {
        world.ssh("used", &format!("for copy in a b c; do cp /dev/shm/0 /dev/shm/{part}$copy; done"))?;
    }
    let mut qmp = Qmp::connect(&world.child_file("used", "")).await?;
    qmp.stop().await?;
    qmp.save_state("used.state", true, DEADLINE).await?;
    let state = dir.join("used.state");
    fs::rename(world.child_file("used", "used.state"), &state)?;
    world.remove(&["used"])?;
    Ok(state)
}

async fn restore(template: &Template, dir: &Path, ram: Ram, state: &Path) -> Result<Restored> {
    let disk = dir.join(qemu::files::DISK);
    fs::copy(template.file(files::OVERLAY), &disk)?;
    let mut permissions = fs::metadata(&disk)?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(&disk, permissions)?;
    let manifest = &template.manifest;
    let nics: Vec<(MacAddr, NetSpec)> = manifest.nics.iter().map(|nic| (nic.mac, nic.net.clone())).collect();
    let with_ram = ram == Ram::Anonymous || state.starts_with(dir);
    let cid = ReservedCid::take()?;
    let vm = Vm {
        name: "bench",
        machine: &manifest.machine,
        memory: manifest.memory,
        cpus: manifest.cpus,
        ram,
        begin: Begin::Incoming,
        nics: &nics,
        cable: Cable::Unplugged,
        cid: cid.cid(),
    };
    let mut process = Process::spawn(dir, &vm.argv(), cid, u64::MAX)?;
    let mut qmp = Qmp::connect_to_new(&mut process, dir).await?;
    qmp.load_state(state, with_ram, DEADLINE).await?;
    Ok(Restored { process, qmp })
}
