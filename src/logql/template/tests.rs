//! Templates filled in for one entry. What is expected was written by Go's own `text/template`
//! with sprig's functions.

use super::{Data, Program, Template};

struct Sample;

const LABELS: [(&str, &str); 5] = [
    ("a", "1"),
    ("f", "2.5"),
    ("j", r#"{"k":[1,"two",{"z":true},null],"o":{"x":null}}"#),
    ("n", "7"),
    ("t", "Hello World"),
];

impl Data for Sample {
    fn label(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = LABELS.iter().find(|(n, _)| *n == name)?;
        Some(value.as_bytes())
    }

    fn labels(&self) -> Vec<(String, Vec<u8>)> {
        let owned = |(n, v): &(&str, &str)| ((*n).to_owned(), v.as_bytes().to_vec());
        LABELS.iter().map(owned).collect()
    }

    fn line(&self) -> &[u8] {
        b"the line"
    }

    fn timestamp(&self) -> i64 {
        1_700_000_000_123_456_789
    }
}

fn run(text: &str) -> Result<String, String> {
    let template = Template::parse("line", text).map_err(|e| format!("PARSE {e}"))?;
    let out = Program::new(template).run(&Sample)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}
