//! Unified kernel images, and additions to them: PE files with the command line in a section (UAPI.5).

use crate::root::{FileError, Root};

/// The section with the command line. An image may have one for each of its profiles.
const SECTION: &[u8; 8] = b".cmdline";

/// Longer is none that a kernel takes.
const MOST: usize = 64 << 10;

/// The command lines in the image at `path`; none if it is no such image.
pub(super) fn command_lines(root: &Root, path: &str) -> Result<Vec<String>, FileError> {
    // The headers are at the start; the file as a whole is large.
    let Ok(Some(head)) = root.read_part(path, 0, 64 << 10) else { return Ok(Vec::new()) };
    let mut lines = Vec::new();
    for (offset, length) in sections(&head).unwrap_or_default() {
        let bytes = root.read_part(path, offset, length.min(MOST))?.unwrap_or_default();
        lines.push(String::from_utf8_lossy(&bytes).trim_end_matches(['\0', '\n']).to_owned());
    }
    Ok(lines)
}

/// Where the sections with command lines are: offset in the file, and length (PE format, "Section Table").
fn sections(head: &[u8]) -> Option<Vec<(u64, usize)>> {
    let short = |at: usize| Some(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?));
    let long = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
    let start = usize::try_from(long(0x3c)?).ok()?;
    let signature = head.get(start..start.checked_add(4)?)?;
    if !head.starts_with(b"MZ") || signature != b"PE\0\0" {
        return None;
    }
    let count = usize::from(short(start + 6)?);
    let table = start + 24 + usize::from(short(start + 20)?);
    let mut found = Vec::new();
    for index in 0..count {
        let at = table + index * 40;
        if head.get(at..at + 8)? == SECTION {
            // The size in memory is the text's; that in the file is rounded up.
            let (size, raw) = (long(at + 8)?, long(at + 16)?);
            let length = if size == 0 { raw } else { size.min(raw) };
            found.push((u64::from(long(at + 20)?), usize::try_from(length).ok()?));
        }
    }
    Some(found)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::Image;
    use super::*;

    /// A PE file with one section of text, and one with the command line.
    fn image(line: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 0x400];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x80;
        bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
        bytes[0x86] = 2;
        bytes[0x94] = 0x70;
        let table = 0x80 + 24 + 0x70;
        bytes[table..table + 5].copy_from_slice(b".text");
        let at = table + 40;
        bytes[at..at + 8].copy_from_slice(SECTION);
        bytes[at + 8] = u8::try_from(line.len()).unwrap();
        bytes[at + 17] = 2;
        bytes[at + 21] = 3;
        bytes[0x300..0x300 + line.len()].copy_from_slice(line);
        bytes.resize(0x600, 0xff);
        bytes
    }

    #[test]
    fn its_command_line_is_read() {
        let root = Image::new();
        root.bytes("boot/EFI/Linux/a.efi", &image(b"quiet systemd.machine_id=x\0"));
        root.bytes("efi/EFI/Linux/a.efi.extra.d/b.addon.efi", &image(b"init=/bin/sh"));
        let read = |path: &str| command_lines(&root.root, path).unwrap();
        assert_eq!(read("boot/EFI/Linux/a.efi"), ["quiet systemd.machine_id=x"]);
        assert_eq!(read("efi/EFI/Linux/a.efi.extra.d/b.addon.efi"), ["init=/bin/sh"]);
        let found = super::super::command_line::check(&root.root).unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn what_is_no_image_has_none() {
        let whole = image(b"quiet");
        for length in 0..whole.len() {
            // Wherever it was cut off.
            let _ = sections(&whole[..length]);
        }
        assert_eq!(sections(b""), None);
        assert_eq!(sections(&[0xff; 0x200]), None);
        let mut far = whole;
        far[0x3c..0x40].copy_from_slice(&[0xff; 4]);
        assert_eq!(sections(&far), None);
    }
}
