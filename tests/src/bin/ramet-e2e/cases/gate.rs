//! Nobody gets in before the identity: not by sshd, not by the console, not over the network.

use crate::Case;
use anyhow::{Context as _, Result, ensure};
use ramet::{
    agent::{Agent, AgentError},
    child::record::{Record, now_ms},
    fork::stages::Reserved,
    identity::{IdentityFile, InUse, complete},
    pool::Stores,
    state::StateDir,
    template::Template,
};
use ramet_proto::AGENT_PORT;
use ramet_tests::{TEMPLATE, World, until};
use std::{fs, io, time::Duration};
use tokio_util::sync::CancellationToken;
use tokio_vsock::{VsockAddr, VsockStream};

pub(crate) const CASES: &[Case] =
    &[("gate::nobody_gets_in_before_the_identity", nobody_gets_in_before_the_identity)];

/// How long a held child is looked at: longer than it needs from its open gate to its prompts.
const LOOK: Duration = Duration::from_secs(8);

fn nobody_gets_in_before_the_identity(world: &World) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let never = CancellationToken::new();
        let state = StateDir::open(world.state_dir())?;
        let stores = Stores::default();
        let template = Template::open(&state, &TEMPLATE.parse()?)?;
        let nics = template.manifest.nics.len();
        let name: ramet::name::Name = "held".parse()?;
        let identity = complete(&name, nics, &IdentityFile::default(), &InUse::default())?;
        let record = Record::new(name.clone(), template.name.clone(), identity.clone(), now_ms());
        let resumed =
            Reserved::new(&state, &stores, &template, record)?.spawn(&never).await?.resume(&never).await?;

        let cid = Record::read(&state.child(&name))?.cid;
        let frames = || world.network.frames(&format!("ether src {}", template.manifest.nics[0].mac));
        let end = tokio::time::Instant::now() + LOOK;
        while tokio::time::Instant::now() < end {
            let refused = VsockStream::connect(VsockAddr::new(cid, 22)).await;
            let error = refused.err().context("sshd answers on vsock before the identity")?;
            ensure!(
                matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionReset
                        | io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::TimedOut
                ),
                "{error}"
            );
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        // As any user of the host can: from a port that takes no privilege.
        let anybody = VsockStream::connect(VsockAddr::new(cid, AGENT_PORT)).await;
        let answer = Agent::greet(anybody.context("the agent listens")?).await;
        ensure!(matches!(answer, Err(AgentError::Io(_))), "the agent heeds any user of the host: {answer:?}");
        let console = fs::read_to_string(world.child_file("held", "console.log")).unwrap_or_default();
        ensure!(!console.contains("login"), "the console prompts before the identity:\n{console}");
        ensure!(frames()? == 0, "the parent's address was seen on the wire");
        ensure!(
            world.network.frames(&format!("ether src {}", identity.macs[0]))? == 0,
            "a held child sent frames"
        );

        let identified = resumed.identify(&never).await?;
        let ready = identified.ready(&never).await?;
        drop(ready.hand_over());
        Ok::<_, anyhow::Error>(())
    })?;
    ensure!(world.ssh("held", "uname -n")? == "held");
    until(Duration::from_secs(30), || {
        let console = fs::read_to_string(world.child_file("held", "console.log"))?;
        ensure!(
            console.contains("held login:"),
            "no prompt with the child's name on its console:\n{console}"
        );
        Ok(())
    })?;
    world.remove(&["held"])?;
    world.nothing_left()
}
