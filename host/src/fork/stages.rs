//! The stages of a fork. Each is a value; its step to the next stage consumes it, and undoes it when it fails.

use super::{
    ForkError,
    again::{self, AgainError, Expected},
    evidence::{self, Told},
};
use crate::{
    agent::{Agent, AgentError},
    child::{
        self,
        record::{Record, Stage},
    },
    domain,
    fs::{AtPath, FsError, remove_tree},
    name::Name,
    net::{self, NetSpec, tap_name},
    pool::{PoolError, Stores},
    qemu::{
        self,
        argv::{Begin, Cable, Ram, Vm, net_id},
        process::{self, Process},
        qmp::{Qmp, unless_paused},
    },
    state::StateDir,
    template::{self, Template},
    vsock::ReservedCid,
};
use ramet_proto::{
    InstanceId, MacAddr, Secret,
    domain::DomainIdentity,
    message::{GuestState, Identity, NicIdentity},
};
use std::{
    fs::{self, File, Permissions},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};
use tokio_util::sync::CancellationToken;

/// How long loading device state may take: it is under a megabyte.
const LOAD: Duration = Duration::from_secs(60);
/// How long a resumed guest's agent may take to answer. It did in the parent; beside many siblings that boot on few CPUs it
/// does when its turn comes.
const ANSWER: Duration = Duration::from_mins(3);
/// How long a guest may take to apply its identity.
const APPLY: Duration = Duration::from_mins(5);
/// How long a guest may take from its open gate to the end of its boot.
const BOOT: Duration = Duration::from_secs(600);
/// How long a guest may take to get a network and have its domain accept it. The agent itself gives up earlier.
const JOIN: Duration = Duration::from_secs(240);
/// Bytes of entropy for a child. The kernel's pool holds 32.
const ENTROPY: usize = 64;

/// What every stage has: the child's directory and record, and the lock that makes it this command's.
pub(crate) struct Seat<'a> {
    pub(crate) state: &'a StateDir,
    pub(crate) stores: &'a Stores,
    pub(crate) template: &'a Template,
    pub(crate) dir: PathBuf,
    pub(crate) record: Record,
    pub(crate) mine: File,
}

/// What a stage made, undone.
trait Undo {
    fn seat(&self) -> &Seat<'_>;

    async fn undo(self) -> Result<(), ForkError>;
}

/// Takes a step from `stage`, or undoes `stage` if the step fails or `stop` comes first.
async fn or_undo<S: Undo, T>(
    mut stage: S,
    stop: &CancellationToken,
    step: impl AsyncFnOnce(&mut S) -> Result<T, ForkError>,
) -> Result<(S, T), ForkError> {
    match stop.run_until_cancelled(step(&mut stage)).await.unwrap_or(Err(ForkError::Interrupted)) {
        Ok(value) => Ok((stage, value)),
        Err(error) => {
            let error = error.or_full(&stage.seat().dir);
            stage.undo().await?;
            Err(error)
        }
    }
}

/// Gives back the identity that is leased to `id`. Nothing is lost if that fails: whoever leases next on this host gives
/// back what children that are gone have left.
pub(crate) async fn give_back(state: &StateDir, stores: &Stores, id: InstanceId, why: &str) {
    let given = async { stores.get(state).await?.give_back(id, why).await };
    if let Err(error) = given.await {
        tracing::error!(
            "an identity was not given back, which ramet pool reconcile does: {}",
            crate::chain(&error)
        );
    }
}

impl Seat<'_> {
    async fn remove(self) -> Result<(), ForkError> {
        let Self { state, stores, dir, record: Record { name, pool, identity, .. }, .. } = self;
        remove_tree(&dir).map_err(|source| ForkError::Undo { name, source: Box::new(source.into()) })?;
        // Once nothing of the child is left: it could not be given to another before.
        if pool.is_some() {
            give_back(state, stores, identity.instance_id, "the fork failed").await;
        }
        Ok(())
    }

    async fn end_and_remove(self) -> Result<(), ForkError> {
        let killed = process::kill(&self.dir).await;
        killed.map_err(|error| ForkError::Undo {
            name: self.record.name.clone(),
            source: Box::new(error.into()),
        })?;
        self.remove().await
    }

    /// The template's NICs with the child's addresses.
    pub(crate) fn nics(&self) -> Vec<(MacAddr, NetSpec)> {
        let nets = self.template.manifest.nics.iter().map(|nic| nic.net.clone());
        self.record.identity.macs.iter().copied().zip(nets).collect()
    }

    /// Starts QEMU for the child.
    pub(crate) fn start_qemu(&mut self, ram: Ram, begin: Begin) -> Result<Process, ForkError> {
        // A guest knows by its new context id that it is a child, and how long it may wait for its identity.
        let cid = ReservedCid::take_other_than(self.template.manifest.cid)?;
        tracing::debug!(child = %self.record.name, cid = cid.cid(), "start QEMU");
        self.record.cid = cid.cid();
        self.record.write(&self.dir)?;
        let vm = Vm {
            name: self.record.name.as_str(),
            machine: &self.template.manifest.machine,
            memory: self.template.manifest.memory,
            cpus: self.template.manifest.cpus,
            ram,
            begin,
            nics: &self.nics(),
            cable: Cable::Plugged,
            cid: cid.cid(),
        };
        let largest = process::largest_file(self.template.manifest.disk_size, 0);
        Ok(Process::spawn(&self.dir, &vm.argv(), cid, largest)?)
    }

    /// Takes the cables out of the child's NICs. Whatever the guest sends by its template's address before it has its own
    /// goes nowhere. Only once device state is loaded: a virtio NIC takes its link's state from there.
    async fn unplug_cables(&self, qmp: &mut Qmp) -> Result<(), ForkError> {
        for index in 0..self.nics().len() {
            qmp.set_link(&net_id(index), false).await?;
        }
        Ok(())
    }

    /// Connects the child's NICs to their bridges, and puts the cables in: the guest sees its carrier come. Doing so twice
    /// is as once.
    async fn plug_cables(&self) -> Result<(), ForkError> {
        self.attach().await?;
        if self.nics().is_empty() {
            return Ok(());
        }
        // A connection of its own, for some milliseconds: QEMU talks to one at a time, and others ask it meanwhile whether
        // it has paused the guest.
        let mut qmp = Qmp::connect(&self.dir).await?;
        for index in 0..self.nics().len() {
            qmp.set_link(&net_id(index), true).await?;
        }
        Ok(())
    }

    /// Connects the child's NICs to their bridges. In a QEMU that began at the firmware the cables are in already.
    pub(crate) async fn attach(&self) -> Result<(), ForkError> {
        for (index, (_, net)) in self.nics().iter().enumerate() {
            if let NetSpec::Bridge(bridge) = net {
                net::attach(&tap_name(self.record.cid, index), bridge.as_str()).await?;
            }
        }
        Ok(())
    }

    /// Dials the guest's agent for as long as its QEMU lives.
    #[tracing::instrument(level = "debug", skip_all, fields(child = %self.record.name, cid = self.record.cid), err(level = "debug"))]
    pub(crate) async fn dial(&self, wait: Duration, during: &'static str) -> Result<Agent, ForkError> {
        let dialed = Agent::dial(self.record.cid, wait, || match process::running(&self.dir)? {
            Some(_) => Ok(()),
            None => Err(ForkError::Ended { during, console: child::console_tail(&self.dir, 8) }),
        });
        unless_paused(&self.dir, dialed).await?
    }

    /// Gives the guest its identity, checks what it reports, keeps that, connects its NICs, and lets its gate open.
    #[tracing::instrument(level = "debug", skip_all, fields(child = %self.record.name), err(level = "debug"))]
    pub(crate) async fn identify(&mut self, agent: &mut Agent) -> Result<(), ForkError> {
        let domain = self.domain().await?;
        let from = now_ns();
        let report = unless_paused(&self.dir, agent.identify(self.identity(from, domain)?, APPLY)).await?;
        let evidence = match report {
            Ok(evidence) => evidence,
            Err(error) => return Err(self.or_ended(error, "being given its identity").await),
        };
        let told =
            Told { identity: &self.record.identity, cid: self.record.cid, exchange_ns: (from, now_ns()) };
        evidence::check_steps(&evidence, &self.record.identity, agent.greeting.version)?;
        evidence::check(&evidence, &told)?;
        {
            // Under the lock: of two siblings with the same report, the second to come finds the first's.
            let lock = self.state.lock()?;
            evidence::compare(&self.record.name, &evidence, &child::records(self.state, &lock)?)?;
            self.record.evidence = Some(evidence);
            self.record.timings_ms.identified.get_or_insert(self.record.elapsed_ms());
            self.record.write(&self.dir)?;
        }
        child::write_known_hosts(&self.dir, &self.record)?;
        if self.record.pool.is_some() {
            self.stores.get(self.state).await?.in_use(self.record.identity.instance_id).await?;
        }
        self.plug_cables().await?;
        agent.open().await?;
        self.record.stage = Stage::Identified;
        Ok(self.record.write(&self.dir)?)
    }

    /// Waits for the end of the guest's boot, and looks whether the child is still who it was when its gate opened.
    pub(crate) async fn ready(&mut self, agent: &mut Agent) -> Result<(), ForkError> {
        let is_new = self.record.stage < Stage::Ready;
        let at_ms = self.booted(agent).await?;
        if is_new {
            self.look_again(agent).await?;
        }
        self.is_ready(agent, at_ms).await
    }

    /// Waits for the end of the boot of a child that has been its user's: what it shows is the user's business.
    pub(crate) async fn ready_again(&mut self, agent: &mut Agent) -> Result<(), ForkError> {
        let at_ms = self.booted(agent).await?;
        self.is_ready(agent, at_ms).await
    }

    #[tracing::instrument(level = "debug", skip_all, fields(child = %self.record.name), err(level = "debug"))]
    async fn booted(&self, agent: &mut Agent) -> Result<u64, ForkError> {
        self.follow(agent).await?;
        let deadline = tokio::time::Instant::now() + BOOT;
        while let Err(error) = unless_paused(&self.dir, agent.ready(BOOT)).await? {
            self.redial(agent, error, deadline, "finishing its boot").await?;
        }
        Ok(self.record.elapsed_ms())
    }

    /// Past the gate another process of the agent's answers than at it: dials that, once the other has hung up.
    async fn follow(&self, agent: &mut Agent) -> Result<(), ForkError> {
        const DURING: &str = "opening its gate";
        if !agent.leaves() {
            return Ok(());
        }
        if let Err(error) = unless_paused(&self.dir, agent.farewell(APPLY)).await? {
            return Err(self.or_ended(error, DURING).await);
        }
        *agent = self.dial_past_gate(DURING).await?;
        Ok(())
    }

    /// Dials an agent that has hung up, which it does when it is started again, until `deadline`. Any other error, and the
    /// end of the child, is one.
    async fn redial(
        &self,
        agent: &mut Agent,
        error: AgentError,
        deadline: tokio::time::Instant,
        during: &'static str,
    ) -> Result<(), ForkError> {
        let hung_up = matches!(error, AgentError::Io(_));
        if !hung_up
            || tokio::time::Instant::now() > deadline
            || self.ends_within(Duration::from_secs(2)).await
        {
            return Err(self.or_ended(error, during).await);
        }
        *agent = self.dial_past_gate(during).await?;
        self.ask_to_join(agent).await;
        Ok(())
    }

    async fn dial_past_gate(&self, during: &'static str) -> Result<Agent, ForkError> {
        let agent = self.dial(ANSWER, during).await?;
        match agent.greeting.state {
            GuestState::Open { instance_id } | GuestState::Ready { instance_id }
                if instance_id == self.record.identity.instance_id =>
            {
                Ok(agent)
            }
            state => Err(AgentError::NotOpen(state).into()),
        }
    }

    /// Asks the child once more who it is: what its image starts past the gate may have made it another one.
    #[tracing::instrument(level = "debug", skip_all, fields(child = %self.record.name), err(level = "debug"))]
    async fn look_again(&self, agent: &mut Agent) -> Result<(), ForkError> {
        // Children that another ramet has begun may have no report.
        let Some(first) = &self.record.evidence else { return Ok(()) };
        let parents: Vec<_> = self.template.manifest.nics.iter().map(|nic| nic.mac).collect();
        let expected = Expected { identity: &self.record.identity, first, parents: &parents };
        let deadline = tokio::time::Instant::now() + ANSWER;
        loop {
            match unless_paused(&self.dir, again::look(agent, &expected)).await? {
                Ok(()) => return Ok(()),
                Err(AgainError::Agent(error)) => {
                    self.redial(agent, error, deadline, "being looked at again").await?;
                }
                Err(error @ AgainError::Evidence(_)) => return Err(error.into()),
            }
        }
    }

    async fn is_ready(&mut self, agent: &mut Agent, at_ms: u64) -> Result<(), ForkError> {
        self.record.timings_ms.ready.get_or_insert(at_ms);
        self.record.stage = Stage::Ready;
        self.record.write(&self.dir)?;
        // It need not be asked again, should nobody wait for it now.
        if agent.has_joined() { self.join(agent).await } else { Ok(()) }
    }

    /// Waits until the guest has tried its domain account, if it has one.
    #[tracing::instrument(level = "debug", skip_all, fields(child = %self.record.name), err(level = "debug"))]
    pub(crate) async fn join(&mut self, agent: &mut Agent) -> Result<(), ForkError> {
        if !self.joins() {
            return Ok(());
        }
        let deadline = tokio::time::Instant::now() + JOIN;
        let (evidence, ago) = loop {
            match unless_paused(&self.dir, agent.join(JOIN)).await? {
                Ok(joined) => break joined,
                Err(error) => self.redial(agent, error, deadline, "trying its domain account").await?,
            }
        };
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        self.record.joined = Some(evidence);
        self.record.timings_ms.joined.get_or_insert(self.record.elapsed_ms().saturating_sub(ago));
        Ok(self.record.write(&self.dir)?)
    }

    /// Whether it has a domain account that it has not tried yet.
    fn joins(&self) -> bool {
        self.record.identity.domain.is_some() && self.record.joined.is_none()
    }

    /// The account that is leased to the child, with its keys. From here on the guest may have seen them.
    async fn domain(&self) -> Result<Option<DomainIdentity>, ForkError> {
        if self.record.pool.is_none() {
            return Ok(None);
        }
        let store = self.stores.get(self.state).await?;
        let password = store.hand_over(self.record.identity.instance_id, self.record.cid).await?;
        let (account, password) = match (&self.record.identity.domain, password) {
            (Some(account), Some(password)) => (account, password),
            (None, None) => return Ok(None),
            (Some(_), None) | (None, Some(_)) => {
                let what = format!("it and the record of {} differ on an account", self.record.name);
                return Err(PoolError::Damaged { what }.into());
            }
        };
        let domain = store.domain_of(account).await?;
        let made = u32::try_from(now_ns() / 1_000_000_000).unwrap_or_default();
        let identity = domain::identity(&domain, account.clone(), &password, made);
        let damaged = |why| PoolError::Damaged { what: crate::chain(&why) };
        Ok(Some(identity.map_err(damaged)?))
    }

    fn identity(&self, now: i64, domain: Option<DomainIdentity>) -> Result<Identity, ForkError> {
        let mut entropy = vec![0; ENTROPY];
        getrandom::fill(&mut entropy).map_err(|_| ForkError::Random)?;
        let identity = &self.record.identity;
        let parents = self.template.manifest.nics.iter().map(|nic| nic.mac);
        let ips = identity.ip.iter().cloned().chain(std::iter::repeat(None));
        Ok(Identity {
            instance_id: identity.instance_id,
            hostname: identity.hostname.clone(),
            machine_id: identity.machine_id,
            nics: parents
                .zip(&identity.macs)
                .zip(ips)
                .map(|((parent, mac), ip)| NicIdentity { parent, mac: *mac, ip })
                .collect(),
            machine_sid: Some(identity.machine_sid.clone()),
            domain,
            authorized_keys: identity.authorized_keys.clone(),
            entropy: Secret::new(entropy),
            unix_time_ns: now,
        })
    }

    /// A guest that powers itself off hangs up, and says why on its console.
    async fn or_ended(&self, error: AgentError, during: &'static str) -> ForkError {
        let hung_up = matches!(error, AgentError::Io(_));
        if hung_up && self.ends_within(Duration::from_secs(30)).await {
            return ForkError::Ended { during, console: child::console_tail(&self.dir, 8) };
        }
        error.into()
    }

    /// Whether the child's QEMU is gone, or goes in a moment.
    async fn ends_within(&self, moment: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + moment;
        while !matches!(process::running(&self.dir), Ok(None)) {
            if tokio::time::Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    /// Goes on with a child that another command has left, until it is ready, with nobody there to hear of a failure:
    /// the record says why. A child that gets no identity is ended; one that has it is its user's, and stays.
    pub(crate) async fn finish(mut self) -> Result<(), ForkError> {
        let identified = match self.record.stage {
            Stage::Resumed => self.dial_and_identify().await,
            Stage::Identified | Stage::Ready => self.dial(ANSWER, "finishing its boot").await,
            Stage::Reserved | Stage::Failed => return Ok(()),
        };
        let finished = async {
            let mut agent = identified?;
            self.ask_to_join(&mut agent).await;
            self.ready(&mut agent).await?;
            self.join(&mut agent).await
        };
        let finished = finished.await;
        let finished = finished.map_err(|error| error.or_full(&self.dir));
        if let Err(error) = &finished {
            if self.record.stage == Stage::Resumed {
                process::kill(&self.dir).await?;
                self.record.stage = Stage::Failed;
            }
            self.record.failure = Some(crate::chain(error));
            self.record.write(&self.dir)?;
        }
        finished
    }

    /// Lets another process of `ramet` go on with this child; the lock goes over without a gap.
    fn hand_over(self) -> Result<Record, ForkError> {
        let log = self.dir.join("finish.log");
        let mut command = Command::new(std::env::current_exe().map_err(ForkError::Background)?);
        command.arg("--state-dir").arg(self.state.root()).arg("finish").arg(self.record.name.as_str());
        self.stores.pass_on(&mut command);
        command.stdin(Stdio::from(self.mine)).stdout(Stdio::null());
        command.stderr(File::create(&log).at("create", &log)?).process_group(0);
        command.spawn().map_err(ForkError::Background)?;
        Ok(self.record)
    }
}

/// The host's wall clock in nanoseconds since 1970-01-01T00:00:00Z.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A child with a name, an identity and a directory.
pub struct Reserved<'a>(Seat<'a>);

impl<'a> Reserved<'a> {
    /// Makes the child's directory with its record. The caller holds the state's lock.
    pub fn new(
        state: &'a StateDir,
        stores: &'a Stores,
        template: &'a Template,
        record: Record,
    ) -> Result<Self, ForkError> {
        let (dir, mine) = child::create(state, &record)?;
        Ok(Self(Seat { state, stores, template, dir, record, mine }))
    }

    /// The child's name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.0.record.name
    }

    /// Removes the directory. The identity is the caller's to give back.
    pub fn undo_now(self) {
        if let Err(error) = remove_tree(&self.0.dir) {
            tracing::error!(%error, "undo");
        }
    }

    /// Makes the overlay, starts QEMU and loads the parent's device state.
    pub async fn spawn(self, stop: &CancellationToken) -> Result<Spawned<'a>, ForkError> {
        let (Self(seat), process) = or_undo(self, stop, async |Self(seat): &mut Self| {
            let (from, to) = (seat.template.file(template::files::OVERLAY), seat.dir.join(qemu::files::DISK));
            let copy = || -> Result<(), FsError> {
                fs::copy(&from, &to).at("copy", &from)?;
                fs::set_permissions(&to, Permissions::from_mode(0o600)).at("make writable", &to)
            };
            copy()?;
            let ram = Ram::CopyOnWrite(seat.template.file(template::files::RAM));
            seat.start_qemu(ram, Begin::Incoming)
        })
        .await?;
        let spawned = Spawned { seat, process };
        let (spawned, qmp) = or_undo(spawned, stop, async |spawned: &mut Spawned<'_, Process>| {
            let mut qmp = Qmp::connect_to_new(&mut spawned.process, &spawned.seat.dir).await?;
            let manifest = &spawned.seat.template.manifest;
            if qmp.version < manifest.qemu {
                return Err(ForkError::QemuOlder { theirs: manifest.qemu, ours: qmp.version });
            }
            qmp.load_state(&spawned.seat.template.file(template::files::STATE), false, LOAD).await?;
            Ok(qmp)
        })
        .await?;
        Ok(Spawned { seat: spawned.seat, process: (spawned.process, qmp) })
    }
}

impl Undo for Reserved<'_> {
    fn seat(&self) -> &Seat<'_> {
        &self.0
    }

    async fn undo(self) -> Result<(), ForkError> {
        self.0.remove().await
    }
}

/// A child whose QEMU runs and, with a [`Qmp`], holds the parent's device state.
pub struct Spawned<'a, P = (Process, Qmp)> {
    seat: Seat<'a>,
    process: P,
}

impl<'a> Spawned<'a> {
    /// Lets the virtual CPUs run, with no NIC connected.
    pub async fn resume(self, stop: &CancellationToken) -> Result<Resumed<'a>, ForkError> {
        let (Self { seat, .. }, ()) =
            or_undo(self, stop, async |Self { seat, process: (_, qmp) }: &mut Self| {
                seat.unplug_cables(qmp).await?;
                // Recorded first: a child whose CPUs may have run is never taken for one whose CPUs have not.
                seat.record.stage = Stage::Resumed;
                seat.record.write(&seat.dir)?;
                qmp.cont().await?;
                seat.record.timings_ms.resumed = Some(seat.record.elapsed_ms());
                Ok(())
            })
            .await?;
        Ok(Resumed(seat))
    }
}

impl<P> Undo for Spawned<'_, P> {
    fn seat(&self) -> &Seat<'_> {
        &self.seat
    }

    async fn undo(self) -> Result<(), ForkError> {
        self.seat.end_and_remove().await
    }
}

/// A child whose virtual CPUs run and whose guest is held at its gate.
pub struct Resumed<'a>(Seat<'a>);

impl<'a> Resumed<'a> {
    /// Gives the child its identity and lets its gate open.
    pub async fn identify(self, stop: &CancellationToken) -> Result<Identified<'a>, ForkError> {
        let (Self(seat), agent) =
            or_undo(self, stop, async |Self(seat): &mut Self| seat.dial_and_identify().await).await?;
        Ok(Identified { seat, agent })
    }

    /// Leaves the child to a process in the background, which goes on with it.
    pub fn hand_over(self) -> Result<Record, ForkError> {
        self.0.record.write(&self.0.dir)?;
        self.0.hand_over()
    }

    /// Ends the child and removes it.
    pub async fn undo(self) -> Result<(), ForkError> {
        Undo::undo(self).await
    }
}

impl Seat<'_> {
    async fn dial_and_identify(&mut self) -> Result<Agent, ForkError> {
        let mut agent = self.dial(ANSWER, "resuming").await?;
        self.identify(&mut agent).await?;
        if self.joins() {
            self.follow(&mut agent).await?;
            self.ask_to_join(&mut agent).await;
        }
        Ok(agent)
    }

    /// Asks for what [`Seat::join`] waits for. Should that fail, whoever waits next hears why.
    async fn ask_to_join(&self, agent: &mut Agent) {
        if self.joins() {
            let _ = agent.ask_to_join().await;
        }
    }
}

impl Undo for Resumed<'_> {
    fn seat(&self) -> &Seat<'_> {
        &self.0
    }

    async fn undo(self) -> Result<(), ForkError> {
        self.0.end_and_remove().await
    }
}

/// A child with its identity; its gate is open.
pub struct Identified<'a> {
    seat: Seat<'a>,
    /// The conversation in which it got its identity.
    agent: Agent,
}

impl<'a> Identified<'a> {
    /// Waits until the child's boot is complete.
    pub async fn ready(self, stop: &CancellationToken) -> Result<Ready<'a>, ForkError> {
        let (Self { seat, agent }, ()) =
            or_undo(self, stop, async |Self { seat, agent }: &mut Self| seat.ready(agent).await).await?;
        Ok(Ready { seat, agent })
    }

    /// Leaves the child to a process in the background, which waits for the end of its boot.
    pub fn hand_over(self) -> Result<Record, ForkError> {
        self.seat.hand_over()
    }

    /// Ends the child and removes it.
    pub async fn undo(self) -> Result<(), ForkError> {
        Undo::undo(self).await
    }
}

impl Undo for Identified<'_> {
    fn seat(&self) -> &Seat<'_> {
        &self.seat
    }

    async fn undo(self) -> Result<(), ForkError> {
        self.seat.end_and_remove().await
    }
}

/// A child whose boot is complete.
pub struct Ready<'a> {
    seat: Seat<'a>,
    agent: Agent,
}

impl<'a> Ready<'a> {
    /// Whether there is a domain account to be tried.
    #[must_use]
    pub fn joins(&self) -> bool {
        self.seat.joins()
    }

    /// Waits until the child's domain accepts it.
    pub async fn join(self, stop: &CancellationToken) -> Result<Joined<'a>, ForkError> {
        let (Self { seat, .. }, ()) =
            or_undo(self, stop, async |Self { seat, agent }: &mut Self| seat.join(agent).await).await?;
        Ok(Joined(seat))
    }

    /// Lets go of the child; where there is something left to wait for, to a process in the background.
    pub fn hand_over(self) -> Result<Record, ForkError> {
        if self.joins() { self.seat.hand_over() } else { Ok(self.seat.record) }
    }

    /// Ends the child and removes it.
    pub async fn undo(self) -> Result<(), ForkError> {
        Undo::undo(self).await
    }
}

impl Undo for Ready<'_> {
    fn seat(&self) -> &Seat<'_> {
        &self.seat
    }

    async fn undo(self) -> Result<(), ForkError> {
        self.seat.end_and_remove().await
    }
}

/// A child whose boot is complete and whose domain accepts it.
pub struct Joined<'a>(Seat<'a>);

impl Joined<'_> {
    /// Lets go of the child.
    #[must_use]
    pub fn hand_over(self) -> Record {
        self.0.record
    }

    /// Ends the child and removes it.
    pub async fn undo(self) -> Result<(), ForkError> {
        self.0.end_and_remove().await
    }
}
