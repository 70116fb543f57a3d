//! What every conversation with a host has in common, on either side of the gate.

use crate::{
    channel::{Channel, ChannelError, Stream},
    error::chain,
    log,
    system::System,
};
use ramet_proto::{
    GuestMessage, HostMessage,
    message::{Failure, GuestState, Reason, Step},
    select_version,
    text::Text,
};

/// Why a conversation is over. The agent goes on.
pub(crate) enum End {
    /// The host is gone or makes no sense.
    Channel(ChannelError),
    /// There is nothing more to say.
    Done,
}

impl From<ChannelError> for End {
    fn from(error: ChannelError) -> Self {
        Self::Channel(error)
    }
}

/// Answers a host's hello with where this guest is.
pub(crate) fn greet<T: Stream>(
    versions: &[u16],
    state: GuestState,
    system: &impl System,
    channel: &mut Channel<T>,
) -> Result<(), End> {
    let Some(version) = select_version(versions) else {
        let detail = format!("this agent speaks {:?}, the host {versions:?}", ramet_proto::VERSIONS);
        channel.send(&failed(Step::Hello, Reason::Version, &detail))?;
        return Err(End::Done);
    };
    let cid = match system.local_cid() {
        Ok(cid) => cid,
        Err(error) => {
            let detail = format!("cannot ask for the context id: {error}");
            let failure = Failure::new(Step::Hello, Reason::System, &detail).retryable();
            channel.send(&GuestMessage::Failed(failure))?;
            return Err(End::Done);
        }
    };
    let agent = Text::new(env!("CARGO_PKG_VERSION"));
    let features = ramet_proto::FEATURES.iter().copied().map(Text::new).collect();
    Ok(channel.send(&GuestMessage::Hello { version, agent, state, cid, features })?)
}

/// Says why a conversation is over, to the host where it can be told, and to the journal.
pub(crate) fn close<T: Stream>(end: End, greeted: bool, channel: &mut Channel<T>) {
    match end {
        End::Done | End::Channel(ChannelError::Closed) => {}
        End::Channel(error) => {
            if let ChannelError::Frame(_) = error {
                let step = if greeted { Step::Prepare } else { Step::Hello };
                let _ = channel.send(&failed(step, Reason::Malformed, &chain(&error)));
            }
            log!("connection closed: {}", chain(&error));
        }
    }
}

/// What a host's message asks for.
pub(crate) fn step_of(message: &HostMessage) -> Step {
    match message {
        HostMessage::Hello { .. } => Step::Hello,
        HostMessage::Prepare => Step::Prepare,
        HostMessage::Identify(_) => Step::Entropy,
        HostMessage::Open => Step::Open,
        HostMessage::Observe => Step::Verify,
        HostMessage::Join => Step::Join,
    }
}

/// A failure, as a message.
pub(crate) fn failed(step: Step, reason: Reason, detail: &str) -> GuestMessage {
    GuestMessage::Failed(Failure::new(step, reason, detail))
}
