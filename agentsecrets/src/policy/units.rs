//! The small quantities of a policy: `60/m`, `10MiB`, `60s`. Anything that is not exactly such a quantity
//! is refused: a limit that was misread would be no limit.

use crate::types::printable::excerpt;
use std::time::Duration;

/// So many in each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    pub count: u32,
    pub period: Duration,
}

/// Reads `60/m`: a count of at least 1 in each second, minute, hour or day.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    let wrong = || {
        format!("'{}' is not a rate: write a count and a period, such as 60/m (s, m, h or d)", excerpt(text))
    };
    let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
    let count = digits(count).and_then(|count| u32::try_from(count).ok()).filter(|count| *count > 0);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    Ok(Rate { count: count.ok_or_else(wrong)?, period: Duration::from_secs(seconds) })
}

/// Reads `10MiB`: a number of bytes, with a unit or without.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("'{}' is not a size: write bytes, such as 512, 64KiB, 10MiB, 10MB or 1GiB", excerpt(text));
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at_checked(end).ok_or_else(wrong)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    digits(count).and_then(|count| count.checked_mul(factor)).ok_or_else(wrong)
}

/// Reads `60s`: a whole number of seconds, minutes or hours, at least one second.
pub(crate) fn wait(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{}' is not a time: write a number and s, m or h, such as 60s", excerpt(text));
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at_checked(end).ok_or_else(wrong)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(wrong()),
    };
    let seconds = digits(count).and_then(|count| count.checked_mul(factor)).filter(|seconds| *seconds > 0);
    Ok(Duration::from_secs(seconds.ok_or_else(wrong)?))
}

fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_exactly() {
        assert_eq!(rate("60/m").unwrap(), Rate { count: 60, period: Duration::from_secs(60) });
        assert_eq!(size("10MiB").unwrap(), 10 << 20);
        assert_eq!(size("10MB").unwrap(), 10_000_000);
        assert_eq!(size("512").unwrap(), 512);
        assert_eq!(wait("60s").unwrap(), Duration::from_secs(60));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for bad in ["", "60", "/m", "0/m", "-1/m", "60/w", "60/mm", "6 0/m", "+6/m", "99999999999/m"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        for bad in ["", "MiB", "10 MiB", "10mib", "-1", "1.5MiB", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        for bad in ["", "60", "s", "0s", "1d", "60ss"] {
            assert!(wait(bad).is_err(), "{bad}");
        }
    }
}
