//! Running another program with a deadline.

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{Signal, killpg},
    },
    unistd::Pid,
};
use std::{
    ffi::OsString,
    fmt,
    fs::File,
    io::{self, PipeReader, Read, Seek, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// The most output kept.
const MAX_OUTPUT: u64 = 1 << 20;

/// Between two looks at what cannot be waited for.
const TICK: Duration = Duration::from_millis(20);

/// A program to be run, and how long it may take.
pub(crate) struct Run<'a> {
    /// Its name, which is looked for in `PATH`, or its path.
    pub(crate) program: &'a str,
    pub(crate) arguments: Vec<String>,
    /// A variable of its environment, besides this program's own.
    pub(crate) variable: Option<(&'static str, OsString)>,
    /// What it reads on standard input. What it then says on standard error is not read.
    pub(crate) input: Option<&'a [u8]>,
    pub(crate) limit: Duration,
}

impl<'a> Run<'a> {
    /// `program` with `arguments`, for `limit` at most.
    pub(crate) fn new(program: &'a str, arguments: &[&str], limit: Duration) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { program, arguments, variable: None, input: None, limit }
    }
}

impl fmt::Display for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.program, self.arguments.join(" "))
    }
}

/// What the program prints, once it has ended well. One that fails or takes too long is an error with what it said last;
/// it is killed then.
pub(crate) fn run(run: &Run<'_>) -> io::Result<String> {
    let mut command = Command::new(run.program);
    // What it prints is read.
    command.args(&run.arguments).env("LC_ALL", "C");
    if let Some((name, value)) = &run.variable {
        command.env(name, value);
    }
    match run.input {
        None => output(&mut command, run.limit),
        Some(input) => filter(&mut command, input, run.limit),
    }
}

/// What `command` prints, once it has ended well. One that fails or is not done after `limit` is an error, with what it
/// said last; it is killed then.
pub(crate) fn output(command: &mut Command, limit: Duration) -> io::Result<String> {
    // One pipe for both, so that there is one thing to wait for.
    let (output, input) = io::pipe()?;
    finish(command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input), output, limit)
}

/// The same for a command that reads `input`, and whose standard error is this program's.
pub(crate) fn filter(command: &mut Command, input: &[u8], limit: Duration) -> io::Result<String> {
    // A file in memory: a pipe that nobody reads would make this wait.
    let mut file = File::from(memfd_create("input", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(input)?;
    file.rewind()?;
    let (output, end) = io::pipe()?;
    finish(command.stdin(file).stdout(end), output, limit)
}

fn finish(command: &mut Command, mut output: PipeReader, limit: Duration) -> io::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let deadline = Instant::now() + limit;
    let mut child = command.process_group(0).spawn()?;
    // The command keeps its ends of the pipe open; without this the end never comes.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut text = Vec::new();
    let ended = wait(&mut child, &mut output, &mut text, deadline);
    if !matches!(ended, Ok(Some(_))) {
        // With all that it has started and that has not left its group.
        let _ = i32::try_from(child.id()).map(|id| killpg(Pid::from_raw(id), Signal::SIGKILL));
        let _ = child.wait();
    }
    let Some(status) = ended? else {
        return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{program}: not done in {limit:?}")));
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    if status.success() {
        Ok(text)
    } else {
        let last = text.trim().lines().last().unwrap_or_default().to_owned();
        Err(io::Error::other(format!("{program} ended with {status}: {last}")))
    }
}

/// Reads what `child` prints into `text` until it has ended; says how, unless the deadline comes first. Something that it
/// leaves running in the background may go on printing.
fn wait(
    child: &mut Child,
    output: &mut PipeReader,
    text: &mut Vec<u8>,
    deadline: Instant,
) -> io::Result<Option<ExitStatus>> {
    let mut open = true;
    let mut ended = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let pause = if ended.is_some() { Duration::ZERO } else { left.min(TICK) };
        let printed = if open {
            let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX)) {
                Ok(count) => count > 0,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
        } else {
            std::thread::sleep(pause.min(Duration::from_millis(1)));
            false
        };
        if printed {
            let mut chunk = [0; 4096];
            match output.read(&mut chunk)? {
                0 => open = false,
                count if (text.len() as u64) < MAX_OUTPUT => text.extend_from_slice(&chunk[..count]),
                _ => {}
            }
        } else if ended.is_some() {
            return Ok(ended);
        }
        if ended.is_none() {
            ended = child.try_wait()?;
        }
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
        // A background process that holds the pipe does not hold up, and one that closes it is waited for.
        assert_eq!(sh("sleep 3 & echo a", long).unwrap(), "a\n");
        let error = sh("exec >&- 2>&-; exec sleep 60", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = output(&mut Command::new("/no/such/program"), long).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_filter_reads_its_input_and_is_killed_with_its_children() {
        let sh =
            |script: &str, input: &[u8], limit| filter(Command::new("sh").args(["-c", script]), input, limit);
        let long = Duration::from_secs(20);
        let much = vec![b'x'; 200_000];
        assert_eq!(sh("wc -c", &much, long).unwrap().trim(), "200000");
        assert_eq!(sh("echo unread; echo aside >&2", &much, long).unwrap(), "unread\n");
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let script = format!("(sleep 0.4; touch {}) & sleep 60", mark.display());
        let error = sh(&script, b"", Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        std::thread::sleep(Duration::from_millis(500));
        assert!(!mark.exists(), "the background process went on");
    }
}
