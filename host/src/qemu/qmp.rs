//! QEMU's control socket (QMP): the few commands a fork needs, each with a deadline.

use super::{files, process::Process, process::ProcessError, version::QemuVersion};
use crate::patience;
use qapi::{
    futures::{QapiStream, QmpStreamTokio},
    qmp,
};
use std::{io, path::Path, path::PathBuf, time::Duration};
use tokio::{
    io::{ReadHalf, WriteHalf},
    net::UnixStream,
    time::{Instant, sleep, timeout_at},
};

/// How long QEMU may take to answer a command. Even nested in an emulated host it takes milliseconds.
const ANSWER: Duration = Duration::from_secs(30);

/// Between two looks at what QEMU is about to have done, the least and the most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// Between two looks at whether QEMU has paused the guest. A look takes its time from the guest.
const LOOK: Duration = Duration::from_secs(5);

/// Why QEMU did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// It ended while it started.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It cannot be reached.
    #[error("cannot reach QEMU at {path}")]
    Connect {
        /// Its control socket.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It refused.
    #[error("QEMU failed to {action}")]
    Refused {
        /// What it was told, as a verb.
        action: &'static str,
        /// Its answer.
        #[source]
        source: qapi::ExecuteError,
    },
    /// It did not answer in time.
    #[error("QEMU did not {0} in time")]
    Deadline(&'static str),
    /// Saving or loading device state failed.
    #[error("QEMU failed to {action} device state: {why}")]
    Migration {
        /// `save` or `load`.
        action: &'static str,
        /// In its words.
        why: String,
    },
    /// The guest's disk cannot grow.
    #[error(
        "QEMU has paused the guest, since the file system of {} is full: make room there, then try again",
        .0.display()
    )]
    NoSpace(PathBuf),
}

/// Waits for `step` of the guest in `dir`, but not when QEMU has paused it: by default QEMU does that when a write to
/// the guest's disk finds no space on the host (qemu(1), `werror=enospc`). A paused guest would never answer.
pub async fn unless_paused<T>(dir: &Path, step: impl Future<Output = T>) -> Result<T, QmpError> {
    let paused = async {
        loop {
            sleep(LOOK).await;
            // A QEMU that cannot be asked is another failure, which `step` finds out.
            let Ok(mut qemu) = Qmp::connect(dir).await else { continue };
            while let Ok(now) = qemu.execute("tell its state", qmp::query_status {}).await {
                if now.status == qmp::RunState::io_error {
                    return;
                }
                sleep(LOOK).await;
            }
        }
    };
    tokio::select! {
        biased;
        result = step => Ok(result),
        () = paused => Err(QmpError::NoSpace(dir.to_owned())),
    }
}

/// A connection to a running QEMU.
pub struct Qmp {
    stream: QapiStream<QmpStreamTokio<ReadHalf<UnixStream>>, QmpStreamTokio<WriteHalf<UnixStream>>>,
    /// What QEMU says it is.
    pub version: QemuVersion,
}

impl Qmp {
    /// Connects to the QEMU that `process` in `dir` has just become, as soon as it listens.
    pub async fn connect_to_new(process: &mut Process, dir: &Path) -> Result<Self, QmpError> {
        let begin = Instant::now();
        loop {
            match Self::connect(dir).await {
                Ok(qmp) => return Ok(qmp),
                Err(error) => {
                    process.check()?;
                    if begin.elapsed() > ANSWER {
                        return Err(error);
                    }
                }
            }
            sleep(patience::pause(begin, PAUSES.0, PAUSES.1)).await;
        }
    }

    /// Connects to the QEMU of the VM in `dir`.
    pub async fn connect(dir: &Path) -> Result<Self, QmpError> {
        let failed = |source| QmpError::Connect { path: dir.join(files::QMP).display().to_string(), source };
        let deadline = Instant::now() + ANSWER;
        let negotiated = timeout_at(deadline, async {
            let stream = QmpStreamTokio::open(super::connect(dir, files::QMP).await?).await?;
            let version = stream.capabilities.QMP.version.qemu.clone();
            Ok::<_, io::Error>((stream.negotiate().await?, version))
        });
        let (stream, version) = negotiated.await.map_err(|_| QmpError::Deadline("greet"))?.map_err(failed)?;
        let part = |number: i64| u16::try_from(number).unwrap_or(u16::MAX);
        let version = QemuVersion {
            major: part(version.major),
            minor: part(version.minor),
            micro: part(version.micro),
        };
        Ok(Self { stream, version })
    }

    async fn execute<C>(&mut self, action: &'static str, command: C) -> Result<C::Ok, QmpError>
    where
        C: qapi::Command + qmp::QmpCommand,
    {
        tracing::debug!(command = C::NAME, "QMP");
        let answer = tokio::time::timeout(ANSWER, self.stream.execute(command)).await;
        let answer = answer.map_err(|_| QmpError::Deadline(action))?;
        answer.map_err(|source| QmpError::Refused { action, source })
    }

    /// Suspends the VM: its CPUs stop and its disk is flushed.
    pub async fn stop(&mut self) -> Result<(), QmpError> {
        self.execute("stop", qmp::stop {}).await.map(drop)
    }

    /// Resumes the VM.
    pub async fn cont(&mut self) -> Result<(), QmpError> {
        self.execute("resume", qmp::cont {}).await.map(drop)
    }

    /// Ends QEMU; the guest is not asked.
    pub async fn quit(&mut self) -> Result<(), QmpError> {
        self.execute("quit", qmp::quit {}).await.map(drop)
    }

    /// Presses the power button.
    pub async fn power_button(&mut self) -> Result<(), QmpError> {
        self.execute("press the power button", qmp::system_powerdown {}).await.map(drop)
    }

    /// Puts the cable of a network's NIC in or takes it out: the guest sees its carrier come or go, and without one QEMU
    /// drops frames of both directions.
    pub async fn set_link(&mut self, net: &str, up: bool) -> Result<(), QmpError> {
        let action = if up { "connect a NIC" } else { "disconnect a NIC" };
        self.execute(action, qmp::set_link { name: net.to_owned(), up }).await.map(drop)
    }

    /// The addresses that the VM's NICs receive for, which are the guest's own. Not every backend can tell them.
    pub async fn macs(&mut self) -> Result<Vec<String>, QmpError> {
        let filters = self.execute("tell its NICs' addresses", qmp::query_rx_filter { name: None }).await?;
        Ok(filters.into_iter().map(|filter| filter.main_mac).collect())
    }

    /// The versioned machine type that `alias` stands for, or `alias` itself.
    pub async fn machine_type(&mut self, alias: &str) -> Result<String, QmpError> {
        let query = qmp::query_machines { compat_props: None };
        let machines = self.execute("list machine types", query).await?;
        let named = machines.into_iter().find(|machine| machine.alias.as_deref() == Some(alias));
        Ok(named.map_or_else(|| alias.to_owned(), |machine| machine.name))
    }

    /// Writes device state to `file` (relative to QEMU's working directory). With `ram` also the RAM's content, which
    /// otherwise stays in its shared file alone. The VM must be stopped.
    pub async fn save_state(&mut self, file: &str, ram: bool, deadline: Duration) -> Result<(), QmpError> {
        self.prepare_migration(!ram).await?;
        let migrate =
            qmp::migrate { uri: Some(format!("file:{file}")), channels: None, detach: None, resume: None };
        self.execute("save device state", migrate).await?;
        self.migrated("save", deadline).await
    }

    /// Loads device state from `file`, an absolute path. The VM stays stopped.
    pub async fn load_state(&mut self, file: &Path, ram: bool, deadline: Duration) -> Result<(), QmpError> {
        self.prepare_migration(!ram).await?;
        let uri = Some(format!("file:{}", file.display()));
        let incoming = qmp::migrate_incoming { uri, channels: None, exit_on_error: Some(false) };
        self.execute("load device state", incoming).await?;
        self.migrated("load", deadline).await
    }

    async fn prepare_migration(&mut self, ignore_shared: bool) -> Result<(), QmpError> {
        let capability = qmp::MigrationCapabilityStatus {
            capability: qmp::MigrationCapability::x_ignore_shared,
            state: ignore_shared,
        };
        let set = qmp::migrate_set_capabilities { capabilities: vec![capability] };
        self.execute("set migration capabilities", set).await?;
        // A child must not be announced by its parent's address, and a local file takes what it can.
        let parameters = serde_json::json!({ "announce-rounds": 0, "max-bandwidth": i64::MAX / 2 });
        let parameters: qmp::migrate_set_parameters =
            serde_json::from_value(parameters).expect("constant parameters of the schema");
        self.execute("set migration parameters", parameters).await.map(drop)
    }

    async fn migrated(&mut self, action: &'static str, deadline: Duration) -> Result<(), QmpError> {
        let begin = Instant::now();
        loop {
            let info = self.execute("tell how migration goes", qmp::query_migrate {}).await?;
            match info.status {
                Some(qmp::MigrationStatus::completed) => return Ok(()),
                Some(qmp::MigrationStatus::failed | qmp::MigrationStatus::cancelled) => {
                    let why = info.error_desc.unwrap_or_else(|| "no reason given".to_owned());
                    return Err(QmpError::Migration { action, why });
                }
                _ if begin.elapsed() > deadline => return Err(QmpError::Deadline("finish migration")),
                _ => sleep(patience::pause(begin, PAUSES.0, PAUSES.1)).await,
            }
        }
    }
}
