//! Decimal arithmetic for `addf` and its like: 0.1 + 0.2 is 0.3.

/// `digits` times ten to the power of `exponent`. 36 digits are kept, twice what a float has.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    digits: i128,
    exponent: i32,
}

const LIMIT: i128 = 10i128.pow(36);
/// Places behind the point of a quotient.
const QUOTIENT_PLACES: i32 = 16;

impl Decimal {
    /// The shortest decimal that is this float.
    pub fn of(value: f64) -> Result<Self, String> {
        if !value.is_finite() {
            let text = super::super::float::shortest(value);
            return Err(format!("Cannot create a Decimal from {text}"));
        }
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        Ok(Self {
            digits: format!("{whole}{fraction}").parse().unwrap_or(0),
            exponent: exponent.parse::<i32>().unwrap_or(0) - fraction.len() as i32,
        })
    }

    pub fn to_float(self) -> f64 {
        // Always a number: digits, an exponent.
        format!("{}e{}", self.digits, self.exponent)
            .parse()
            .unwrap_or(0.0)
    }

    /// One digit less.
    fn shorter(self) -> Self {
        Self {
            digits: divide(self.digits, 10),
            exponent: self.exponent + 1,
        }
    }

    /// Both with one exponent; the larger loses no digit that a float could show.
    fn aligned(mut self, mut other: Self) -> (Self, Self) {
        if self.digits == 0 {
            self.exponent = other.exponent;
        }
        if other.digits == 0 {
            other.exponent = self.exponent;
        }
        while self.exponent != other.exponent {
            let (high, low) = if self.exponent > other.exponent {
                (&mut self, &mut other)
            } else {
                (&mut other, &mut self)
            };
            if high.digits.abs() < LIMIT / 10 {
                high.digits *= 10;
                high.exponent -= 1;
            } else {
                *low = low.shorter();
            }
        }
        (self, other)
    }

    pub fn plus(self, other: Self) -> Self {
        let (a, b) = self.aligned(other);
        Self {
            digits: a.digits + b.digits,
            exponent: a.exponent,
        }
        .bounded()
    }

    pub fn minus(self, other: Self) -> Self {
        self.plus(Self {
            digits: -other.digits,
            ..other
        })
    }

    pub fn times(self, other: Self) -> Self {
        let (mut a, mut b) = (self, other);
        loop {
            if let Some(digits) = a.digits.checked_mul(b.digits) {
                return Self {
                    digits,
                    exponent: a.exponent.saturating_add(b.exponent),
                }
                .bounded();
            }
            if a.digits.abs() > b.digits.abs() {
                a = a.shorter();
            } else {
                b = b.shorter();
            }
        }
    }

    /// Rounded to [`QUOTIENT_PLACES`].
    pub fn over(self, other: Self) -> Result<Self, String> {
        if other.digits == 0 {
            return Err("decimal division by 0".to_owned());
        }
        let (mut dividend, mut divisor) = (self.digits, other.digits);
        let mut shift = self.exponent - other.exponent + QUOTIENT_PLACES;
        while shift > 0 && dividend.abs() < LIMIT && dividend != 0 {
            dividend *= 10;
            shift -= 1;
        }
        while shift < 0 && divisor.abs() < LIMIT {
            divisor *= 10;
            shift += 1;
        }
        if shift < 0 {
            (dividend, shift) = (0, 0);
        }
        Ok(Self {
            digits: divide(dividend, divisor),
            exponent: shift - QUOTIENT_PLACES,
        }
        .bounded())
    }

    fn bounded(mut self) -> Self {
        while self.digits.abs() >= LIMIT {
            self = self.shorter();
        }
        self
    }
}

/// Half away from zero.
fn divide(dividend: i128, divisor: i128) -> i128 {
    let quotient = dividend / divisor;
    let rest = (dividend % divisor).unsigned_abs();
    if rest.saturating_mul(2) < divisor.unsigned_abs() {
        return quotient;
    }
    quotient
        + if (dividend < 0) == (divisor < 0) {
            1
        } else {
            -1
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_compute_as_on_paper() {
        let of = |x: f64| Decimal::of(x).unwrap();
        assert_eq!(of(0.1).plus(of(0.2)).to_float(), 0.3);
        assert_eq!(of(5.0).minus(of(1.1)).to_float(), 3.9);
        assert_eq!(of(1.1).times(of(1.1)).to_float(), 1.21);
        assert_eq!(of(1e300).plus(of(1e-300)).to_float(), 1e300);
        assert_eq!(of(1e300).times(of(1e300)).to_float(), f64::INFINITY);
        let over = |a: f64, b: f64| of(a).over(of(b)).unwrap().to_float();
        assert_eq!(over(1.0, 3.0), 0.333_333_333_333_333_3);
        assert_eq!(over(10.0, 4.0), 2.5);
        assert_eq!(over(1.0, 1e20), 0.0);
        assert_eq!(over(2.0, 7e-5), 28_571.428_571_428_572);
        assert_eq!(over(1e300, 1e-300), f64::INFINITY);
        assert_eq!(over(0.0, 5e-324), 0.0);
        assert_eq!(over(f64::MAX, f64::MAX), 1.0);
        assert!(of(1.0).over(of(0.0)).is_err());
        assert!(Decimal::of(f64::NAN).is_err());
    }
}
