//! How a disk boots, by its first sectors: UEFI specification 2.10, section 5; GRUB manual, "BIOS installation".

/// Bytes of a sector, which is what a guest's disk has here.
const SECTOR: usize = 512;
/// Bytes of boot code in the first sector, before the disk's signature.
const BOOT_CODE: usize = 440;
/// The type of an EFI system partition, in a GPT and in an MBR's table.
const ESP: [u8; 16] = *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";
const ESP_MBR: u8 = 0xef;
/// The type of a BIOS boot partition, where GRUB keeps what does not fit into the first sector.
const BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";

/// Whether the disk that begins with `head` has an EFI system partition and nothing that a BIOS could start. A disk of which
/// neither can be said for sure is not one.
pub(super) fn boots_by_uefi_only(head: &[u8]) -> bool {
    let Some(first) = head.get(..SECTOR) else { return false };
    if first[..BOOT_CODE].iter().any(|byte| *byte != 0) {
        return false;
    }
    let types: Vec<[u8; 16]> = gpt_types(head).collect();
    let in_mbr = first[446..510].as_chunks::<16>().0.iter().any(|entry| entry[4] == ESP_MBR);
    (in_mbr || types.contains(&ESP)) && !types.contains(&BIOS_BOOT)
}

/// The types of the partitions in a GPT, as far as `head` has it.
fn gpt_types(head: &[u8]) -> impl Iterator<Item = [u8; 16]> {
    let header = head.get(SECTOR..2 * SECTOR).filter(|header| header.starts_with(b"EFI PART"));
    let number = |at: usize| -> Option<usize> {
        let bytes = header?.get(at..at + 4)?.first_chunk::<4>()?;
        usize::try_from(u32::from_le_bytes(*bytes)).ok()
    };
    // The entries' first block is 64 bits wide, and never far away.
    let begin = number(72).and_then(|block| block.checked_mul(SECTOR));
    let count = number(80).unwrap_or(0);
    let size = number(84).filter(|size| *size >= 128);
    let entries = begin.zip(size).and_then(|(begin, size)| Some(head.get(begin..)?.chunks_exact(size)));
    entries.into_iter().flatten().take(count).filter_map(|entry| entry.first_chunk::<16>().copied())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A disk with these partitions in its GPT, and with this beginning of its boot code.
    fn disk(types: &[[u8; 16]], code: &[u8]) -> Vec<u8> {
        let mut disk = vec![0; 64 * 1024];
        disk[..code.len()].copy_from_slice(code);
        disk[450] = 0xee;
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk[512..520].copy_from_slice(b"EFI PART");
        for (at, value) in [(72_usize, 2_u8), (80, 128), (84, 128)] {
            disk[512 + at] = value;
        }
        for (n, kind) in types.iter().enumerate() {
            disk[1024 + n * 128..][..16].copy_from_slice(kind);
        }
        disk
    }

    const LINUX: [u8; 16] = [0xaf; 16];

    /// The beginning of a disk that boots by UEFI only.
    pub(in crate::qemu) fn uefi_only() -> Vec<u8> {
        disk(&[ESP, LINUX], &[])
    }

    #[test]
    fn a_disk_with_an_esp_and_nothing_for_a_bios_boots_by_uefi_only() {
        assert!(boots_by_uefi_only(&disk(&[ESP, LINUX], &[])));
        assert!(boots_by_uefi_only(&disk(&[LINUX, LINUX, ESP], &[])));
        let mut mbr = disk(&[], &[]);
        mbr[512..520].fill(0);
        assert!(!boots_by_uefi_only(&mbr));
        mbr[450] = ESP_MBR;
        assert!(boots_by_uefi_only(&mbr));
    }

    #[test]
    fn one_that_a_bios_may_start_does_not() {
        assert!(!boots_by_uefi_only(&disk(&[ESP, BIOS_BOOT, LINUX], &[])));
        assert!(
            !boots_by_uefi_only(&disk(&[ESP, LINUX], &[0xeb, 0x63, 0x90])),
            "gptmbr.bin needs no partition"
        );
        assert!(!boots_by_uefi_only(&disk(&[LINUX], &[])), "of which nothing is known");
    }

    #[test]
    fn a_table_that_is_none_does_no_harm() {
        let whole = disk(&[ESP, LINUX], &[]);
        for end in 0..whole.len().min(2048) {
            boots_by_uefi_only(&whole[..end]);
        }
        for at in [72, 80, 84] {
            for value in [[0; 4], [1, 0, 0, 0], [0xff; 4]] {
                let mut bad = whole.clone();
                bad[512 + at..512 + at + 4].copy_from_slice(&value);
                boots_by_uefi_only(&bad);
            }
        }
    }
}
