//! Messages over a byte stream whose other end is not trusted to be quick, complete or right.
//!
//! Nothing here waits for the peer longer than its deadline. "Not all here yet" is no error.

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use ramet_proto::{
    GuestMessage, HostMessage,
    frame::{self, FrameError, HEADER},
};
use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

/// A stream of bytes that can be waited for.
pub(crate) trait Stream: Read + Write + AsFd {}

impl<T: Read + Write + AsFd> Stream for T {}

/// The conversation cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    #[error("the host hung up")]
    Closed,
    #[error("the host hung up in the middle of a frame")]
    Half,
    #[error("the host did not finish a frame, or read one, in time")]
    Slow,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the connection failed")]
    Io(#[from] io::Error),
}

/// A stream of messages.
pub(crate) struct Channel<S> {
    stream: S,
    /// Wiped when it is dropped or grows: it holds the seed of an identity.
    buffer: Zeroizing<Vec<u8>>,
    begun: Option<Instant>,
    limit: Duration,
}

impl<S: Stream> Channel<S> {
    /// Messages over `stream`, each of which has to be whole within `limit` from its first byte on.
    pub(crate) fn new(stream: S, limit: Duration) -> Result<Self, ChannelError> {
        let flags = OFlag::from_bits_retain(fcntl(&stream, FcntlArg::F_GETFL).map_err(io::Error::from)?);
        fcntl(&stream, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(io::Error::from)?;
        Ok(Self { stream, buffer: Zeroizing::new(Vec::new()), begun: None, limit })
    }

    /// The next message, if all of it has arrived. Never waits.
    pub(crate) fn receive(&mut self) -> Result<Option<HostMessage>, ChannelError> {
        loop {
            let wanted = match self.buffer.first_chunk::<HEADER>() {
                None => HEADER,
                Some(header) => HEADER + frame::body_len(*header)?,
            };
            let have = self.buffer.len();
            if have == wanted && have > HEADER {
                let body = std::mem::take(&mut self.buffer);
                self.begun = None;
                return Ok(Some(frame::decode_body(&body[HEADER..])?));
            }
            // All of a frame's room at once: growing would leave copies behind.
            self.buffer.reserve_exact(wanted - have);
            self.buffer.resize(wanted, 0);
            let result = self.stream.read(&mut self.buffer[have..]);
            self.buffer.truncate(have + *result.as_ref().unwrap_or(&0));
            match result {
                Ok(0) => return Err(if have == 0 { ChannelError::Closed } else { ChannelError::Half }),
                Ok(_) => {
                    self.begun.get_or_insert_with(Instant::now);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let slow = self.begun.is_some_and(|begun| begun.elapsed() > self.limit);
                    return if slow { Err(ChannelError::Slow) } else { Ok(None) };
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends `message`, waiting for a slow reader until the limit.
    pub(crate) fn send(&mut self, message: &GuestMessage) -> Result<(), ChannelError> {
        let bytes = frame::encode(message)?;
        let mut rest = bytes.as_slice();
        let deadline = Instant::now() + self.limit;
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(0) => return Err(ChannelError::Closed),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(ChannelError::Slow);
                    }
                    wait(&[(self.stream.as_fd(), PollFlags::POLLOUT)], Some(left))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl<S: AsFd> AsFd for Channel<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Waits until one of `fds` is ready, or for `limit`, or forever; being early is possible (a signal).
pub(crate) fn wait(fds: &[(BorrowedFd<'_>, PollFlags)], limit: Option<Duration>) -> io::Result<()> {
    let mut fds: Vec<_> = fds.iter().map(|(fd, flags)| PollFd::new(*fd, *flags)).collect();
    // poll(2) counts milliseconds: rounded up, or the last one would be spent spinning.
    let limit = limit.map(|limit| limit + Duration::from_micros(999));
    let limit =
        limit.map_or(PollTimeout::NONE, |limit| PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
    match poll(&mut fds, limit) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    const LIMIT: Duration = Duration::from_millis(50);

    fn pair() -> (Channel<UnixStream>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Channel::new(ours, LIMIT).unwrap(), theirs)
    }

    #[test]
    fn a_message_in_single_bytes_and_two_in_one_piece() {
        let (mut channel, mut peer) = pair();
        let bytes = frame::encode(&HostMessage::Observe).unwrap();
        for byte in &bytes {
            assert_eq!(channel.receive().unwrap(), None);
            peer.write_all(&[*byte]).unwrap();
        }
        assert_eq!(channel.receive().unwrap(), Some(HostMessage::Observe));
        peer.write_all(&[bytes.clone(), bytes].concat()).unwrap();
        assert_eq!(channel.receive().unwrap(), Some(HostMessage::Observe));
        assert_eq!(channel.receive().unwrap(), Some(HostMessage::Observe));
        assert_eq!(channel.receive().unwrap(), None);
        drop(peer);
        assert!(matches!(channel.receive(), Err(ChannelError::Closed)));
    }

    #[test]
    fn a_huge_length_is_refused_unread() {
        let (mut channel, mut peer) = pair();
        peer.write_all(&[0xff, 0xff, 0xff, 0xff, b'x']).unwrap();
        assert!(matches!(channel.receive(), Err(ChannelError::Frame(FrameError::Length(_)))));
        assert!(channel.buffer.capacity() <= 16);
    }

    #[test]
    fn half_a_frame() {
        let (mut channel, mut peer) = pair();
        peer.write_all(&[0, 0, 0, 9, b'{']).unwrap();
        assert_eq!(channel.receive().unwrap(), None);
        std::thread::sleep(LIMIT * 2);
        assert!(matches!(channel.receive(), Err(ChannelError::Slow)));
        drop(peer);
        assert!(matches!(channel.receive(), Err(ChannelError::Half)));
    }

    #[test]
    fn a_peer_that_does_not_read_is_given_up() {
        let (mut channel, _peer) = pair();
        let mut sent = 0;
        let error = loop {
            match channel.send(&GuestMessage::Prepared { findings: Vec::new() }) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
            assert!(sent < 1_000_000);
        };
        assert!(matches!(error, ChannelError::Slow), "{error:?}");
    }
}
