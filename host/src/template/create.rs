//! Making a template: boot a parent to its gate, suspend it, keep what it was.
//!
//! Everything happens in a hidden directory that is renamed at the end, when the manifest is in it and all of it is on
//! disk: a template exists whole or not at all. What a killed command leaves there is removed by the next one.

use super::{
    Template, files, findings,
    manifest::{FileRecord, Files, Manifest, ManifestError, TemplateNic},
};
use crate::{
    Progress,
    admission::{self, AdmissionError, CpuModel},
    agent::{Agent, AgentError, Greeting},
    console,
    fs::{AtPath, FsError, is_full, remove_tree, sweep, sync_dir},
    identity::{self, IdentityError, InUse},
    lock,
    name::Name,
    net::NetSpec,
    qemu::{
        self,
        argv::{Begin, Cable, Ram, Vm},
        img::{self, ImgError},
        process::{self, Process, ProcessError},
        qmp::{Qmp, QmpError, unless_paused},
        version,
    },
    state::StateDir,
    vsock::{ReservedCid, VsockError},
};
use nix::fcntl::{FallocateFlags, fallocate};
use ramet_proto::message::Finding;
use std::{
    fs::{self, File, Permissions},
    io,
    os::{fd::AsFd as _, unix::fs::DirBuilderExt as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// How long a parent may take to get ready to be suspended, once it is at the gate. Its agent gives up before.
const PREPARE: Duration = Duration::from_secs(300);
/// How long saving device state may take: it is under a megabyte.
const SAVE: Duration = Duration::from_secs(60);
/// How long QEMU may take to quit.
const QUIT: Duration = Duration::from_secs(60);

/// What a template is to be made of.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its name.
    pub name: Name,
    /// The disk image, in any format that qemu-img reads. It is copied.
    pub disk: PathBuf,
    /// Bytes of RAM.
    pub memory: u64,
    /// Virtual CPUs.
    pub cpus: u32,
    /// NICs.
    pub nets: Vec<NetSpec>,
    /// How long the parent may take to boot to its gate.
    pub timeout: Duration,
    /// Refuse whatever the agent finds in the image that is more than a note.
    pub strict: bool,
}

/// Why no template was made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The name is taken.
    #[error("there is a template {0} already: remove it (ramet template rm {0}) or choose another name")]
    Exists(Name),
    /// Somebody makes it right now.
    #[error("another ramet is creating the template {0} right now")]
    Busy(Name),
    /// RAM of a size that cannot be.
    #[error("a parent needs between 64 MiB and 1 TiB of memory, in whole MiB")]
    Memory,
    /// CPUs in a number that cannot be.
    #[error("a parent needs between 1 and 255 CPUs")]
    Cpus,
    /// The host cannot do it.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// The disk image is none, or cannot be copied.
    #[error(transparent)]
    Image(#[from] ImgError),
    /// There is no room for RAM.
    #[error(
        "cannot set aside {} MiB for the parent's RAM in {} (make room there, or try less with --memory)",
        .bytes >> 20,
        .path.display()
    )]
    Ram {
        /// Bytes.
        bytes: u64,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// QEMU is too old.
    #[error("QEMU {0} is too old, {oldest} or newer is needed", oldest = version::OLDEST)]
    QemuTooOld(version::QemuVersion),
    /// No context id.
    #[error(transparent)]
    Vsock(#[from] VsockError),
    /// No MAC address.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// QEMU did not run.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// QEMU did not do as it was told.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The parent's agent.
    #[error("the parent did not come to its gate{}", console_lines(.console))]
    Agent {
        /// What it was.
        #[source]
        source: AgentError,
        /// The last lines on the parent's console.
        console: Vec<String>,
    },
    /// The image boots in no way that there is.
    #[error(
        "{} boots by UEFI only, which Ramet does not do yet: its first sector has no boot code, and its GPT an EFI system \
         partition but no BIOS boot partition; install a boot loader for BIOS in the image (grub-install --target=i386-pc)",
        .0.display()
    )]
    UefiOnly(PathBuf),
    /// What the agent found in it.
    #[error("no template can be made of this image until this is mended:{}", findings::lines(.0))]
    Unfit(Vec<Finding>),
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The manifest could not be written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// There was no room for what was tried.
    #[error("failed while the file system of {} was full (make room there, then try again)", dir.display())]
    Full {
        /// A directory on it.
        dir: PathBuf,
        /// What failed.
        #[source]
        source: Box<CreateError>,
    },
    /// The user did not want it any more.
    #[error("interrupted; nothing is left of the template")]
    Interrupted,
}

fn console_lines(lines: &[String]) -> String {
    if lines.is_empty() {
        return " and wrote nothing to its console".to_owned();
    }
    format!("; the end of its console:\n  | {}\n", lines.join("\n  | "))
}

impl From<AgentError> for CreateError {
    fn from(source: AgentError) -> Self {
        Self::Agent { source, console: Vec::new() }
    }
}

impl CreateError {
    /// Says so if there is no room left in `dir`. To be asked before undoing makes room.
    fn or_full(self, dir: &Path) -> Self {
        match self {
            Self::Interrupted | Self::Qmp(QmpError::NoSpace(_)) => self,
            error if is_full(dir) => Self::Full { dir: dir.to_owned(), source: Box::new(error) },
            error => error,
        }
    }
}

/// Makes a template. On any error, and when `cancel` is, nothing is left of it.
pub async fn create(
    state: &StateDir,
    request: &Request,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Template, CreateError> {
    const MIB: u64 = 1 << 20;
    if !(64..=MIB).contains(&(request.memory / MIB)) || !request.memory.is_multiple_of(MIB) {
        return Err(CreateError::Memory);
    }
    if !(1..=255).contains(&request.cpus) {
        return Err(CreateError::Cpus);
    }
    let disk = img::inspect(&request.disk).await?;
    admission::check_create(request.memory, disk.actual_size, state.root())?;
    let workshop = Workshop::open(state, request).map_err(|error| error.or_full(&state.templates()))?;
    let work = async {
        let macs = workshop.prepare(state, request).await?;
        workshop.build(request, disk.virtual_size, &macs, progress).await
    };
    let result = cancel.run_until_cancelled(work).await;
    match result.unwrap_or(Err(CreateError::Interrupted)) {
        Ok(manifest) => {
            let dir = workshop.publish(state)?;
            Ok(Template { name: request.name.clone(), dir, manifest })
        }
        Err(error) => {
            let error = error.or_full(&workshop.dir);
            progress.say("undoing");
            workshop.clear().await?;
            Err(error)
        }
    }
}

/// The hidden directory in which one template is made.
struct Workshop {
    name: Name,
    dir: PathBuf,
    /// Held until the template is whole or undone.
    _lock: File,
}

const LOCK: &str = "lock";

/// The beginning of the disk, while it is looked at.
const HEAD: &str = "head.raw";

impl Workshop {
    fn open(state: &StateDir, request: &Request) -> Result<Self, CreateError> {
        let name = request.name.clone();
        let _guard = state.lock()?;
        sweep(&state.templates())?;
        if state.template(&name).exists() {
            return Err(CreateError::Exists(name));
        }
        let dir = state.templates().join(format!(".creating-{name}"));
        let made = fs::DirBuilder::new().mode(0o700).create(&dir);
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result.at("create", &dir)?,
        }
        let Some(mine) = lock::attempt(&dir.join(LOCK))? else { return Err(CreateError::Busy(name)) };
        Ok(Self { name, dir, _lock: mine })
    }

    /// Makes the directory empty, and chooses the parent's addresses.
    async fn prepare(
        &self,
        state: &StateDir,
        request: &Request,
    ) -> Result<Vec<ramet_proto::MacAddr>, CreateError> {
        // Whoever was killed here may have left a parent that takes a while to end.
        self.clear_leftovers().await?;
        let guard = state.lock()?;
        let parents = super::parent_macs(state, &guard)?;
        let children = crate::child::identities(state, &guard)?;
        let in_use = InUse { children, parents };
        Ok(request.nets.iter().map(|_| identity::random_mac(&in_use)).collect::<Result<_, _>>()?)
    }

    /// Ends and removes what a killed command left, all but the lock.
    async fn clear_leftovers(&self) -> Result<(), CreateError> {
        process::kill(&self.dir).await?;
        for entry in fs::read_dir(&self.dir).at("list", &self.dir)? {
            let entry = entry.at("list", &self.dir)?;
            if entry.file_name() != LOCK {
                fs::remove_file(entry.path()).at("remove", &entry.path())?;
            }
        }
        Ok(())
    }

    async fn clear(self) -> Result<(), CreateError> {
        process::kill(&self.dir).await?;
        Ok(remove_tree(&self.dir)?)
    }

    fn publish(self, state: &StateDir) -> Result<PathBuf, CreateError> {
        let dir = state.template(&self.name);
        // Without this, another create could take the directory for leftovers once the lock file is gone.
        let _guard = state.lock()?;
        let lock = self.dir.join(LOCK);
        fs::remove_file(&lock).at("remove", &lock)?;
        fs::rename(&self.dir, &dir).at("publish", &dir)?;
        sync_dir(&state.templates())?;
        Ok(dir)
    }

    async fn build(
        &self,
        request: &Request,
        disk_size: u64,
        macs: &[ramet_proto::MacAddr],
        progress: &Progress,
    ) -> Result<Manifest, CreateError> {
        if img::boots_by_uefi_only(&request.disk, &self.dir.join(HEAD)).await? {
            return Err(CreateError::UefiOnly(request.disk.clone()));
        }
        progress.say("copying the disk");
        img::convert(&request.disk, &self.dir.join(files::DISK)).await?;
        let nics: Vec<_> = macs.iter().copied().zip(request.nets.iter().cloned()).collect();
        let parent = self.boot(request, disk_size, &nics, progress).await?;
        progress.say("keeping RAM, disk and device state");
        let backing = format!("../../templates/{}/{}", self.name, files::DISK);
        img::create_overlay(&backing, disk_size, &self.dir.join(files::OVERLAY)).await?;
        self.keep_only_the_template()?;
        let dir = self.dir.clone();
        let files = tokio::task::spawn_blocking(move || seal(&dir)).await.map_err(io::Error::other);
        let files = files.at("read", &self.dir)??;
        let manifest = Manifest {
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            qemu: parent.qemu,
            machine: parent.machine,
            cpu: CpuModel::of_this_host()?,
            memory: request.memory,
            cpus: request.cpus,
            disk_size,
            nics: nics.into_iter().map(|(mac, net)| TemplateNic { mac, net }).collect(),
            agent: parent.greeting.agent,
            protocol: Some(parent.greeting.version),
            features: parent.greeting.features,
            cid: Some(parent.cid),
            findings: parent.findings,
            files,
        };
        let path = self.dir.join(files::MANIFEST);
        manifest.write(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o400)).at("make read-only", &path)?;
        Ok(manifest)
    }

    /// Boots the parent, suspends it at its gate, saves its device state and ends it.
    async fn boot(
        &self,
        request: &Request,
        disk_size: u64,
        nics: &[(ramet_proto::MacAddr, NetSpec)],
        progress: &Progress,
    ) -> Result<Parent, CreateError> {
        const ALIAS: &str = "q35";
        reserve_ram(&self.dir.join(files::RAM), request.memory)?;
        let cid = ReservedCid::take()?;
        let number = cid.cid();
        let vm = Vm {
            name: self.name.as_str(),
            machine: ALIAS,
            memory: request.memory,
            cpus: request.cpus,
            ram: Ram::Shared(files::RAM.into()),
            begin: Begin::Boot,
            nics,
            cable: Cable::Unplugged,
            cid: number,
        };
        progress.say("booting the parent to its gate");
        let largest = process::largest_file(disk_size, request.memory);
        let mut process = Process::spawn(&self.dir, &vm.argv(), cid, largest)?;
        let mut qmp = Qmp::connect_to_new(&mut process, &self.dir).await?;
        if qmp.version < version::OLDEST {
            return Err(CreateError::QemuTooOld(qmp.version));
        }
        let version = qmp.version;
        let machine = qmp.machine_type(ALIAS).await?;
        // QEMU talks to one at a time.
        drop(qmp);
        let with_console = |error| match error {
            CreateError::Agent { source, .. } => CreateError::Agent {
                source,
                console: console::tail(&self.dir.join(qemu::files::CONSOLE_LOG), 12),
            },
            other => other,
        };
        let dialed = Agent::dial(number, request.timeout, || process.check().map_err(CreateError::from));
        let mut agent = unless_paused(&self.dir, dialed).await?.map_err(with_console)?;
        progress.say("suspending the parent");
        let prepared = unless_paused(&self.dir, agent.prepare(PREPARE)).await?;
        let found = prepared.map_err(|error| with_console(error.into()))?;
        let findings = findings::kept(found, &agent.greeting);
        let refused = findings::refused(&findings, request.strict);
        if !refused.is_empty() {
            return Err(CreateError::Unfit(refused));
        }
        let mut qmp = Qmp::connect(&self.dir).await?;
        qmp.stop().await?;
        let greeting = agent.greeting.clone();
        let parent = Parent { qemu: version, machine, greeting, cid: number, findings };
        drop(agent);
        qmp.save_state(files::STATE, false, SAVE).await?;
        qmp.quit().await?;
        let deadline = Instant::now() + QUIT;
        while process::running(&self.dir)?.is_some() {
            if Instant::now() > deadline {
                return Err(QmpError::Deadline("quit").into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(parent)
    }

    fn keep_only_the_template(&self) -> Result<(), CreateError> {
        const KEEP: [&str; 5] = [files::RAM, files::STATE, files::DISK, files::OVERLAY, LOCK];
        for entry in fs::read_dir(&self.dir).at("list", &self.dir)? {
            let entry = entry.at("list", &self.dir)?;
            if !KEEP.iter().any(|keep| entry.file_name() == *keep) {
                fs::remove_file(entry.path()).at("remove", &entry.path())?;
            }
        }
        Ok(())
    }
}

/// What is known of a parent that was suspended.
struct Parent {
    qemu: version::QemuVersion,
    machine: String,
    greeting: Greeting,
    cid: u32,
    findings: Vec<Finding>,
}

/// Makes the RAM file with its space set aside, so that a full disk is an error here and not a killed parent later.
fn reserve_ram(path: &Path, bytes: u64) -> Result<(), CreateError> {
    let failed = |source| CreateError::Ram { bytes, path: path.to_owned(), source };
    let file = File::options().write(true).create_new(true).open(path).map_err(failed)?;
    let len = i64::try_from(bytes).map_err(|error| failed(io::Error::other(error)))?;
    fallocate(file.as_fd(), FallocateFlags::empty(), 0, len).map_err(|errno| failed(errno.into()))
}

/// Gives back the space that the parent never wrote to, makes everything durable and read-only, and takes digests.
fn seal(dir: &Path) -> Result<Files, FsError> {
    let ram = dir.join(files::RAM);
    // First on disk, so that what was never written can be told for sure.
    File::open(&ram).and_then(|file| file.sync_all()).at("sync", &ram)?;
    super::digest::dig_holes(&ram)?;
    let record = |name: &str| {
        let path = dir.join(name);
        File::open(&path).and_then(|file| file.sync_all()).at("sync", &path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o400)).at("make read-only", &path)?;
        FileRecord::of(&path)
    };
    Ok(Files {
        ram: record(files::RAM)?,
        state: record(files::STATE)?,
        disk: record(files::DISK)?,
        overlay: record(files::OVERLAY)?,
    })
}
