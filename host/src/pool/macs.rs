//! Where a pool's MAC addresses come from.

use super::PoolError;
use ramet_proto::{MacAddr, identity::InvalidIdentity};
use std::{fmt, str::FromStr};

/// A source of MAC addresses: `52:54:01`, the first half of addresses whose second half is random, or
/// `52:54:01:00:00:01-52:54:01:00:ff:ff`, both included, which are taken in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacSource {
    /// The first three octets (IEEE 802: organizationally unique identifier).
    Oui([u8; 3]),
    /// The first and the last address.
    Range(MacAddr, MacAddr),
}

/// A text that is no [`MacSource`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a source of MAC addresses: use 52:54:01 or FIRST-LAST with colons, unicast and in order"
)]
pub struct InvalidMacSource(String);

impl MacSource {
    /// `count` addresses, each of which is free.
    pub(super) fn draw(
        self,
        count: usize,
        mut is_free: impl FnMut(MacAddr) -> bool,
    ) -> Result<Vec<MacAddr>, PoolError> {
        let mut drawn = Vec::with_capacity(count);
        match self {
            Self::Oui(oui) => {
                // With nine of ten taken, a free one takes ten draws; two hundred in vain mean that it is full.
                const DRAWS: usize = 200;
                let mut vain = 0;
                while drawn.len() < count && vain < DRAWS {
                    let random = getrandom::u32().map_err(|_| PoolError::Random)?;
                    let half = u64::from_be_bytes([0, 0, oui[0], oui[1], oui[2], 0, 0, 0]);
                    match address(half | u64::from(random >> 8)) {
                        Ok(mac) if !drawn.contains(&mac) && is_free(mac) => {
                            drawn.push(mac);
                            vain = 0;
                        }
                        _ => vain += 1,
                    }
                }
            }
            Self::Range(first, last) => {
                let all = (number(first)..=number(last)).filter_map(|number| address(number).ok());
                drawn.extend(all.filter(|mac| is_free(*mac)).take(count));
            }
        }
        if drawn.len() < count {
            return Err(PoolError::MacsExhausted { source_text: self, wanted: count });
        }
        Ok(drawn)
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some((first, last)) = text.split_once('-') {
            let (first, last): (MacAddr, MacAddr) = (first.parse().ok()?, last.parse().ok()?);
            return (first <= last).then_some(Self::Range(first, last));
        }
        // It has the form of the first half of an address, and is one with any second half.
        let [a, b, c, ..] = format!("{text}:00:00:01").parse::<MacAddr>().ok()?.octets();
        Some(Self::Oui([a, b, c]))
    }
}

fn number(mac: MacAddr) -> u64 {
    mac.octets().into_iter().fold(0, |number, octet| number << 8 | u64::from(octet))
}

fn address(number: u64) -> Result<MacAddr, InvalidIdentity> {
    let [_, _, octets @ ..] = number.to_be_bytes();
    MacAddr::new(octets)
}

impl FromStr for MacSource {
    type Err = InvalidMacSource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or_else(|| InvalidMacSource(text.chars().take(80).collect()))
    }
}

impl fmt::Display for MacSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oui([a, b, c]) => write!(f, "{a:02x}:{b:02x}:{c:02x}"),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn sources_are_read_and_shown() {
        for good in ["52:54:01", "52:54:01:00:00:01-52:54:01:00:ff:ff", "00:00:00"] {
            assert_eq!(good.parse::<MacSource>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "52:54",
            "01:00:5e",
            "52:54:01:00",
            "52-54-01",
            "52:54:01:00:00:02-52:54:01:00:00:01",
            "52:54:01:00:00:02-",
            "52:54:01-52:54:02",
        ] {
            assert!(bad.parse::<MacSource>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_range_is_taken_in_order_until_it_is_empty() {
        let source: MacSource = "52:54:01:00:00:fe-52:54:01:00:01:01".parse().unwrap();
        let taken: MacAddr = "52:54:01:00:00:ff".parse().unwrap();
        let drawn: Vec<_> =
            source.draw(3, |mac| mac != taken).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(drawn, ["52:54:01:00:00:fe", "52:54:01:00:01:00", "52:54:01:00:01:01"]);
        assert!(matches!(
            source.draw(4, |mac| mac != taken),
            Err(PoolError::MacsExhausted { wanted: 4, .. })
        ));
    }

    #[test]
    fn an_oui_gives_addresses_that_differ() {
        let source: MacSource = "52:54:01".parse().unwrap();
        let drawn: HashSet<_> = source.draw(500, |_| true).unwrap().into_iter().collect();
        assert_eq!(drawn.len(), 500);
        assert!(drawn.iter().all(|mac| mac.octets()[..3] == [0x52, 0x54, 0x01]));
        assert!(source.draw(1, |_| false).is_err());
    }
}
