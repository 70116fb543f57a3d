//! Forks beside restores that copy all RAM.

use crate::{RUNS, report::Report};
use anyhow::Result;
use ramet::{
    agent::{Agent, AgentError},
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
    path::Path,
    time::{Duration, Instant},
};

/// The name of the template whose state is restored.
pub(crate) const TEMPLATE: &str = "middle";

/// A VM that holds the device state of a template, and RAM.
struct Restored {
    process: Process,
    qmp: Qmp,
    cid: u32,
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
        let full = dir.join("full.state");
        let shared = Ram::CopyOnWrite(template.file(files::RAM));
        let mut source = restore(&template, &dir, shared.clone(), &template.file(files::STATE)).await?;
        source.qmp.save_state("full.state", true, Duration::from_secs(600)).await?;
        source.process.kill()?;

        let mut runs: [Vec<u64>; 4] = Default::default();
        for run in 0..=RUNS {
            let kinds = [(shared.clone(), template.file(files::STATE)), (Ram::Anonymous, full.clone())];
            for (index, (ram, file)) in kinds.into_iter().enumerate() {
                let begin = Instant::now();
                let elapsed = || u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
                let mut restored = restore(&template, &dir, ram, &file).await?;
                restored.qmp.cont().await?;
                let resumed = elapsed();
                Agent::dial(restored.cid, Duration::from_secs(60), || Ok::<_, AgentError>(())).await?;
                let answered = elapsed();
                restored.process.kill()?;
                if run > 0 {
                    runs[index * 2].push(resumed);
                    runs[index * 2 + 1].push(answered);
                }
            }
        }
        process::kill(&dir).await?;
        fs::remove_dir_all(&dir)?;
        let [fork, fork_answered, copy, copy_answered] = runs;
        let fork = report.add("QEMU with copy-on-write RAM to resumed, 2G", "ms", fork);
        report.add("QEMU with copy-on-write RAM to the agent's first answer, 2G", "ms", fork_answered);
        let copy = report.add("QEMU that copies all RAM to resumed, 2G", "ms", copy);
        report.add("QEMU that copies all RAM to the agent's first answer, 2G", "ms", copy_answered);
        report.at_least("restore that copies all RAM : fork, 2 GiB, to resumed", (copy, fork), 5.0);
        Ok(())
    })
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
    let number = cid.cid();
    let vm = Vm {
        name: "bench",
        machine: &manifest.machine,
        memory: manifest.memory,
        cpus: manifest.cpus,
        ram,
        begin: Begin::Incoming,
        nics: &nics,
        cable: Cable::Unplugged,
        cid: number,
    };
    let mut process = Process::spawn(dir, &vm.argv(), cid, u64::MAX)?;
    let mut qmp = Qmp::connect_to_new(&mut process, dir).await?;
    qmp.load_state(state, with_ram, Duration::from_secs(600)).await?;
    Ok(Restored { process, qmp, cid: number })
}
