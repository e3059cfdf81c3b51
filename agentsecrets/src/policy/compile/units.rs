//! Parses the quantities of a policy: `60/m`, `10MiB`, `60s`. Anything else is an error, since a misread
//! limit would be no limit.

use crate::types::printable::excerpt;
use std::time::Duration;

use crate::policy::rate_limit::Rate;

/// Parses `60/m`: a count of at least 1 in each second, minute, hour or day.
pub(super) fn parse_rate(text: &str) -> Result<Rate, String> {
    let error = || {
        format!("'{}' is not a rate: write a count and a period, such as 60/m (s, m, h or d)", excerpt(text))
    };
    let (count, unit) = text.split_once('/').ok_or_else(error)?;
    let count = digits(count).and_then(|count| u32::try_from(count).ok()).filter(|count| *count > 0);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(error()),
    };
    Ok(Rate { count: count.ok_or_else(error)?, period: Duration::from_secs(seconds) })
}

/// Parses `10MiB`: a number of bytes, with or without a unit.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let error =
        || format!("'{}' is not a size: write bytes, such as 512, 64KiB, 10MiB, 10MB or 1GiB", excerpt(text));
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at_checked(end).ok_or_else(error)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(error()),
    };
    digits(count).and_then(|count| count.checked_mul(factor)).ok_or_else(error)
}

/// Parses `60s`: a whole number of seconds, minutes or hours, at least one second.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let error = || format!("'{}' is not a time: write a number and s, m or h, such as 60s", excerpt(text));
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at_checked(end).ok_or_else(error)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(error()),
    };
    let seconds = digits(count).and_then(|count| count.checked_mul(factor)).filter(|seconds| *seconds > 0);
    Ok(Duration::from_secs(seconds.ok_or_else(error)?))
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
    fn quantities_are_parsed() {
        assert_eq!(parse_rate("60/m").unwrap(), Rate { count: 60, period: Duration::from_secs(60) });
        assert_eq!(parse_size("10MiB").unwrap(), 10 << 20);
        assert_eq!(parse_size("10MB").unwrap(), 10_000_000);
        assert_eq!(parse_size("512").unwrap(), 512);
        assert_eq!(parse_duration("60s").unwrap(), Duration::from_secs(60));
    }

    #[test]
    fn invalid_quantity_is_refused() {
        for bad in ["", "60", "/m", "0/m", "-1/m", "60/w", "60/mm", "6 0/m", "+6/m", "99999999999/m"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
        for bad in ["", "MiB", "10 MiB", "10mib", "-1", "1.5MiB", "99999999999GiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        for bad in ["", "60", "s", "0s", "1d", "60ss"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
