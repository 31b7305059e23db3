//! Text to quantities and back: durations, sizes, rates, names, signals.
//!
//! Nothing here guesses: a number without a unit is refused, and so is a unit that means different things to different people (`MB`).

use std::time::Duration;

const MS: u64 = 1;
const SECOND: u64 = 1_000 * MS;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Longest unit first, as printing wants it.
const DURATIONS: &[(&str, u64)] = &[("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", MS)];
const SIZES: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const PERIODS: &[(&str, f64)] = &[("hour", 720.0), ("day", 30.0), ("week", 30.0 / 7.0), ("month", 1.0), ("year", 30.0 / 365.0)];
const SIGNALS: &[(&str, i32)] = &[
    ("SIGHUP", libc::SIGHUP),
    ("SIGUSR1", libc::SIGUSR1),
    ("SIGUSR2", libc::SIGUSR2),
    ("SIGWINCH", libc::SIGWINCH),
    ("SIGCONT", libc::SIGCONT),
];

/// Splits `250ms` into 250 and `ms`.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// `10s`, `250ms`, `2m`, `1h`, `7d`; in milliseconds. The error says what is wrong with it.
pub(super) fn duration_ms(text: &str) -> Result<u64, String> {
    let Some((number, unit)) = number_and_unit(text) else {
        return Err("it does not begin with a whole number".into());
    };
    let Some((_, ms)) = DURATIONS.iter().find(|(name, _)| *name == unit) else {
        return Err(match unit {
            "" => format!("a unit is missing: write \"{number}s\" or \"{number}ms\""),
            _ => format!("the unit `{unit}` is not one of ms, s, m, h, d"),
        });
    };
    number.checked_mul(*ms).ok_or_else(|| "it is too long".into())
}

/// `512B`, `64KiB`, `16MiB`, `1GiB`; in bytes.
pub(super) fn size_bytes(text: &str) -> Result<u64, String> {
    let Some((number, unit)) = number_and_unit(text) else {
        return Err("it does not begin with a whole number".into());
    };
    let Some((_, bytes)) = SIZES.iter().find(|(name, _)| *name == unit) else {
        return Err(match unit {
            "" => format!("a unit is missing: write \"{number}KiB\" or \"{number}MiB\""),
            "KB" | "kB" | "MB" | "GB" => format!("write {}iB: units are powers of 1024", &unit[..1].to_uppercase()),
            _ => format!("the unit `{unit}` is not one of B, KiB, MiB, GiB"),
        });
    };
    number.checked_mul(*bytes).ok_or_else(|| "it is too large".into())
}

/// `1 per month`, `3 per year`; per 30 days.
pub(super) fn rate_per_month(text: &str) -> Result<f64, String> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [number, "per", period] = words.as_slice() else {
        return Err("it is not of the form \"1 per month\"".into());
    };
    let number: u32 = number.parse().map_err(|_| format!("`{number}` is not a whole number"))?;
    let Some((_, factor)) = PERIODS.iter().find(|(name, _)| name == period) else {
        return Err(format!("`{period}` is not one of hour, day, week, month, year"));
    };
    Ok(f64::from(number) * factor)
}

/// The number of a signal that a program can be told its role by.
pub(super) fn signal(name: &str) -> Option<i32> {
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// Names of clusters, nodes, groups, members and zones: they appear in certificates, paths, labels and host names, so no hyphen at the ends.
pub(super) fn is_name(text: &str) -> bool {
    let ends = |c| text.starts_with(c) || text.ends_with(c);
    (1..=32).contains(&text.len()) && !ends('-') && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// As a person writes it in the file: `1500ms`, `10s`, `2m`.
pub(super) fn show_duration_ms(ms: u64) -> String {
    let (unit, size) = DURATIONS.iter().find(|(_, size)| ms >= *size && ms.is_multiple_of(*size)).unwrap_or(&("ms", MS));
    format!("{}{unit}", ms / size)
}

/// As a person writes it in the file: `16MiB`.
pub(super) fn show_size(bytes: u64) -> String {
    let (unit, size) = SIZES.iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size)).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / size)
}

/// See [`show_duration_ms`].
pub(super) fn show_duration(span: Duration) -> String {
    show_duration_ms(millis(span))
}

/// Whole milliseconds; configured spans are never longer than fits.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_that_is_known() {
        assert_eq!(duration_ms("10s"), Ok(10_000));
        assert_eq!(duration_ms("250ms"), Ok(250));
        assert_eq!(duration_ms("2m"), Ok(120_000));
        assert_eq!(duration_ms("7d"), Ok(604_800_000));
        assert!(duration_ms("10").unwrap_err().contains("\"10s\""));
        assert!(duration_ms("1.5s").unwrap_err().contains(".5s"));
        assert!(duration_ms("").is_err());
        assert!(duration_ms("99999999999999999d").unwrap_err().contains("too long"));
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size_bytes("16MiB"), Ok(16 << 20));
        assert!(size_bytes("16MB").unwrap_err().contains("MiB"));
        assert!(size_bytes("16").unwrap_err().contains("16MiB"));
    }

    #[test]
    fn rates_are_per_thirty_days() {
        assert_eq!(rate_per_month("1 per month"), Ok(1.0));
        assert_eq!(rate_per_month("2 per day"), Ok(60.0));
        assert!(rate_per_month("often").is_err());
        assert!(rate_per_month("1 per moon").unwrap_err().contains("moon"));
    }

    #[test]
    fn what_is_shown_can_be_written() {
        for ms in [1, 250, 1_000, 1_500, 60_000, 90_000, 3_600_000, 86_400_000] {
            assert_eq!(duration_ms(&show_duration_ms(ms)), Ok(ms));
        }
        assert_eq!(show_size(16 << 20), "16MiB");
        assert_eq!(show_size(1_000), "1000B");
    }
}
