//! `ip("…")`: addresses, networks and ranges, found in a line or a label.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is compared with: an inclusive range of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IpPattern {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl IpPattern {
    /// An address, `address/bits`, or `first-last`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fail = || {
            format!(
                "invalid pattern {text:?}: expected an IP address, a CIDR network or a range of addresses"
            )
        };
        if let Some((first, last)) = text.split_once('-') {
            return match (address(first), address(last)) {
                (Some(IpAddr::V4(first)), Some(IpAddr::V4(last))) if first <= last => {
                    Ok(Self::V4(first, last))
                }
                (Some(IpAddr::V6(first)), Some(IpAddr::V6(last))) if first <= last => {
                    Ok(Self::V6(first, last))
                }
                _ => Err(fail()),
            };
        }
        if let Some((base, bits)) = text.split_once('/') {
            let bits: u32 = bits.parse().map_err(|_| fail())?;
            return match address(base) {
                Some(IpAddr::V4(base)) if bits <= 32 => {
                    let host = u32::MAX.checked_shr(bits).unwrap_or(0);
                    let first = u32::from(base) & !host;
                    Ok(Self::V4(first.into(), (first | host).into()))
                }
                Some(IpAddr::V6(base)) if bits <= 128 => {
                    let host = u128::MAX.checked_shr(bits).unwrap_or(0);
                    let first = u128::from(base) & !host;
                    Ok(Self::V6(first.into(), (first | host).into()))
                }
                _ => Err(fail()),
            };
        }
        match address(text) {
            Some(IpAddr::V4(ip)) => Ok(Self::V4(ip, ip)),
            Some(IpAddr::V6(ip)) => Ok(Self::V6(ip, ip)),
            None => Err(fail()),
        }
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self, ip) {
            (Self::V4(first, last), IpAddr::V4(ip)) => (*first..=*last).contains(&ip),
            (Self::V6(first, last), IpAddr::V6(ip)) => (*first..=*last).contains(&ip),
            _ => false,
        }
    }

    /// Whether any address in the line, or in the value of a label, fits. Runs that look like addresses and are none are
    /// skipped.
    pub fn found_in(&self, line: &[u8]) -> bool {
        let mut at = 0;
        while at < line.len() {
            let accepted: fn(&u8) -> bool = match self {
                Self::V4(..) if v4_starts(&line[at..]) => |b| b.is_ascii_digit() || *b == b'.',
                Self::V6(..) if v6_starts(&line[at..]) => {
                    |b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')
                }
                _ => {
                    at += 1;
                    continue;
                }
            };
            let len = line[at..].iter().take_while(|b| accepted(b)).count();
            if address_of(&line[at..at + len]).is_some_and(|ip| self.contains(ip)) {
                return true;
            }
            at += len;
        }
        false
    }
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// A digit with a dot within the next three characters.
fn v4_starts(rest: &[u8]) -> bool {
    rest[0].is_ascii_digit() && rest.iter().skip(1).take(3).any(|b| *b == b'.')
}

/// `::x`, or one to four hexadecimal digits and a colon.
fn v6_starts(rest: &[u8]) -> bool {
    if rest.starts_with(b"::") {
        return rest.get(2).is_some_and(u8::is_ascii_hexdigit);
    }
    let digits = rest
        .iter()
        .take(5)
        .take_while(|b| b.is_ascii_hexdigit())
        .count();
    (1..=4).contains(&digits) && rest.get(digits) == Some(&b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, line: &str, expected: bool) {
        let found = IpPattern::parse(pattern).unwrap().found_in(line.as_bytes());
        assert_eq!(found, expected, "{pattern} in {line}");
    }

    #[test]
    fn addresses_are_found_anywhere_in_a_line() {
        check("10.1.0.0/16", "from 10.1.2.3:80 to 9.9.9.9", true);
        check("10.1.0.0/16", "from 10.2.2.3 v1.2.3", false);
        check("192.168.1.1-192.168.1.9", "a=192.168.1.9", true);
        check("192.168.1.1-192.168.1.9", "a=192.168.1.10", false);
        check("0.0.0.0/0", "1.2.3 is a version, 5.6.7.8. too", false);
        check("2001:db8::/32", "[2001:db8::7]:443", true);
        check("::1", "host ::1 said", true);
        check("::1", "cafe:beef", false);
        check("10.0.0.1", "", false);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "999.1.1.1",
            "10.0.0.0/33",
            "10.0.0.1-",
            "1.1.1.2-1.1.1.1",
            "::1-1.1.1.1",
        ] {
            assert!(IpPattern::parse(bad).is_err(), "{bad}");
        }
    }
}
