//! Sizes and durations as people write them.

use std::time::Duration;

const SIZES: [(&str, u64); 12] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    // A bare number is bytes.
    ("", 1),
    ("bytes", 1),
];

const DURATIONS: [(&str, u64); 7] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("y", 365 * 24 * 3_600_000),
];

/// What a size may look like, for error texts.
pub const SIZE_FORM: &str = "a size such as 256MiB, 1.5GiB or 20GB";
/// What a duration may look like, for error texts.
pub const DURATION_FORM: &str = "a duration such as 30d, 12h, 90s or 1h30m";

/// Bytes of `256MiB` (powers of 1024), `256MB` (of 1000), `1.5GiB` or a bare number.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .bytes()
        .take_while(|b| b.is_ascii_digit() || *b == b'.')
        .count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let factor = SIZES.iter().find(|(name, _)| *name == unit)?.1;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || (number.contains('.') && !is_number(fraction)) || fraction.len() > 9 {
        return None;
    }
    let bytes = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    if fraction.is_empty() {
        return Some(bytes);
    }
    let scale = 10u128.pow(fraction.len() as u32);
    let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(factor) / scale;
    bytes.checked_add(u64::try_from(part).ok()?)
}

/// `30d`, `12h`, `1h30m`: whole numbers with units from y to ms, larger units first; or `0`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = 0u64;
    let mut smaller_than = u64::MAX;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number = rest[..digits].parse::<u64>().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = DURATIONS
            .iter()
            .find(|(name, _)| *name == &rest[..letters])?
            .1;
        if unit >= smaller_than {
            return None;
        }
        smaller_than = unit;
        rest = &rest[letters..];
        total = total.checked_add(number.checked_mul(unit)?)?;
    }
    Some(Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_binary_or_decimal_by_their_unit() {
        for (text, expected) in [
            ("256MiB", Some(256 << 20)),
            ("256 MiB", Some(256 << 20)),
            ("20GB", Some(20_000_000_000)),
            ("1.5GiB", Some(3 << 29)),
            ("0", Some(0)),
            ("1048576", Some(1 << 20)),
            ("10kB", Some(10_000)),
            ("16777215TiB", Some(16_777_215 << 40)),
            ("16777216TiB", None),
            ("256mib", None),
            ("256M", None),
            ("-1MiB", None),
            ("1.MiB", None),
            (".5MiB", None),
            ("MiB", None),
            ("", None),
        ] {
            assert_eq!(parse_size(text), expected, "{text}");
        }
    }

    #[test]
    fn durations_go_from_large_units_to_small_ones() {
        for (text, seconds) in [
            ("30d", Some(2_592_000)),
            ("721h", Some(2_595_600)),
            ("1h30m", Some(5_400)),
            ("1w", Some(604_800)),
            ("1y", Some(31_536_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("30", None),
            ("30m1h", None),
            ("1h1h", None),
            ("1.5h", None),
            ("30 d", None),
            ("-1h", None),
            ("", None),
            ("99999999999999999999h", None),
            ("9999999999999999y", None),
        ] {
            assert_eq!(
                parse_duration(text),
                seconds.map(Duration::from_secs),
                "{text}"
            );
        }
        assert_eq!(parse_duration("1s5ms"), Some(Duration::from_millis(1_005)));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,20}") {
            let _ = (parse_size(&text), parse_duration(&text));
        }
    }
}
