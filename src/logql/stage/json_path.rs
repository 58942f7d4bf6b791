//! Paths of `json a="x.y[0][\"k\"]"`.

/// One step into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Field(String),
    Index(usize),
}

/// Steps from the line's value to the one that is wanted; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath(pub Vec<Step>);

impl JsonPath {
    /// `field`, `.field`, `["key"]` and `[n]`, one after the other.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                let inner = inner.trim_start();
                let (step, after) = if inner.starts_with('"') {
                    let (key, len) = crate::logql::lexer::unquote(inner)
                        .map_err(|e| format!("{e} in {inner:?}"))?;
                    (Step::Field(key), &inner[len..])
                } else {
                    let digits = inner.bytes().take_while(u8::is_ascii_digit).count();
                    let index = inner[..digits]
                        .parse()
                        .map_err(|_| format!("expected an index or a quoted key at {inner:?}"))?;
                    (Step::Index(index), &inner[digits..])
                };
                rest = after
                    .trim_start()
                    .strip_prefix(']')
                    .ok_or_else(|| format!("expected ] at {after:?}"))?;
                steps.push(step);
                continue;
            }
            let name = match rest.strip_prefix('.') {
                Some(name) if !steps.is_empty() => name,
                Some(_) => return Err("unexpected . at the start".to_owned()),
                None if steps.is_empty() => rest,
                None => return Err(format!("expected . or [ at {rest:?}")),
            };
            let len = name
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(name.len());
            if len == 0 || name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(format!("expected a field name at {name:?}"));
            }
            steps.push(Step::Field(name[..len].to_owned()));
            rest = &name[len..];
        }
        if steps.is_empty() {
            return Err("empty expression".to_owned());
        }
        Ok(Self(steps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_fields_and_indices() {
        let path = JsonPath::parse(r#"a["b c"].d[2]"#).unwrap();
        let field = |name: &str| Step::Field(name.to_owned());
        assert_eq!(
            path.0,
            [field("a"), field("b c"), field("d"), Step::Index(2)]
        );
        assert_eq!(JsonPath::parse(r#"["k"]"#).unwrap().0, [field("k")]);
        for bad in [
            "", "a..b", "a.", ".a", "a[", "a[x]", "a[1", "1a", "a b", "a-b", "[\"k\"", "[]",
        ] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
    }
}
