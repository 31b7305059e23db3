//! The list of revoked certificates beside the keys: the file `tls/revoked`.
//!
//! It must never pass over a line that it does not understand: whoever wrote it believes a certificate revoked that is not. Main path: [`revoked`].

/// The longest serial number that RFC 5280 allows (section 4.1.2.2).
const SERIAL_BYTES_MAX: usize = 20;

/// The serial numbers in the text of `revoked`, in lower-case hexadecimal: one a line, `#` begins a comment.
///
/// # Errors
/// The number of the first line that is no serial number.
pub fn revoked(text: &str) -> Result<Vec<String>, usize> {
    let mut serials = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let said = line.split('#').next().unwrap_or_default().trim();
        if !said.is_empty() {
            serials.push(serial(said).ok_or(at + 1)?);
        }
    }
    Ok(serials)
}

/// True if `list`, as [`revoked`] gives it, names the serial number.
#[must_use]
pub fn is_revoked(list: &[String], serial: &str) -> bool {
    let serial = normal_serial(serial);
    list.iter().any(|revoked| normal_serial(revoked) == serial)
}

/// A serial number as it is compared, from what people paste: `0A:1B`, `0a1b`. Leading zeros say nothing.
#[must_use]
pub fn normal_serial(serial: &str) -> String {
    let digits: String = serial.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_ascii_lowercase();
    digits.trim_start_matches('0').to_owned()
}

/// A serial number as people and programs write it: `6593ab`, `65:93:AB`, `serial=6593AB`.
fn serial(said: &str) -> Option<String> {
    let number = match said.split_once('=') {
        Some((name, number)) if name.eq_ignore_ascii_case("serial") => number,
        Some(_) => return None,
        None => said,
    };
    let pairs = number.contains(':');
    let whole =
        number.split(':').all(|part| !part.is_empty() && (!pairs || part.len() == 2) && part.bytes().all(|b| b.is_ascii_hexdigit()));
    let digits = number.replace(':', "").to_ascii_lowercase();
    // More is something else, a fingerprint most likely.
    (whole && digits.trim_start_matches('0').len() <= 2 * SERIAL_BYTES_MAX).then_some(digits)
}
