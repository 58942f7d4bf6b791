//! Lines of one shape that have most of their words in common share a template.

use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_64;

use super::words::{MAX_LINE, MAX_TEMPLATE, Word, cut};

/// Templates of one miner; lines that would make more are not counted.
const MAX_CLUSTERS: usize = 4096;
/// From so many templates of one shape on, half of what must be in common is enough.
const CROWDED: usize = 8;
/// From so many on, anything is: the nearest template takes the line.
const FULL: usize = 16;

/// Lines that share a template.
struct Cluster {
    /// Of the line that made it: as much as was looked at.
    text: String,
    words: Vec<Word>,
    level: Box<str>,
    /// Words that neither vary nor name: what lines must have in common.
    fixed: u32,
}

/// Finds templates. Lines of different levels never share one.
#[derive(Default)]
pub struct Miner {
    clusters: Vec<Cluster>,
    by_shape: HashMap<u64, Vec<u32>>,
    words: Vec<Word>,
}

impl Miner {
    /// Adds a line; the number of its template. `None`: it is not UTF-8, or there are too
    /// many templates.
    pub fn add_line(&mut self, line: &[u8], level: &str) -> Option<usize> {
        self.add(line, level, MAX_LINE)
    }

    /// Adds a template that another miner made.
    pub fn add_template(&mut self, template: &str, level: &str) -> Option<usize> {
        self.add(template.as_bytes(), level, MAX_TEMPLATE)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.clusters.clear();
        self.by_shape.clear();
    }

    pub fn len(&self) -> usize {
        self.clusters.len()
    }

    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty()
    }

    fn add(&mut self, line: &[u8], level: &str, limit: usize) -> Option<usize> {
        let shape = cut(line, limit, &mut self.words) ^ xxh3_64(level.as_bytes());
        let group = self.by_shape.entry(shape).or_default();
        let mut best: Option<(u32, u32)> = None;
        for number in group.iter() {
            let cluster = &self.clusters[*number as usize];
            let Some(same) = common(cluster, &self.words, level) else {
                continue;
            };
            let enough = match group.len() {
                n if n >= FULL => true,
                n if n >= CROWDED => same * 4 >= cluster.fixed,
                _ => same * 2 > cluster.fixed || cluster.fixed == 0,
            };
            if enough && best.is_none_or(|(_, most)| same > most) {
                best = Some((*number, same));
                if same == cluster.fixed && cluster.fixed as usize == fixed(&self.words) {
                    break;
                }
            }
        }
        if let Some((number, same)) = best {
            let cluster = &mut self.clusters[number as usize];
            if same < cluster.fixed {
                cluster.generalise(&self.words);
            }
            return Some(number as usize);
        }
        if self.clusters.len() >= MAX_CLUSTERS {
            return None;
        }
        // What lies behind the last word is looked at when all of the line is.
        let taken = line.get(..limit).unwrap_or(line);
        let taken = match self.words.last() {
            Some(last) if last.end as usize > taken.len() => &line[..last.start as usize],
            _ => taken,
        };
        let text = std::str::from_utf8(taken).ok()?.to_owned();
        let number = self.clusters.len();
        group.push(number as u32);
        self.clusters.push(Cluster {
            text,
            level: level.into(),
            fixed: fixed(&self.words) as u32,
            words: self.words.clone(),
        });
        Some(number)
    }

    /// A template as LogQL's `|>` takes it (M2), and its level.
    pub fn template(&self, number: usize) -> (String, &str) {
        let Some(cluster) = self.clusters.get(number) else {
            return (String::new(), "");
        };
        let part = |from: u32, to: u32| {
            let end = (to as usize).min(cluster.text.len());
            cluster.text.get(from as usize..end).unwrap_or("")
        };
        let mut out = String::with_capacity(cluster.text.len());
        let mut at = 0;
        for word in &cluster.words {
            out.push_str(part(at, word.start));
            at = word.end;
            if !word.varies {
                out.push_str(part(word.start, word.end));
            } else if !out.ends_with("<_>") {
                out.push_str("<_>");
            }
        }
        out.push_str(part(at, u32::MAX));
        (out, &cluster.level)
    }
}

fn fixed(words: &[Word]) -> usize {
    words.iter().filter(|w| !w.varies && !w.names).count()
}

/// How many fixed words of the cluster the line has. `None`: another shape or level after all.
fn common(cluster: &Cluster, words: &[Word], level: &str) -> Option<u32> {
    if cluster.words.len() != words.len() || &*cluster.level != level {
        return None;
    }
    let mut same = 0;
    for (ours, theirs) in cluster.words.iter().zip(words) {
        if ours.names && ours.hash != theirs.hash {
            return None;
        }
        same += u32::from(!ours.varies && !ours.names && ours.hash == theirs.hash);
    }
    Some(same)
}

impl Cluster {
    fn generalise(&mut self, words: &[Word]) {
        for (ours, theirs) in self.words.iter_mut().zip(words) {
            if !ours.varies && ours.hash != theirs.hash {
                ours.varies = true;
                ours.hash = 0;
                self.fixed -= u32::from(!ours.names);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[&str], expected: &[&str]) {
        let mut miner = Miner::default();
        for line in lines {
            miner.add_line(line.as_bytes(), "info").expect("UTF-8");
        }
        let found: Vec<String> = (0..miner.len()).map(|n| miner.template(n).0).collect();
        assert_eq!(found, expected);
        // Templates of templates are the same ones.
        let mut again = Miner::default();
        for template in &found {
            again.add_template(template, "info").expect("UTF-8");
        }
        let second: Vec<String> = (0..again.len()).map(|n| again.template(n).0).collect();
        assert_eq!(second, found);
    }

    #[test]
    fn lines_share_a_template_when_most_words_are_the_same() {
        check(
            &[
                r#"level=info msg="user 1 logged in from 10.0.0.1" took=1ms"#,
                r#"level=info msg="user 2 logged in from 10.0.0.2" took=2ms"#,
            ],
            &[r#"level=info msg="user <_> logged in from <_>" took=<_>"#],
        );
        check(
            &[
                "user ann is here now",
                "user bob is here now",
                "user bob5 is here now",
            ],
            &["user <_> is here now"],
        );
        check(
            &["started the server", "stopped a client"],
            &["started the server", "stopped a client"],
        );
        check(
            &[r#"{"msg":"one","n":1}"#, r#"{"msg":"two","n":22}"#],
            &[r#"{"msg":"one","n":<_>}"#, r#"{"msg":"two","n":<_>}"#],
        );
        check(&["", "  ", ""], &["", "  "]);
    }

    #[test]
    fn a_crowd_of_templates_is_merged() {
        let lines: Vec<String> = (0..40u8)
            .map(|n| {
                let c = char::from(b'a' + n % 26);
                format!("GET {c}{c}{} x{c}", char::from(b'a' + n / 2))
            })
            .collect();
        let mut miner = Miner::default();
        for line in &lines {
            miner.add_line(line.as_bytes(), "info");
        }
        assert!(miner.len() <= FULL, "{}", miner.len());
    }

    #[test]
    fn levels_are_kept_apart_and_captures_never_touch() {
        let mut miner = Miner::default();
        assert_eq!(miner.add_line(b"a b c", "info"), Some(0));
        assert_eq!(miner.add_line(b"a b c", "warn"), Some(1));
        assert_eq!(miner.add_line(b"a <x>one c d e", "info"), Some(2));
        assert_eq!(miner.add_line(b"a <x>two c d e", "info"), Some(2));
        assert_eq!(miner.template(2), ("a <_> c d e".to_owned(), "info"));
        assert_eq!(miner.add_line(b"\xff\xfe", "info"), None);
    }
}
