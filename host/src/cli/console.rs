//! `ramet console`

use anyhow::{Context as _, bail};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use ramet::{
    child::Child,
    name::Name,
    qemu::{self, files},
    state::StateDir,
};
use std::{
    io::{IsTerminal as _, Stdin, stdin},
    process::ExitCode,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The child
    child: Name,
    /// Print what the console has shown so far, and return
    #[arg(long)]
    log: bool,
}

/// Ctrl-], as telnet has it.
const ESCAPE: u8 = 0x1d;

pub(crate) async fn run(state: &StateDir, args: &Args) -> anyhow::Result<ExitCode> {
    let child = Child::find(state, &args.child)?;
    if args.log {
        let path = child.file(files::CONSOLE_LOG);
        let log = tokio::fs::read(&path).await.with_context(|| format!("cannot read {}", path.display()))?;
        tokio::io::stdout().write_all(&log).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if child.pid.is_none() {
        bail!("{} is not running; what its console showed: ramet console --log {0}", args.child);
    }
    let console = qemu::connect(&child.dir, files::CONSOLE).await;
    let console = console.with_context(|| format!("cannot attach to the console of {}", args.child))?;
    let terminal = Raw::enter()?;
    if terminal.is_some() {
        eprint!("attached to {}, detach with Ctrl-]\r\n", args.child);
    }
    attach(console, terminal.is_some()).await?;
    drop(terminal);
    Ok(ExitCode::SUCCESS)
}

/// Carries bytes both ways until the console ends, or the escape is typed. When stdin ends, the console is still
/// shown: the answer to what was piped in comes later.
async fn attach(console: UnixStream, interactive: bool) -> anyhow::Result<()> {
    let (mut from_guest, mut to_guest) = console.into_split();
    let mut show = tokio::spawn(async move {
        let mut stdout = tokio::io::stdout();
        let mut buffer = [0; 4096];
        loop {
            match from_guest.read(&mut buffer).await? {
                0 => return Ok::<_, std::io::Error>(()),
                n => {
                    stdout.write_all(&buffer[..n]).await?;
                    stdout.flush().await?;
                }
            }
        }
    });
    let (keys, mut typed) = tokio::sync::mpsc::channel::<Vec<u8>>(16);
    // A thread of its own: a read from a terminal cannot be cancelled, and must not keep the runtime from ending.
    std::thread::spawn(move || {
        use std::io::Read as _;
        let mut buffer = [0; 1024];
        while let Ok(n @ 1..) = stdin().lock().read(&mut buffer) {
            if keys.blocking_send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    loop {
        tokio::select! {
            result = &mut show => return Ok(result??),
            bytes = typed.recv() => match bytes {
                Some(bytes) => {
                    let escape = interactive.then(|| bytes.iter().position(|&byte| byte == ESCAPE)).flatten();
                    to_guest.write_all(&bytes[..escape.unwrap_or(bytes.len())]).await?;
                    if escape.is_some() {
                        return Ok(());
                    }
                }
                None => return Ok(show.await??),
            },
        }
    }
}

/// A terminal in raw mode, restored on drop.
struct Raw {
    stdin: Stdin,
    before: Termios,
}

impl Raw {
    /// `None` if stdin is no terminal.
    fn enter() -> anyhow::Result<Option<Self>> {
        let stdin = stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw)?;
        Ok(Some(Self { stdin, before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing to do about it if the terminal is gone.
        let _ = tcsetattr(&self.stdin, SetArg::TCSANOW, &self.before);
        eprintln!();
    }
}
