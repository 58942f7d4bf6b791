//! Whether the dots of a label filter's regex match newlines.
//!
//! Loki runs the simplest of these regexes (`.*`, `.+`, a text with `.*` before or behind it,
//! alternatives of such) without an automaton: as "contains", "begins with" and the like, and
//! those do not care for newlines. In all others a dot means anything but a newline. Values with
//! newlines are rare but for stack traces, and there `err=~".*timeout.*"` is what people write.

use regex_syntax::hir::{Class, Hir, HirKind};

use super::re2::{self, Dot};

pub fn dot(pattern: &str) -> Dot {
    match re2::parse_hir(pattern) {
        Some(hir) if is_simple(&hir) => Dot::MatchesNewline,
        _ => Dot::ExceptNewline,
    }
}

fn is_simple(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Capture(capture) => is_simple(&capture.sub),
        HirKind::Alternation(branches) => branches.iter().all(is_simple),
        HirKind::Repetition(_) => is_run_of_dots(hir, 0) || is_run_of_dots(hir, 1),
        HirKind::Concat(parts) => {
            let rest = match parts.split_first() {
                Some((first, rest)) if is_run_of_dots(first, 0) => rest,
                _ => &parts[..],
            };
            let rest = match rest.split_last() {
                Some((last, rest)) if is_run_of_dots(last, 0) => rest,
                _ => rest,
            };
            rest.iter().all(is_text)
        }
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => is_text(hir),
    }
}

/// `.*` or `.+`, by the least length of what it matches.
fn is_run_of_dots(hir: &Hir, least: u32) -> bool {
    let HirKind::Repetition(repetition) = hir.kind() else {
        return false;
    };
    let is_dot = match repetition.sub.kind() {
        HirKind::Class(Class::Unicode(class)) => {
            let mut negated = class.clone();
            negated.negate();
            matches!(negated.ranges(), [only] if only.start() == '\n' && only.end() == '\n')
        }
        _ => false,
    };
    is_dot && repetition.min == least && repetition.max.is_none()
}

/// A literal, perhaps in either case.
fn is_text(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Literal(_) => true,
        HirKind::Class(class) => re2::single_letter(class).is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Loki 3.7.6 made of these on the value "line\nbreak".
    #[test]
    fn only_runs_of_dots_around_a_text_match_newlines() {
        for simple in [
            "line.*",
            ".*break.*",
            "[l]ine.*",
            "(?i)LINE.*",
            ".*",
            ".+",
            "(.*)",
            "(?:.*)",
            ".*line.*|.*foo.*",
            "line.*|foo",
            "(line.*)",
            "line.*?",
            r"\Qline\E.*",
            "li.*|.*ak.*",
        ] {
            assert_eq!(dot(simple), Dot::MatchesNewline, "{simple}");
        }
        for other in [
            "line.break.*",
            "line.+",
            "line.bre[a]k.*",
            ".*br[e]+ak.*",
            ".+break.*",
            "l.*q.*",
            "(line|x).*",
            "[^x].*",
            ".*(break|foo).*",
            "^line.*",
            "line.*$",
            "(",
        ] {
            assert_eq!(dot(other), Dot::ExceptNewline, "{other}");
        }
    }
}
