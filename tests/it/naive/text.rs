//! What lines and values say, read in the plainest way: one character after the other.

/// A JSON value. Numbers and booleans as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Text(String),
    Plain(String),
    Null,
    /// With its text.
    List(Vec<Json>, String),
    Object(Vec<(String, Json)>, String),
}

/// Reads JSON as far as it goes.
pub struct JsonText {
    text: Vec<char>,
    at: usize,
}

/// A member of an object: the names of the objects around it and its own, and its value.
pub type Member = (Vec<String>, Json);

impl JsonText {
    pub fn new(text: &str) -> Self {
        Self {
            text: text.chars().collect(),
            at: 0,
        }
    }

    pub fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    pub fn blanks(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\r' | '\n')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        self.at += usize::from(found);
        found
    }

    fn string(&mut self) -> Option<String> {
        if !self.eat('"') {
            return None;
        }
        let mut out = String::new();
        loop {
            let c = self.peek()?;
            self.at += 1;
            match c {
                '"' => return Some(out),
                '\\' => {
                    let escape = self.peek()?;
                    self.at += 1;
                    out.push(match escape {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        'b' => '\u{8}',
                        'f' => '\u{c}',
                        '"' | '\\' | '/' => escape,
                        'u' => {
                            let digits: String =
                                self.text.get(self.at..self.at + 4)?.iter().collect();
                            self.at += 4;
                            char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?
                        }
                        _ => return None,
                    });
                }
                c => out.push(c),
            }
        }
    }

    /// All leaves of the object at hand, in order, until `take` says that it is enough. False:
    /// the text is broken.
    pub fn leaves(&mut self, path: &[String], take: &mut dyn FnMut(Member) -> bool) -> Walk {
        if !self.eat('{') {
            return Walk::Broken;
        }
        self.blanks();
        if self.eat('}') {
            return Walk::Done;
        }
        loop {
            let Some(key) = self.string() else {
                return Walk::Broken;
            };
            self.blanks();
            if !self.eat(':') {
                return Walk::Broken;
            }
            self.blanks();
            let mut path = path.to_vec();
            path.push(key);
            if self.peek() == Some('{') {
                match self.leaves(&path, take) {
                    Walk::Done => {}
                    other => return other,
                }
            } else {
                let Some(value) = self.value() else {
                    return Walk::Broken;
                };
                if take((path, value)) {
                    return Walk::Enough;
                }
            }
            self.blanks();
            let comma = self.eat(',');
            self.blanks();
            if self.eat('}') {
                return Walk::Done;
            }
            if !comma {
                return Walk::Broken;
            }
        }
    }

    pub fn value(&mut self) -> Option<Json> {
        let start = self.at;
        let text = |me: &Self| me.text[start..me.at].iter().collect::<String>();
        match self.peek()? {
            '"' => self.string().map(Json::Text),
            '{' => {
                let mut members = Vec::new();
                self.at += 1;
                self.blanks();
                if self.eat('}') {
                    return Some(Json::Object(members, text(self)));
                }
                loop {
                    let key = self.string()?;
                    self.blanks();
                    if !self.eat(':') {
                        return None;
                    }
                    self.blanks();
                    members.push((key, self.value()?));
                    self.blanks();
                    let comma = self.eat(',');
                    self.blanks();
                    if self.eat('}') {
                        return Some(Json::Object(members, text(self)));
                    }
                    if !comma {
                        return None;
                    }
                }
            }
            '[' => {
                let mut items = Vec::new();
                self.at += 1;
                self.blanks();
                if self.eat(']') {
                    return Some(Json::List(items, text(self)));
                }
                loop {
                    items.push(self.value()?);
                    self.blanks();
                    if self.eat(']') {
                        return Some(Json::List(items, text(self)));
                    }
                    if !self.eat(',') {
                        return None;
                    }
                    self.blanks();
                }
            }
            _ => {
                while matches!(self.peek(), Some(c) if c.is_ascii_alphanumeric() || "+-.".contains(c))
                {
                    self.at += 1;
                }
                match text(self).as_str() {
                    "null" => Some(Json::Null),
                    "true" => Some(Json::Plain("true".into())),
                    "false" => Some(Json::Plain("false".into())),
                    number if number.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                        Some(Json::Plain(number.to_owned()))
                    }
                    _ => None,
                }
            }
        }
    }

    /// Goes to the value at a path such as `user.tags[1]`; what is before it must be whole but
    /// for commas between members.
    pub fn seek(&mut self, path: &str) -> Option<()> {
        self.blanks();
        for step in path
            .replace("[\"", ".")
            .replace("\"]", "")
            .replace('[', ".#")
            .replace(']', "")
            .split('.')
        {
            if let Some(index) = step.strip_prefix('#') {
                let index: usize = index.parse().ok()?;
                if !self.eat('[') {
                    return None;
                }
                self.blanks();
                if self.peek() == Some(']') {
                    return None;
                }
                for _ in 0..index {
                    self.value()?;
                    self.blanks();
                    if !self.eat(',') {
                        return None;
                    }
                    self.blanks();
                }
                continue;
            }
            if !self.eat('{') {
                return None;
            }
            self.blanks();
            loop {
                let key = self.string()?;
                self.blanks();
                if !self.eat(':') {
                    return None;
                }
                self.blanks();
                if key == step {
                    break;
                }
                self.value()?;
                self.blanks();
                if !self.eat(',') && self.peek() != Some('"') {
                    return None;
                }
                self.blanks();
            }
        }
        Some(())
    }
}

/// How a walk through an object ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Walk {
    Done,
    Enough,
    Broken,
}

/// `None` stands for a pair that is broken.
pub fn logfmt_pairs(line: &str) -> Vec<Option<(String, String)>> {
    let text: Vec<char> = line.chars().collect();
    let mut pairs = Vec::new();
    let mut at = 0;
    let ends_word = |c: char| c <= ' ';
    loop {
        while at < text.len() && ends_word(text[at]) {
            at += 1;
        }
        if at == text.len() {
            return pairs;
        }
        let rest_of_word = |mut at: usize| {
            while at < text.len() && !ends_word(text[at]) {
                at += 1;
            }
            at
        };
        let start = at;
        while at < text.len() && !ends_word(text[at]) && text[at] != '=' && text[at] != '"' {
            at += 1;
        }
        let key: String = text[start..at].iter().collect();
        if at == text.len() || ends_word(text[at]) {
            pairs.push(Some((key, String::new())));
            continue;
        }
        if text[at] == '"' || key.is_empty() {
            pairs.push(None);
            at = rest_of_word(at);
            continue;
        }
        at += 1;
        if at < text.len() && text[at] == '"' {
            let mut reader = JsonText {
                text: text.clone(),
                at,
            };
            match reader.string() {
                Some(value) => {
                    pairs.push(Some((key, value)));
                    at = reader.at;
                }
                None => {
                    pairs.push(None);
                    at = text.len();
                }
            }
            continue;
        }
        let start = at;
        at = rest_of_word(at);
        let value: String = text[start..at].iter().collect();
        pairs.push((!value.contains(['=', '"'])).then_some((key, value)));
    }
}

/// A name made fit for a label, after what stands before it.
pub fn sanitised(parts: &[String]) -> Option<String> {
    let mut name = String::new();
    for part in parts {
        let part = part.trim();
        if part.is_empty() {
            return None;
        }
        if !name.is_empty() || part.starts_with(|c: char| c.is_ascii_digit()) {
            name.push('_');
        }
        for c in part.chars() {
            name.push(if c.is_ascii_alphanumeric() { c } else { '_' });
        }
    }
    Some(name)
}

/// Seconds of `1h2m0.5s`.
pub fn duration(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    if rest == "0" {
        return Some(0.0);
    }
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        total += number
            * match unit {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
    }
    Some(sign * total)
}

/// Bytes of `1.5 kB`.
pub fn size(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let number: f64 = number.parse().ok()?;
    let factor = match unit.trim().to_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" | "k" => 1e3,
        "mb" | "m" => 1e6,
        "gb" | "g" => 1e9,
        "kib" | "ki" => 1024.0,
        "mib" | "mi" => 1024.0 * 1024.0,
        "gib" | "gi" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some((number * factor).floor())
}

/// The parts of a pattern: literals, and captures with their names.
pub fn pattern(text: &str) -> Vec<Result<String, String>> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let name = rest.strip_prefix('<').and_then(|r| r.split_once('>'));
        match name {
            Some((name, after))
                if !name.is_empty()
                    && name.chars().all(|c| c.is_ascii_alphabetic() || c == '_') =>
            {
                if !literal.is_empty() {
                    parts.push(Ok(std::mem::take(&mut literal)));
                }
                parts.push(Err(name.to_owned()));
                rest = after;
            }
            _ => {
                let c = rest.chars().next().expect("not empty");
                literal.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    if !literal.is_empty() {
        parts.push(Ok(literal));
    }
    parts
}

/// IPv4 addresses in a line.
pub fn addresses(line: &str) -> Vec<u32> {
    let text: Vec<char> = line.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let starts = text[at].is_ascii_digit() && text[at + 1..].iter().take(3).any(|c| *c == '.');
        if !starts {
            at += 1;
            continue;
        }
        let run: String = text[at..]
            .iter()
            .take_while(|c| c.is_ascii_digit() || **c == '.')
            .collect();
        found.extend(address(&run));
        at += run.len();
    }
    found
}

pub fn address(text: &str) -> Option<u32> {
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() != 4 {
        return None;
    }
    let mut ip = 0;
    for part in parts {
        let leading_zero = part.len() > 1 && part.starts_with('0');
        if leading_zero || part.starts_with('+') {
            return None;
        }
        ip = ip << 8 | u32::from(part.parse::<u8>().ok()?);
    }
    Some(ip)
}

/// First and last address of an address, a network or a range.
pub fn network(text: &str) -> (u32, u32) {
    if let Some((first, last)) = text.split_once('-') {
        return (
            address(first).expect("an address"),
            address(last).expect("an address"),
        );
    }
    let (base, bits) = text.split_once('/').unwrap_or((text, "32"));
    let base = address(base).expect("an address");
    let size = 1u64 << (32 - bits.parse::<u32>().expect("bits"));
    let first = u64::from(base) / size * size;
    (first as u32, (first + size - 1) as u32)
}
