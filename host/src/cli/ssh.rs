//! `ramet ssh`: OpenSSH over vsock, with the host key that the child reported when it became an individual.

use super::child::addresses;
use anyhow::{Context as _, bail};
use ramet::{
    child::{Child, files},
    name::Name,
    state::StateDir,
};
use std::{
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_vsock::{VsockAddr, VsockStream};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The child
    child: Name,
    /// Private key to log in with
    #[arg(short = 'i', value_name = "KEY")]
    identity: Option<PathBuf>,
    /// User to log in as
    #[arg(short = 'l', value_name = "USER", default_value = "root")]
    login: String,
    /// Command to run instead of a shell
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ProxyArgs {
    /// The child
    child: Name,
}

/// sshd's port, on vsock too (systemd-ssh-generator(8)).
const PORT: u16 = 22;

/// How long one way to sshd may take to be found.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the child may take to tell its addresses, well within ssh's own `ConnectTimeout`.
const TELL: Duration = Duration::from_secs(30);

/// Becomes ssh(1).
pub(crate) fn run(state: &StateDir, args: &Args) -> anyhow::Result<ExitCode> {
    let child = Child::find(state, &args.child)?;
    if child.pid.is_none() {
        bail!("{} is not running: start it with ramet start {0}", args.child);
    }
    let known_hosts = child.file(files::KNOWN_HOSTS);
    if child.record.evidence.as_ref().is_none_or(|evidence| evidence.ssh_host_keys.is_empty()) {
        bail!("{} has reported no SSH host key: is it past its gate, and sshd installed?", args.child);
    }
    let ramet = std::env::current_exe().context("cannot tell where ramet is")?;
    let proxy =
        [ramet.as_os_str(), OsStr::new("--state-dir"), state.root().as_os_str(), OsStr::new("ssh-proxy")];
    let mut proxy_command = OsString::from("ProxyCommand=");
    for word in proxy.into_iter().chain([OsStr::new(args.child.as_str())]) {
        // OpenSSH has the shell exec it.
        proxy_command.push(quoted(word));
        proxy_command.push(" ");
    }
    let mut ssh = Command::new("ssh");
    let option = |key: &str, value: &OsStr| {
        let mut option = OsString::from(key);
        option.push("=");
        option.push(value);
        option
    };
    ssh.arg("-o").arg(proxy_command);
    ssh.arg("-o").arg(option("UserKnownHostsFile", quoted(known_hosts.as_os_str()).as_os_str()));
    for fixed in
        ["GlobalKnownHostsFile=none", "StrictHostKeyChecking=yes", "UpdateHostKeys=no", "CheckHostIP=no"]
    {
        ssh.arg("-o").arg(fixed);
    }
    // A guest that is reset leaves the connection open at this end, and nobody would ever say so.
    for limit in ["ConnectTimeout=90", "ServerAliveInterval=10", "ServerAliveCountMax=3"] {
        ssh.arg("-o").arg(limit);
    }
    ssh.arg("-o").arg(format!("HostKeyAlias={}", args.child));
    if let Some(key) = &args.identity {
        ssh.args(["-o", "IdentitiesOnly=yes", "-i"]).arg(key);
    }
    ssh.arg("-l").arg(&args.login).arg("--").arg(args.child.as_str()).args(&args.command);
    let error = ssh.exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        bail!("ssh is not on PATH: install it (Debian, Ubuntu: apt install openssh-client)");
    }
    Err(error).context("cannot run ssh")
}

/// A word for ssh's configuration and for the shell that runs `ProxyCommand`: in double quotes if it needs any, and
/// with ssh's own percent signs doubled.
fn quoted(word: &OsStr) -> OsString {
    let text = word.to_string_lossy().replace('%', "%%");
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-%+:@".contains(&b));
    if plain {
        text.into()
    } else {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")).into()
    }
}

/// Connects stdin and stdout to the child's sshd: over vsock, which needs no network, else over a network.
pub(crate) async fn proxy(state: &StateDir, args: &ProxyArgs) -> anyhow::Result<ExitCode> {
    let child = Child::find(state, &args.child)?;
    let cid = child.record.cid;
    let over_vsock = timeout(CONNECT, VsockStream::connect(VsockAddr::new(cid, u32::from(PORT)))).await;
    if let Ok(Ok(stream)) = over_vsock {
        carry(stream).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let told = addresses(&child, TELL).await.with_context(|| {
        format!("no sshd answers in {} on vsock {cid}:{PORT}, and it tells no address", args.child)
    })?;
    for &address in &told {
        if let Ok(Ok(stream)) = timeout(CONNECT, TcpStream::connect((address, PORT))).await {
            carry(stream).await?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    bail!(
        "no sshd answers in {} on vsock {cid}:{PORT} nor on port {PORT} of what it has told: {told:?}",
        args.child
    )
}

async fn carry(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> anyhow::Result<()> {
    let mut stdio = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
    match tokio::io::copy_bidirectional(&mut stdio, &mut stream).await {
        // sshd hangs up without ado when a session ends.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        result => Ok(result.map(drop)?),
    }
}
