//! Any bytes as a frame of either peer: no panic, no length over the cap, and what is understood is understood
//! as the same when it is sent again.
//!
//! From the workspace's root, with `cargo install cargo-fuzz --locked` and a nightly toolchain:
//!
//! ```text
//! mkdir -p target/fuzz-corpus
//! cargo +nightly fuzz run frame --fuzz-dir proto/fuzz target/fuzz-corpus proto/fuzz/corpus/frame -- \
//!     -max_total_time=60 -max_len=4096 -dict=proto/fuzz/frame.dict
//! ```
//!
//! What is new goes to the first folder, so the committed corpus stays small. It needs no word about `crt-static`,
//! which AddressSanitizer cannot have: cargo-fuzz sets RUSTFLAGS, and that takes the place of .cargo/config.toml's.
//! proto/tests/round_trip.rs tries the committed corpus on every test run. It is under 50 files: those with the most
//! edges of the 400 that this leaves of a run of some minutes:
//!
//! ```text
//! cargo +nightly fuzz run frame --fuzz-dir proto/fuzz MINIMIZED target/fuzz-corpus -- \
//!     -set_cover_merge=1 -use_counters=0
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;
use ramet_proto::{
    GuestMessage, HostMessage,
    frame::{self, FrameError, HEADER, MAX_BODY},
};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

fuzz_target!(|input: &[u8]| {
    // As they come: the header is the fuzzer's.
    check_frame::<HostMessage>(input);
    check_frame::<GuestMessage>(input);
    // And as a body, so that no effort goes into lengths that fit.
    check_body::<HostMessage>(input);
    check_body::<GuestMessage>(input);
});

fn check_frame<M: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    match frame::decode::<M>(bytes) {
        Ok(Some((message, taken))) => {
            assert!(taken > HEADER && taken <= bytes.len() && taken <= HEADER + MAX_BODY);
            check_again(&message);
        }
        Ok(None) => assert!(bytes.len() < HEADER + MAX_BODY),
        Err(error) => check_error(&error),
    }
}

fn check_body<M: Serialize + DeserializeOwned + PartialEq + Debug>(body: &[u8]) {
    match frame::decode_body::<M>(body) {
        Ok(message) => check_again(&message),
        Err(error) => check_error(&error),
    }
}

fn check_again<M: Serialize + DeserializeOwned + PartialEq + Debug>(message: &M) {
    match frame::encode(message) {
        Ok(bytes) => {
            let (again, taken) = frame::decode::<M>(&bytes).expect("our own frame").expect("a whole frame");
            assert_eq!((&again, taken), (message, bytes.len()));
            assert_eq!(frame::encode(&again).expect("the same message"), bytes);
        }
        // A body may say in fewer bytes what we say in more: IPv4-mapped addresses, arrays for objects.
        Err(FrameError::Length(len)) => assert!(len > MAX_BODY),
        Err(FrameError::Body(error)) => panic!("{message:?} cannot be sent: {error}"),
    }
}

/// An error is shown to people: nothing of the peer's in it may reach their terminal.
fn check_error(error: &FrameError) {
    let shown = match error {
        FrameError::Length(_) => error.to_string(),
        FrameError::Body(source) => format!("{error}: {source}"),
    };
    assert!(shown.len() < 1000 && !shown.contains(char::is_control), "{shown:?}");
}
