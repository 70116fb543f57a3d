//! As much of NDR as an offline join takes: C706, chapter 14 ("Transfer Syntax NDR"), little-endian with pointers of 32
//! bits, in the streams of MS-RPCE, section 2.2.6 ("Type Serialization Version 1").

use uuid::Uuid;
use zeroize::Zeroizing;

/// Room for one structure of an offline join. A vector that grows leaves copies of secrets behind.
const ROOM: usize = 4096;

/// A structure as it is written: first its fixed part, with an id for each pointer, then what the pointers point at, in
/// their order.
pub(super) struct Ndr {
    bytes: Zeroizing<Vec<u8>>,
    pointers: u32,
}

impl Ndr {
    pub(super) fn new() -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(ROOM)), pointers: 0 }
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.align(2);
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    /// A GUID (MS-DTYP, section 2.3.4.2).
    pub(super) fn guid(&mut self, guid: &Uuid) {
        self.align(4);
        self.bytes.extend(guid.to_bytes_le());
    }

    /// A pointer to something that is written later.
    pub(super) fn pointer(&mut self) {
        // Any number but zero will do, as long as no two are alike.
        self.u32(0x0002_0000 + 4 * self.pointers);
        self.pointers += 1;
    }

    /// A pointer to nothing.
    pub(super) fn null(&mut self) {
        self.u32(0);
    }

    /// A pointer to `text`, or to nothing without one.
    pub(super) fn pointer_to(&mut self, text: Option<&str>) {
        if text.is_some() { self.pointer() } else { self.null() }
    }

    /// What a `[string] wchar_t *` points at: three counts and UTF-16 with a NUL.
    pub(super) fn string(&mut self, text: &str) {
        let count = units(text) + 1;
        self.counts([count, 0, count]);
        self.utf16(text);
        self.bytes.extend([0, 0]);
    }

    /// The fixed part of a `UNICODE_STRING` (MS-DTYP, section 2.3.10): its bytes, those with a NUL, a pointer.
    pub(super) fn unicode_string(&mut self, text: &str) {
        let length = u16::try_from(2 * units(text)).expect("names are short");
        self.u16(length);
        self.u16(length + 2);
        self.pointer();
    }

    /// What a `UNICODE_STRING` points at. There is room for a NUL, but none.
    pub(super) fn unicode_string_buffer(&mut self, text: &str) {
        let count = units(text);
        self.counts([count + 1, 0, count]);
        self.utf16(text);
    }

    /// What a pointer to a SID points at: the number of subauthorities, then its binary form.
    pub(super) fn sid(&mut self, sid: &ramet_proto::Sid) {
        let bytes = sid.to_bytes();
        self.u32(bytes[1].into());
        self.bytes.extend(bytes);
    }

    /// What the pointer of a counted byte array points at.
    pub(super) fn byte_array(&mut self, bytes: &[u8]) {
        self.u32(length(bytes));
        self.bytes.extend_from_slice(bytes);
    }

    /// The structure as a stream of its own: two headers, and a multiple of 8 bytes.
    pub(super) fn serialize(mut self) -> Zeroizing<Vec<u8>> {
        self.align(8);
        let mut stream = Zeroizing::new(Vec::with_capacity(self.bytes.len() + 16));
        // Version 1, little-endian, the length of this header, a filler; then the length of the rest, and a filler.
        stream.extend(*b"\x01\x10\x08\x00\xcc\xcc\xcc\xcc");
        stream.extend(length(&self.bytes).to_le_bytes());
        stream.extend([0; 4]);
        stream.extend_from_slice(&self.bytes);
        stream
    }

    /// How many there is room for, the first that is there, how many are.
    fn counts(&mut self, counts: [u32; 3]) {
        for count in counts {
            self.u32(count);
        }
    }

    fn utf16(&mut self, text: &str) {
        self.bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    }

    fn align(&mut self, to: usize) {
        let aligned = self.bytes.len().next_multiple_of(to);
        self.bytes.resize(aligned, 0);
    }
}

/// How many units of UTF-16 `text` takes.
fn units(text: &str) -> u32 {
    u32::try_from(text.encode_utf16().count()).expect("texts are short")
}

/// The number of `bytes`.
pub(super) fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("structures are short")
}
