//! Stopping children and starting them again.

use super::{Child, ChildError, State, record::Record, record::Stage, take};
use crate::{
    Progress,
    admission::{self, AdmissionError},
    agent::{Agent, AgentError},
    fork::{ForkError, stages::Seat},
    name::Name,
    pool::Stores,
    qemu::{
        argv::{Begin, Ram},
        process::{self, ProcessError},
        qmp::Qmp,
    },
    state::StateDir,
    template::{Template, TemplateError},
};
use ramet_proto::message::GuestState;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Why a child was not stopped or started.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// It cannot be worked on.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// It never became an individual.
    #[error("{name} never got its identity ({state}): remove it (ramet rm {name}) and fork again", state = .state.word())]
    NoIndividual {
        /// Which child.
        name: Name,
        /// What it is.
        state: State,
    },
    /// It runs already.
    #[error("{0} is running already")]
    Running(Name),
    /// The host cannot do it.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// Its template cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// It did not come up.
    #[error("{name} did not start and was ended; its disk is as the guest left it")]
    Start {
        /// Which child.
        name: Name,
        /// Why.
        #[source]
        source: Box<ForkError>,
    },
    /// Its process did not end.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// How a child came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was not running.
    Already,
    /// The guest shut down when its power button was pressed.
    ShutDown,
    /// It was ended, since it did not shut down in time or was not asked to.
    Killed,
}

/// Stops a child: presses its power button and waits up to `timeout` for the guest to shut down, then ends it.
pub async fn stop(state: &StateDir, name: &Name, timeout: Duration) -> Result<Stopped, LifecycleError> {
    let _mine = take(state, name)?;
    let dir = state.child(name);
    if process::running(&dir).map_err(ChildError::from)?.is_none() {
        return Ok(Stopped::Already);
    }
    let asked = async { Qmp::connect(&dir).await?.power_button().await };
    // A QEMU that does not answer can still be ended.
    if !timeout.is_zero() && asked.await.is_ok() {
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            if process::running(&dir).map_err(ChildError::from)?.is_none() {
                return Ok(Stopped::ShutDown);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    process::kill(&dir).await?;
    Ok(Stopped::Killed)
}

/// Boots a stopped child from its own disk, with memory of its own and the identity it has. Returns its record when
/// its boot is complete, and how long that took. A child that does not come up is ended.
pub async fn start(
    state: &StateDir,
    stores: &Stores,
    name: &Name,
    timeout: Duration,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<(Record, Duration), LifecycleError> {
    let mine = take(state, name)?;
    let Child { dir, record, .. } = Child { state: State::Working, ..found(state, name)? };
    let template = Template::read(state, &record.template)?;
    admission::check_devices()?;
    admission::check_memory(&format!("starting {name}"), template.manifest.memory)?;
    let begin = Instant::now();
    let mut seat = Seat { state, stores, template: &template, dir, record, mine };
    let booted = cancel.run_until_cancelled(boot(&mut seat, timeout, progress)).await;
    match booted.unwrap_or(Err(ForkError::Interrupted)) {
        Ok(()) => Ok((seat.record, begin.elapsed())),
        Err(source) => {
            process::kill(&seat.dir).await?;
            Err(LifecycleError::Start { name: name.clone(), source: Box::new(source) })
        }
    }
}

/// The child, if it can be started. This command holds its lock.
fn found(state: &StateDir, name: &Name) -> Result<Child, LifecycleError> {
    let dir = state.child(name);
    let record = Record::read(&dir).map_err(ChildError::from)?;
    if process::running(&dir).map_err(ChildError::from)?.is_some() {
        return Err(LifecycleError::Running(name.clone()));
    }
    let state = super::state_of(record.stage, true, false);
    match state {
        State::Stopped => Ok(Child { dir, record, state, pid: None }),
        state => Err(LifecycleError::NoIndividual { name: name.clone(), state }),
    }
}

async fn boot(seat: &mut Seat<'_>, timeout: Duration, progress: &Progress) -> Result<(), ForkError> {
    // What it is from here on, should this command be killed. Its QEMU's start writes the record.
    seat.record.stage = Stage::Identified;
    seat.record.failure = None;
    let mut process = seat.start_qemu(Ram::Anonymous, Begin::Boot)?;
    Qmp::connect_to_new(&mut process, &seat.dir).await?;
    // The hardware has the child's own addresses from here on, and no template's state is loaded.
    seat.attach().await?;
    progress.say(&format!("booting {}", seat.record.name));
    let mut agent: Agent = seat.dial(timeout, "booting").await?;
    let ours = seat.record.identity.instance_id;
    match agent.greeting.state {
        // It was ended before it had all of its identity: it gets the same again.
        GuestState::Held => {
            seat.identify(&mut agent).await?;
            return seat.ready(&mut agent).await;
        }
        GuestState::Open { instance_id } | GuestState::Ready { instance_id } if instance_id == ours => {}
        state @ (GuestState::Open { .. } | GuestState::Ready { .. }) => {
            return Err(AgentError::NotHeld(state).into());
        }
    }
    seat.ready_again(&mut agent).await
}
