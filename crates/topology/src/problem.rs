//! What is wrong with a configuration: every problem, each with its place.
//!
//! A problem prints as one line, `FILE:LINE: KEY: MESSAGE`, whatever text of the file it quotes.

use std::fmt;

use crate::tree::Place;

/// Characters of the file's own text that a message quotes at most.
const QUOTE_CHARS_MAX: usize = 64;

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named to the reader.
    pub file: String,
    /// The line, from 1. `None` when the problem has no place in the file: it cannot be read, or a whole block is missing.
    pub line: Option<u64>,
    /// The column, from 1.
    pub column: Option<u64>,
    /// The path to the key, such as `zones.eu.shards` or `zones.eu.countries[3]`. Empty when it is about the whole file.
    pub key: String,
    /// What is wrong and, where it is not plain, what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Every problem found, in the order of the file. Prints one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors {
    problems: Vec<Problem>,
}

impl Errors {
    /// The problems: at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Collects problems while a file is read and checked.
pub(crate) struct Problems {
    file: String,
    found: Vec<Problem>,
}

impl Problems {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: one_line(file), found: Vec::new() }
    }

    pub(crate) fn add(&mut self, place: Place, key: &str, message: impl AsRef<str>) {
        self.found.push(Problem {
            file: self.file.clone(),
            line: place.line(),
            column: place.column(),
            key: one_line(key),
            message: one_line(message.as_ref()),
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The problems in the order of the file; those without a line come first.
    pub(crate) fn into_errors(mut self) -> Errors {
        self.found.sort_by_key(|problem| (problem.line, problem.column));
        Errors { problems: self.found }
    }
}

/// Quotes text of the file in a message.
pub(crate) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        Some((cut, _)) => format!("`{}…`", &text[..cut]),
        None => format!("`{text}`"),
    }
}

/// `; did you mean X?` when one of the known names is near enough to be meant, else `; WHAT: all of them`.
pub(crate) fn suggest<'a>(text: &str, known: impl Iterator<Item = &'a str> + Clone, what: &str) -> String {
    // A third of the letters wrong is a slip of the hand; more is another word.
    let nearest = known.clone().map(|name| (distance(text, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= (name.len() / 3).max(1) => format!("; did you mean `{name}`?"),
        _ => format!("; {what}: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// Letters to add, drop, change or swap with a neighbour to get from one text to the other (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().take(QUOTE_CHARS_MAX).collect();
    let to: Vec<char> = to.chars().take(QUOTE_CHARS_MAX).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let mut cost = (last[j + 1] + 1).min(row[j] + 1).min(last[j] + usize::from(a != b));
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

/// The text with its control characters escaped, so that one problem stays one line of a terminal.
fn one_line(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let escaped = character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
            let plain = (!escaped).then_some(character);
            plain.into_iter().chain(escaped.then(|| character.escape_default()).into_iter().flatten())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_is_recognised_and_another_word_is_not() {
        let known = || ["primary", "services", "database", "compliance"].into_iter();
        for (text, meant) in [("primry", "primary"), ("service", "services"), ("databsae", "database"), ("Compliance", "compliance")] {
            assert_eq!(suggest(text, known(), "known here"), format!("; did you mean `{meant}`?"));
        }
        for text in ["", "region", "x"] {
            assert_eq!(suggest(text, known(), "known here"), "; known here: primary, services, database, compliance");
        }
    }

    #[test]
    fn a_problem_is_one_line_whatever_it_quotes() {
        let mut problems = Problems::new("a\nb");
        problems.add(Place::NOWHERE, "c\td", format!("not {}", quote(&"\u{1b}[31m\n".repeat(99))));
        assert!(!problems.into_errors().to_string().chars().any(char::is_control));
    }
}
