//! Names that lines give to labels, made fit.

/// Appends `raw` to `out` with every character but ASCII letters, digits and `_` replaced by
/// `_`. A name that would begin with a digit gets a `_` in front. False: nothing was left.
pub fn push_sanitised(out: &mut String, raw: &[u8]) -> bool {
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let raw = raw.trim_ascii();
    if raw.is_empty() {
        return false;
    }
    if out.is_empty() && raw[0].is_ascii_digit() {
        out.push('_');
    }
    if raw.iter().all(is_plain)
        && let Ok(text) = std::str::from_utf8(raw)
    {
        out.push_str(text);
        return true;
    }
    for chunk in raw.utf8_chunks() {
        for c in chunk.valid().chars() {
            let fits = c.is_ascii_alphanumeric() || c == '_';
            out.push(if fits { c } else { '_' });
        }
        if !chunk.invalid().is_empty() {
            out.push('_');
        }
    }
    true
}
