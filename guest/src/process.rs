//! Running another program with a deadline.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    io::{self, Read},
    os::fd::AsFd,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// The most output kept.
const MAX_OUTPUT: u64 = 1 << 20;

/// What `command` prints, once it has ended well. One that fails or is not done after `limit` is an error, with what it
/// said last; it is killed then.
pub(crate) fn output(command: &mut Command, limit: Duration) -> io::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    // One pipe for both, so that there is one thing to wait for.
    let (mut output, input) = io::pipe()?;
    let mut child = command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input).spawn()?;
    // The command keeps its ends of the pipe open; without this the end never comes.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let deadline = Instant::now() + limit;
    let mut text = Vec::new();
    let read = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) => {
                break Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("{program}: not done in {limit:?}"),
                ));
            }
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => break Err(error.into()),
        }
        let mut chunk = [0; 4096];
        match output.read(&mut chunk) {
            Ok(0) => break Ok(()),
            Ok(count) if (text.len() as u64) < MAX_OUTPUT => text.extend_from_slice(&chunk[..count]),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    if read.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    read?;
    let text = String::from_utf8_lossy(&text).into_owned();
    if status.success() {
        Ok(text)
    } else {
        let last = text.trim().lines().last().unwrap_or_default().to_owned();
        Err(io::Error::other(format!("{program} ended with {status}: {last}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_failure_and_deadline() {
        let sh = |script: &str, limit| output(Command::new("sh").args(["-c", script]), limit);
        let long = Duration::from_secs(20);
        assert_eq!(sh("echo a; echo b >&2", long).unwrap(), "a\nb\n");
        let error = sh("echo one; echo two; exit 3", long).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("two"), "{error}");
        let error = sh("exec sleep 60", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = output(&mut Command::new("/no/such/program"), long).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
