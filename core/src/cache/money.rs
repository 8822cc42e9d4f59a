//! US dollars as whole nano-dollars: sums of millions of small costs stay exact.

use crate::limits::COST_MAX_NANO_USD;

const NANO: u64 = 1_000_000_000;
const DECIMALS: usize = 9;

/// Reads a decimal such as `0.0042`; digits past the ninth decimal are refused, not rounded away.
/// `None` for anything else, and for amounts past the bound.
pub fn parse_usd(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > DECIMALS || whole.len() > DECIMALS {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let nano: u64 = if fraction.is_empty() { 0 } else { format!("{fraction:0<9}").parse().ok()? };
    let total = whole.checked_mul(NANO)?.checked_add(nano)?;
    (total <= COST_MAX_NANO_USD).then_some(total)
}

/// Writes nano-dollars as a decimal without trailing zeros.
pub fn format_usd(nano: u128) -> String {
    let (whole, fraction) = (nano / u128::from(NANO), nano % u128::from(NANO));
    let text = format!("{whole}.{fraction:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_round_trip() {
        for (text, nano) in [
            ("0", 0),
            ("0.0042", 4_200_000),
            (".5", 500_000_000),
            ("12.", 12 * NANO),
            ("0.000000001", 1),
            ("1.5000000000000", 1_500_000_000),
            ("1000000", COST_MAX_NANO_USD),
        ] {
            assert_eq!(parse_usd(text.as_bytes()), Some(nano), "{text}");
        }
        assert_eq!(format_usd(4_200_000), "0.0042");
        assert_eq!(format_usd(12 * u128::from(NANO)), "12");
        assert_eq!(format_usd(0), "0");
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", ".", "-1", "1e3", "0.0000000001", "1000000.1", "1,5", "٣", "99999999999"]
        {
            assert_eq!(parse_usd(text.as_bytes()), None, "{text}");
        }
    }
}
