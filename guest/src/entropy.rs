//! The kernel's random pool, through the ioctls of random(4).

use nix::{ioctl_none, ioctl_write_ptr_bad, request_code_write};
use std::{fs::File, io, os::fd::AsRawFd};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The bytes handed over at once.
const CHUNK: usize = 512;

/// `struct rand_pool_info` of `linux/random.h`, with room for a chunk.
#[repr(C)]
#[derive(Zeroize, ZeroizeOnDrop)]
struct PoolInfo {
    entropy_bits: i32,
    bytes: i32,
    buffer: [u8; CHUNK],
}

// The number names the size of the fixed part, `int[2]`, not of the whole.
ioctl_write_ptr_bad!(
    /// Adds to the pool and credits it.
    rnd_add_entropy,
    request_code_write!(b'R', 0x03, size_of::<[i32; 2]>()),
    PoolInfo
);
ioctl_none!(
    /// Makes every generator reseed from the pool before its next byte.
    rnd_reseed_crng,
    b'R',
    0x07
);

/// Mixes `seed` into the pool, credited with all its bits, and reseeds.
pub(crate) fn add(seed: &[u8]) -> io::Result<()> {
    let device = File::options().write(true).open("/dev/urandom")?;
    for chunk in seed.chunks(CHUNK) {
        let length = i32::try_from(chunk.len()).map_err(io::Error::other)?;
        let mut info = PoolInfo { entropy_bits: length * 8, bytes: length, buffer: [0; CHUNK] };
        info.buffer[..chunk.len()].copy_from_slice(chunk);
        // SAFETY: the kernel reads the two numbers and `bytes` bytes of the buffer, which is at least that long and
        // outlives the call.
        #[allow(unsafe_code)]
        unsafe { rnd_add_entropy(device.as_raw_fd(), &raw const info) }?;
    }
    // SAFETY: the request has no argument.
    #[allow(unsafe_code)]
    unsafe { rnd_reseed_crng(device.as_raw_fd()) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_entropy_of_any_length() {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("skipped: crediting entropy takes root");
            return;
        }
        for length in [1, 32, CHUNK, 3 * CHUNK + 5] {
            add(&vec![0x5a; length]).unwrap();
        }
    }
}
