//! What must be in a line for a query to want it: the language says it, the index prunes by it.

/// A necessary condition on a line's bytes. Never sufficient: whoever prunes by it
/// still has to run the query's filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing is known: every line may match.
    Anything,
    /// The line holds these bytes.
    Literal(Vec<u8>),
    /// The line holds these bytes when ASCII letters are folded to lower case. The text is
    /// ASCII and lower-case. Unicode folding is possible: U+212A folds to `k`, U+017F to `s`.
    Folded(Vec<u8>),
    /// All of these; empty means [`Need::Anything`].
    All(Vec<Need>),
    /// At least one of these; empty means that no line can match.
    Any(Vec<Need>),
}

impl Need {
    /// Joins conditions that must all hold, dropping those that say nothing.
    pub fn all(needs: impl IntoIterator<Item = Need>) -> Self {
        let mut kept = Vec::new();
        for need in needs {
            match need {
                Self::Anything => {}
                Self::All(inner) => kept.extend(inner),
                other => kept.push(other),
            }
        }
        match kept.len() {
            0 => Self::Anything,
            1 => kept.remove(0),
            _ => Self::All(kept),
        }
    }

    /// Joins alternatives; one that says nothing makes the whole say nothing.
    pub fn any(needs: impl IntoIterator<Item = Need>) -> Self {
        let mut kept = Vec::new();
        for need in needs {
            match need {
                Self::Anything => return Self::Anything,
                Self::Any(inner) => kept.extend(inner),
                other => kept.push(other),
            }
        }
        if kept.len() == 1 {
            kept.remove(0)
        } else {
            Self::Any(kept)
        }
    }
}
