//! What a hostile peer may say, for the tests of both ends: they take this file in by its path.

use proptest::{collection::vec, prelude::*};
use ramet_proto::{
    HostMessage, frame,
    frame::{HEADER, MAX_BODY},
};
use std::{fs, path::Path};

/// Frames of real conversations and of those that a fuzzer found worth keeping.
fn corpus() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/fuzz/corpus/frame");
    let files: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(files.len() > 20, "{} files", files.len());
    files
}

/// All that one peer says: a few frames that are right, changed in a byte, cut short, of another length, or none, each
/// as often begun by `hello` as not, since what comes before that is not heard.
pub(super) fn babble(hello: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let frame = prop::sample::select(corpus());
    let open = frame::encode(&HostMessage::Open).unwrap();
    let piece = prop_oneof![
        4 => Just(hello.clone()),
        1 => Just(open),
        4 => frame.clone(),
        2 => (frame.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, at, byte)| {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        }),
        1 => (frame, any::<prop::sample::Index>()).prop_map(|(mut bytes, at)| {
            bytes.truncate(at.index(bytes.len() + 1));
            bytes
        }),
        1 => (any::<u32>(), vec(any::<u8>(), 0..64))
            .prop_map(|(length, body)| [&length.to_be_bytes()[..], &body].concat()),
        1 => vec(any::<u8>(), 0..300),
        1 => Just(vec![b' '; HEADER + MAX_BODY]),
    ];
    (any::<bool>(), vec(piece, 0..6)).prop_map(move |(greets, pieces)| {
        let greeting = if greets { hello.clone() } else { Vec::new() };
        [greeting, pieces.concat()].concat()
    })
}
