//! Running another program with a deadline.

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{Signal, killpg},
    },
    unistd::Pid,
};
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    pipe::fcntl_getpipe_size,
    process::{PidfdFlags, pidfd_open},
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
const MAX_OUTPUT: usize = 1 << 20;

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
    let deadline = Instant::now().checked_add(limit).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{program}: {limit:?} is no limit"))
    })?;
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

/// Reads what `child` prints into `text` until it has ended; says how, unless the deadline comes first. Its end is seen by
/// itself (`pidfd_open(2)`), not by that of its output: something that it leaves running in the background may go on
/// printing, or hold the pipe without a word.
fn wait(
    child: &mut Child,
    output: &mut PipeReader,
    text: &mut Vec<u8>,
    deadline: Instant,
) -> io::Result<Option<ExitStatus>> {
    let process = pidfd_open(rustix::process::Pid::from_child(child), PidfdFlags::empty())?;
    fcntl_setfl(&*output, fcntl_getfl(&*output)? | OFlags::NONBLOCK)?;
    let mut open = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let mut fds = [Some(process.as_fd()), open.then_some(output.as_fd())]
            .into_iter()
            .flatten()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect::<Vec<_>>();
        // A time that is longer than poll(2) knows is asked for again.
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = fds[0].any().unwrap_or(false);
        if open {
            open = read(output, text)?;
        }
        if ended {
            return child.try_wait();
        }
    }
}

/// Reads what is in the pipe now, and no more than fits into one: what a program has printed before its end is there then.
/// Says whether there may be more to come.
fn read(output: &mut PipeReader, text: &mut Vec<u8>) -> io::Result<bool> {
    let mut chunk = [0; 4096];
    let mut room = fcntl_getpipe_size(&*output)?;
    while room > 0 {
        match output.read(&mut chunk) {
            Ok(0) => return Ok(false),
            Ok(count) => {
                let kept = count.min(MAX_OUTPUT.saturating_sub(text.len()));
                text.extend_from_slice(&chunk[..kept]);
                room = room.saturating_sub(count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
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
        let error = sh("true", Duration::MAX).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "no clock goes that far");
    }

    #[test]
    fn what_goes_on_printing_in_the_background_does_not_hold_up_what_has_ended() {
        let sh = |script: &str| output(Command::new("sh").args(["-c", script]), Duration::from_secs(20));
        let begun = Instant::now();
        // It ends by itself, as nobody reads any more.
        let said = sh("echo first; while echo more; do :; done 2>&- & sleep 0.1").unwrap();
        assert!(said.starts_with("first\n"), "{}", &said[..20]);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert!(said.len() <= MAX_OUTPUT);
    }

    #[test]
    fn all_that_a_program_prints_is_read_and_what_ends_after_its_output_is_waited_for() {
        let sh = |script: &str| output(Command::new("sh").args(["-c", script]), Duration::from_secs(20));
        // More than a pipe holds, and at once.
        let said = sh("head -c 300000 /dev/zero | tr '\\0' x; echo; echo end").unwrap();
        assert_eq!((said.len(), said.ends_with("\nend\n")), (300_005, true));
        let error = sh("exec >&- 2>&-; sleep 0.1; exit 3").unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
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
