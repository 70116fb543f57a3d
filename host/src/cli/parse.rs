//! Values of arguments.

use std::time::Duration;

/// Bytes, as QEMU writes them: `512M`, `1G`; a plain number is MiB.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let form = || format!("{text:?} is not a size: use 512M, 1G or the like");
    let text_without_b = text.strip_suffix("iB").unwrap_or(text);
    let digits = text_without_b.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text_without_b[digits.len()..] {
        "K" | "k" => 10,
        "" | "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return Err(form()),
    };
    let number: u64 = digits.parse().map_err(|_| form())?;
    number.checked_mul(1 << shift).ok_or_else(form)
}

/// A duration: `90s`, `5min`, `1h 30m`; a plain number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("{text:?} is not a duration like 90s or 5min: {error}"))
}

/// How many children: at least one, and no more than one command should make.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1000) => Ok(count),
        _ => Err(format!("{text:?} is not a number from 1 to 1000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in
            [("512M", 512 << 20), ("1G", 1 << 30), ("1GiB", 1 << 30), ("64", 64 << 20), ("2048k", 2 << 20)]
        {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for bad in ["", "G", "-1G", "1.5G", "1GB", "99999999999T", "1X"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("300s"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5min"), Ok(Duration::from_secs(300)));
        assert!(duration("soon").is_err());
    }
}
