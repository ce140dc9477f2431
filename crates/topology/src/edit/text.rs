//! Where in a text a block ends, and how it is written there: the part of YAML that region-config is written in, block and flow style, with comments.
//!
//! What is guessed wrong here is found by the proof in `edit.rs`; it costs an edit by hand, and no wrong file.

use std::{fmt::Write as _, ops::Range};

use super::plain::Plain;
use crate::tree::{Entry, Place, Value};

/// Why a text cannot be edited.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Uneditable(pub(super) &'static str);

const NOT_FOUND: Uneditable = Uneditable("there is no such block");
const ONE_LEFT: Uneditable = Uneditable("nothing would be left of it");

/// A text, and its tree.
pub(super) struct Document<'a> {
    text: &'a str,
    root: &'a Value,
    /// Where each line begins, and where the last ends.
    lines: Vec<usize>,
    newline: &'static str,
}

impl<'a> Document<'a> {
    pub(super) fn new(text: &'a str, root: &'a Value) -> Self {
        let begins = text.match_indices('\n').map(|(at, _)| at + 1);
        let mut lines: Vec<usize> = std::iter::once(0).chain(begins).collect();
        if lines.last() != Some(&text.len()) {
            lines.push(text.len());
        }
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        Self { text, root, lines, newline }
    }

    /// The text with a key more at the end of a mapping.
    pub(super) fn with_entry(&self, path: &[&str], key: &str, value: &Plain) -> Result<String, Uneditable> {
        let block = self.find(path)?;
        let Value::Map(entries) = &block.value else { return Err(NOT_FOUND) };
        let key = &written(&Plain::text(key));
        let flow = format!("{key}: {}", written(value));
        if self.is_flow(block) {
            return self.with_more(block, &flow);
        }
        let last = entries.last().ok_or(NOT_FOUND)?;
        let lines = self.block_lines(last.key_place)?;
        let indent = column(last.key_place)?;
        let blank = " ".repeat(indent);
        let mut new = String::new();
        // Entries that stand apart stay apart.
        if entries.len() > 1 && lines.start > 0 && self.line(lines.start - 1).trim().is_empty() {
            new.push_str(self.line(lines.start - 1).trim_end_matches(['\r', '\n']));
            new.push_str(self.newline);
        }
        match (value, &last.value) {
            // As its neighbour is: a line for each key.
            (Plain::Map(fields), Value::Map(others)) if !self.is_flow(last) => {
                let step = others.first().map_or(Ok(indent + 2), |other| column(other.key_place))?;
                let _ = write!(new, "{blank}{key}:{}", self.newline);
                for (field, value) in fields {
                    let _ = write!(new, "{}{field}: {}{}", " ".repeat(step), written(value), self.newline);
                }
            }
            _ => {
                let _ = write!(new, "{blank}{flow}{}", self.newline);
            }
        }
        Ok(self.with_lines(lines.end, &new))
    }

    /// The text with an item more at the end of a list.
    pub(super) fn with_item(&self, path: &[&str], item: &str) -> Result<String, Uneditable> {
        let block = self.find(path)?;
        let Value::List(items) = &block.value else { return Err(NOT_FOUND) };
        let item = &written(&Plain::text(item));
        if self.is_flow(block) {
            return self.with_more(block, item);
        }
        let (place, _) = items.last().ok_or(NOT_FOUND)?;
        let line = row(*place)?;
        let dash = self.dash(line)?;
        Ok(self.with_lines(self.with_own_comments(line + 1, dash), &format!("{}- {item}{}", " ".repeat(dash), self.newline)))
    }

    /// The text without a key of a mapping, and without the comments that are its own: those right above it, and at the ends of its lines.
    pub(super) fn without_entry(&self, path: &[&str], key: &str) -> Result<String, Uneditable> {
        let block = self.find(path)?;
        let Value::Map(entries) = &block.value else { return Err(NOT_FOUND) };
        let index = entries.iter().position(|entry| entry.key == key).ok_or(NOT_FOUND)?;
        if entries.len() == 1 {
            return Err(ONE_LEFT);
        }
        if self.is_flow(block) {
            return self.with_less(block, self.offset(entries[index].key_place)?);
        }
        let mut lines = self.block_lines(entries[index].key_place)?;
        // The first entry's comment may be about all of them.
        if index > 0 {
            lines.start = self.with_comments_above(lines.start, column(entries[index].key_place)?);
        }
        // Of the blank lines around it one is enough; at the end, those before it went with it.
        let blank = |line: usize| self.line(line).trim().is_empty();
        if index > 0 && lines.start > 0 && blank(lines.start - 1) {
            lines.start -= 1;
        } else if index == 0 && lines.end + 1 < self.lines.len() && blank(lines.end) {
            lines.end += 1;
        }
        Ok(self.without_lines(lines))
    }

    /// The text without an item of a list.
    pub(super) fn without_item(&self, path: &[&str], item: &str) -> Result<String, Uneditable> {
        let block = self.find(path)?;
        let Value::List(items) = &block.value else { return Err(NOT_FOUND) };
        let wanted = |(_, value): &&(Place, Value)| matches!(value, Value::Text(text) if text == item);
        let (place, _) = items.iter().find(wanted).ok_or(NOT_FOUND)?;
        if items.len() == 1 {
            return Err(ONE_LEFT);
        }
        if self.is_flow(block) {
            return self.with_less(block, self.offset(*place)?);
        }
        let line = row(*place)?;
        let dash = self.dash(line)?;
        let begin = self.with_comments_above(line, dash);
        // The first item's comment may be about all of them.
        let begin = if items.first().is_some_and(|(first, _)| first == place) { line } else { begin };
        Ok(self.without_lines(begin..self.with_own_comments(line + 1, dash)))
    }

    /// The entry at a path of keys.
    fn find(&self, path: &[&str]) -> Result<&'a Entry, Uneditable> {
        let mut value = self.root;
        let mut found = None;
        for key in path {
            let Value::Map(entries) = value else { return Err(NOT_FOUND) };
            let entry = entries.iter().find(|entry| entry.key == *key).ok_or(NOT_FOUND)?;
            value = &entry.value;
            found = Some(entry);
        }
        found.ok_or(NOT_FOUND)
    }

    /// Whether a value stands between brackets.
    fn is_flow(&self, entry: &Entry) -> bool {
        self.offset(entry.value_place).is_ok_and(|at| self.text[at..].starts_with(['{', '[']))
    }

    fn offset(&self, place: Place) -> Result<usize, Uneditable> {
        let line = self.lines.get(row(place)?).copied().ok_or(NOT_FOUND)?;
        // Columns are counted in characters.
        let rest = &self.text[line..];
        rest.char_indices().map(|(at, _)| at).chain([rest.len()]).nth(column(place)?).map(|at| line + at).ok_or(NOT_FOUND)
    }

    /// A line with its end.
    fn line(&self, index: usize) -> &'a str {
        let begin = self.lines.get(index).copied().unwrap_or(self.text.len());
        let end = self.lines.get(index + 1).copied().unwrap_or(self.text.len());
        &self.text[begin..end]
    }

    fn line_count(&self) -> usize {
        self.lines.len() - 1
    }

    /// The lines of an entry of a block: from its key to the last that is further to the right, blank lines at the end left out, and comments there that are
    /// not.
    fn block_lines(&self, key: Place) -> Result<Range<usize>, Uneditable> {
        let first = row(key)?;
        let indent = column(key)?;
        let mut end = first + 1;
        for index in first + 1..self.line_count() {
            let text = self.line(index);
            let content = text.trim_start_matches(' ');
            if content.trim().is_empty() || content.starts_with('#') {
                continue;
            }
            if text.len() - content.len() <= indent {
                break;
            }
            end = index + 1;
        }
        Ok(first..self.with_own_comments(end, indent))
    }

    /// The beginning of something whose key or dash stands at this column, with the comments right above it at the same column.
    fn with_comments_above(&self, mut begin: usize, indent: usize) -> usize {
        let comment = |line: usize| {
            let text = self.line(line);
            let trimmed = text.trim_start();
            trimmed.starts_with('#') && text.len() - trimmed.len() == indent
        };
        while begin > 0 && comment(begin - 1) {
            begin -= 1;
        }
        begin
    }

    /// The end of something whose key or dash stands at this column, with the comments below it that stand further to the right: they are its own.
    fn with_own_comments(&self, end: usize, indent: usize) -> usize {
        let mut own = end;
        for index in end..self.line_count() {
            let text = self.line(index);
            let content = text.trim_start_matches(' ');
            match content.starts_with('#') && text.len() - content.len() > indent {
                true => own = index + 1,
                false if content.trim().is_empty() => {}
                false => break,
            }
        }
        own
    }

    /// Where the dash of a list's item is.
    fn dash(&self, line: usize) -> Result<usize, Uneditable> {
        let text = self.line(line);
        let dash = text.find(|c: char| c != ' ').filter(|at| text[*at..].starts_with("- "));
        dash.ok_or(Uneditable("its items are not on lines of their own"))
    }

    fn with_lines(&self, before: usize, new: &str) -> String {
        let at = self.lines.get(before).copied().unwrap_or(self.text.len());
        let (head, tail) = self.text.split_at(at);
        // The last line of a file may lack its end.
        if !head.is_empty() && !head.ends_with('\n') {
            let new = new.trim_end_matches(['\r', '\n']);
            return format!("{head}{}{new}{tail}", self.newline);
        }
        format!("{head}{new}{tail}")
    }

    fn without_lines(&self, lines: Range<usize>) -> String {
        let begin = self.lines.get(lines.start).copied().unwrap_or(self.text.len());
        let end = self.lines.get(lines.end).copied().unwrap_or(self.text.len());
        format!("{}{}", &self.text[..begin], &self.text[end..])
    }

    /// The text with one thing more at the end of what stands between brackets.
    fn with_more(&self, entry: &Entry, new: &str) -> Result<String, Uneditable> {
        let flow = Flow::of(self.text, self.offset(entry.value_place)?)?;
        if self.comment_follows(flow.last_end) {
            return Err(Uneditable("a comment stands beside its last item"));
        }
        let (at, new) = match flow.items.last() {
            None => (flow.open + 1, new.to_owned()),
            Some(_) if flow.ends_with_comma => (flow.last_end, format!(" {new},")),
            Some(last) => (last.end, format!(", {new}")),
        };
        Ok(format!("{}{new}{}", &self.text[..at], &self.text[at..]))
    }

    /// Whether the rest of the line is a comment, or a comma and one: it may be of what stands before it.
    fn comment_follows(&self, at: usize) -> bool {
        let rest = self.text[at..].lines().next().unwrap_or_default();
        rest.trim_start().trim_start_matches(',').trim_start().starts_with('#')
    }

    /// The text without the thing between brackets that begins at `at`.
    fn with_less(&self, entry: &Entry, at: usize) -> Result<String, Uneditable> {
        let flow = Flow::of(self.text, self.offset(entry.value_place)?)?;
        let index = flow.items.iter().position(|item| item.contains(&at)).ok_or(NOT_FOUND)?;
        let item = &flow.items[index];
        // With the comma before it, or the one after the first; and what stands between.
        let cut = match (index.checked_sub(1).map(|before| &flow.items[before]), flow.items.get(index + 1)) {
            (Some(before), _) => before.end..item.end,
            (None, Some(next)) => item.start..next.start,
            (None, None) => return Err(ONE_LEFT),
        };
        if self.text[cut.clone()].contains('#') || self.comment_follows(cut.end) {
            return Err(Uneditable("a comment stands between its items"));
        }
        Ok(format!("{}{}", &self.text[..cut.start], &self.text[cut.end..]))
    }
}

/// What stands between brackets, in bytes of the text.
struct Flow {
    open: usize,
    /// From the first to after the last character of each.
    items: Vec<Range<usize>>,
    ends_with_comma: bool,
    /// After the last character that is neither blank nor a comment.
    last_end: usize,
}

impl Flow {
    fn of(text: &str, open: usize) -> Result<Self, Uneditable> {
        let mut flow = Self { open, items: Vec::new(), ends_with_comma: false, last_end: open + 1 };
        let mut depth = 0_usize;
        let mut begun: Option<usize> = None;
        let mut quote: Option<char> = None;
        let mut escaped = false;
        let mut comment = false;
        let mut previous = ' ';
        for (at, c) in text[open..].char_indices().map(|(at, c)| (open + at, c)) {
            if comment {
                comment = c != '\n';
                previous = c;
                continue;
            }
            if let Some(end) = quote {
                match c {
                    _ if escaped => escaped = false,
                    '\\' if end == '"' => escaped = true,
                    _ if c == end => quote = None,
                    _ => {}
                }
            } else {
                match c {
                    '#' if previous.is_whitespace() => {
                        comment = true;
                        continue;
                    }
                    '"' | '\'' if previous.is_whitespace() || matches!(previous, '[' | '{' | ',' | ':') => quote = Some(c),
                    '[' | '{' => depth += 1,
                    ']' | '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    flow.items.extend(begun.map(|begin| begin..flow.last_end));
                    return Ok(flow);
                }
                if depth == 1 && c == ',' {
                    flow.items.extend(begun.take().map(|begin| begin..flow.last_end));
                    flow.ends_with_comma = true;
                    flow.last_end = at + 1;
                    previous = c;
                    continue;
                }
            }
            if at > open && !c.is_whitespace() {
                begun.get_or_insert(at);
                flow.ends_with_comma = false;
                flow.last_end = at + c.len_utf8();
            }
            previous = c;
        }
        Err(Uneditable("its bracket is not closed"))
    }
}

/// A value as it is written in one line.
fn written(value: &Plain) -> String {
    match value {
        Plain::Nothing => "null".to_owned(),
        Plain::Flag(flag) => flag.to_string(),
        Plain::Whole(number) => number.to_string(),
        Plain::Fraction(number) => number.clone(),
        Plain::Text(text) => {
            // A colon would end a key, and a word that older readers take for something else is quoted.
            // What begins with a digit may be a number, unless it is a network.
            let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
                && text.starts_with(|first: char| first.is_ascii_alphabetic() || (first.is_ascii_digit() && text.contains('/')))
                && !matches!(text.to_ascii_lowercase().as_str(), "no" | "yes" | "on" | "off" | "true" | "false" | "null" | "y" | "n");
            if plain { text.clone() } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) }
        }
        Plain::List(items) => format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(", ")),
        Plain::Map(entries) => {
            format!("{{{}}}", entries.iter().map(|(key, value)| format!("{key}: {}", written(value))).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A line's number, from 0.
fn row(place: Place) -> Result<usize, Uneditable> {
    place.line().and_then(|line| usize::try_from(line - 1).ok()).ok_or(NOT_FOUND)
}

/// A column's number, from 0: what stands before it.
fn column(place: Place) -> Result<usize, Uneditable> {
    place.column().and_then(|column| usize::try_from(column - 1).ok()).ok_or(NOT_FOUND)
}
