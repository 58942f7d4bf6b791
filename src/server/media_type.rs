//! The media type that a `Content-Type` names, without its parameters.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// The lower-case media type, or why there is none, in the words of Go's parser.
pub fn media_type(headers: &HeaderMap) -> Result<String, &'static str> {
    let value = headers
        .get(CONTENT_TYPE)
        .map_or(&b""[..], |value| value.as_bytes());
    let essence = value
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    if essence.is_empty() {
        return Err("mime: no media type");
    }
    let is_token = |part: &[u8]| {
        !part.is_empty()
            && part
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(byte))
    };
    let mut parts = essence.splitn(2, |byte| *byte == b'/');
    let first = parts.next().unwrap_or_default();
    if !is_token(first) {
        return Err("mime: expected token before slash");
    }
    match parts.next() {
        Some(second) if !is_token(second) => Err("mime: expected token after slash"),
        _ => Ok(String::from_utf8_lossy(essence).to_ascii_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_do_not_matter() {
        let parse = |text: &str| {
            media_type(&HeaderMap::from_iter([(
                CONTENT_TYPE,
                text.parse().unwrap(),
            )]))
        };
        assert_eq!(
            parse("Application/X-Thrift; charset=utf-8").as_deref(),
            Ok("application/x-thrift")
        );
        assert_eq!(parse("foo").as_deref(), Ok("foo"));
        assert!(
            parse("a b/c").is_err()
                && parse("a/").is_err()
                && parse("/x").is_err()
                && parse("").is_err()
        );
        assert!(media_type(&HeaderMap::new()).is_err());
    }
}
