//! Keywords, their values and blocks in braces, as keepalived.conf and dpvs.conf have them: lines and
//! comments, includes, parameters, and lines for one machine only.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Around, FILES_MAX, Note, Place, TEXT_MAX, Wrong, quoted};

/// Blocks within blocks.
const DEPTH_MAX: usize = 16;
/// Files within files.
const INCLUDES_MAX: usize = 16;
/// Parameters replaced in one line.
const REPLACED_MAX: usize = 1000;
/// Of a line with its parameters replaced, in bytes.
const LINE_MAX: usize = 64 << 10;

/// A keyword, its values, and its block if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) place: Place,
    /// At least one.
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<Statement>>,
    /// The line of the closing brace, or its own.
    pub(super) end: usize,
}

impl Statement {
    pub(super) fn keyword(&self) -> &str {
        &self.words[0]
    }

    pub(super) fn values(&self) -> &[String] {
        &self.words[1..]
    }

    pub(super) fn value(&self) -> Option<&str> {
        self.values().first().map(String::as_str)
    }

    pub(super) fn inner(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// As it is written, within a message: `vrrp_instance VI_1 { … } (to line 20)`.
    pub(super) fn shown(&self) -> String {
        let words = quoted(&self.words.join(" "));
        match self.block {
            Some(_) if self.end > self.place.line => format!("{words} (to line {})", self.end),
            _ => words,
        }
    }
}

/// What differs between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Keepalived,
    /// No includes, parameters and conditions; words in angle brackets are comments.
    Dpvs,
}

/// All files as one list.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) statements: Vec<Statement>,
    pub(super) notes: Vec<Note>,
    /// In the order in which they were opened.
    pub(super) files: Vec<Arc<str>>,
}

pub(super) fn read(
    dialect: Dialect,
    file: &str,
    text: &str,
    around: Around<'_>,
) -> Result<Read, Wrong> {
    let mut lines = Lines {
        dialect,
        around,
        parameters: HashMap::new(),
        read: 0,
        opened: 0,
        tree: Tree::default(),
        notes: Vec::new(),
        files: Vec::new(),
    };
    lines.file(file, text, 0)?;
    Ok(Read {
        statements: lines.tree.finish()?,
        notes: lines.notes,
        files: lines.files,
    })
}

/// From text to words.
struct Lines<'a> {
    dialect: Dialect,
    around: Around<'a>,
    parameters: HashMap<String, String>,
    /// Bytes so far, with those that parameters move.
    read: usize,
    /// Files so far, each time.
    opened: usize,
    tree: Tree,
    notes: Vec<Note>,
    files: Vec<Arc<str>>,
}

impl Lines<'_> {
    fn file(&mut self, name: &str, text: &str, depth: usize) -> Result<(), Wrong> {
        let file: Arc<str> = name.into();
        if !self.files.contains(&file) {
            self.files.push(Arc::clone(&file));
        }
        let mut lines = (1..).zip(text.lines());
        while let Some((line, text)) = lines.next() {
            let place = Place {
                file: Arc::clone(&file),
                line,
            };
            if self.dialect == Dialect::Dpvs {
                self.words(&place, text)?;
                continue;
            }
            let mut whole = uncommented(text).trim_end().to_owned();
            let definition = whole.trim_start().starts_with('$');
            while whole.ends_with('\\') {
                whole.pop();
                let Some((_, more)) = lines.next() else { break };
                whole.push(if definition { '\n' } else { ' ' });
                whole.push_str(uncommented(more).trim_end());
            }
            self.line(&place, &whole, depth)?;
        }
        Ok(())
    }

    /// One line of keepalived.conf, which a parameter may make several.
    fn line(&mut self, place: &Place, text: &str, depth: usize) -> Result<(), Wrong> {
        let Some(text) = self.condition(place, text) else {
            return Ok(());
        };
        if let Some((name, value)) = definition(text) {
            self.parameters.insert(name.to_owned(), value.to_owned());
            return Ok(());
        }
        let text = self.replaced(place, text)?;
        for text in text.lines() {
            let Some(text) = self.condition(place, text) else {
                continue;
            };
            if let Some((name, value)) = definition(text) {
                self.parameters.insert(name.to_owned(), value.to_owned());
                continue;
            }
            let first = text.split_whitespace().next().unwrap_or_default();
            match first {
                "include" | "includer" | "includem" | "includew" | "includeb" | "includea" => {
                    self.include(place, text, depth)?;
                }
                word if word.starts_with("~SEQ") || word.starts_with("~LST") => {
                    let what = "lists of lines (~SEQ, ~LST) are not understood, the lines written out are right";
                    return Err(wrong(place, what));
                }
                _ => self.words(place, text)?,
            }
        }
        Ok(())
    }

    /// The rest of a line that begins with `@ID` or `@^ID`, if it holds here.
    fn condition<'t>(&mut self, place: &Place, text: &'t str) -> Option<&'t str> {
        let Some(rest) = text.strip_prefix('@') else {
            return Some(text);
        };
        let (id, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let holds = match id.strip_prefix('^') {
            Some(id) => id != self.around.config_id,
            None => id == self.around.config_id,
        };
        if !holds {
            let own = quoted(self.around.config_id);
            let what = format!(
                "@{}: not for {own}, --config-id names another machine",
                quoted(id)
            );
            self.note(place, what);
        }
        holds.then_some(rest)
    }

    fn note(&mut self, place: &Place, what: String) {
        self.notes.push(Note::new(place, None, &what));
    }

    /// With the parameters that are known in their place, those within values too.
    fn replaced(&mut self, place: &Place, text: &str) -> Result<String, Wrong> {
        let mut text = text.to_owned();
        let (mut from, mut left) = (0, REPLACED_MAX);
        while let Some(at) = text[from..].find('$').map(|at| at + from) {
            let rest = &text[at + 1..];
            let (name, end) = match rest.strip_prefix('{') {
                Some(braced) => match braced.find('}') {
                    Some(end) => (&braced[..end], at + end + 3),
                    None => ("", 0),
                },
                None => {
                    let name = rest.split(char::is_whitespace).next().unwrap_or_default();
                    (name, at + 1 + name.len())
                }
            };
            let Some(value) = self.parameters.get(name).cloned() else {
                from = at + 1;
                continue;
            };
            if left == 0 || text.len() + value.len() > LINE_MAX {
                return Err(wrong(place, "parameters within parameters without end"));
            }
            left -= 1;
            self.count(place, text.len() + value.len())?;
            text.replace_range(at..end, &value);
            from = at;
        }
        Ok(text)
    }

    fn include(&mut self, place: &Place, text: &str, depth: usize) -> Result<(), Wrong> {
        let words = split(text, Dialect::Keepalived).map_err(|what| wrong(place, what))?;
        let pattern = match words.get(1) {
            Some(Piece::Word(pattern)) => pattern.clone(),
            _ => {
                return Err(wrong(
                    place,
                    "include names no file, include servers/*.conf is right",
                ));
            }
        };
        if depth == INCLUDES_MAX {
            return Err(wrong(
                place,
                format!("more than {INCLUDES_MAX} files within files"),
            ));
        }
        let found = self.around.files.read(&pattern, &place.file);
        let found = match found {
            Ok(found) if found.is_empty() => Err("there is no such file".to_owned()),
            found => found,
        };
        match found {
            Ok(files) => {
                for (name, text) in files {
                    self.opened += 1;
                    if self.opened > FILES_MAX {
                        return Err(wrong(place, format!("more than {FILES_MAX} files")));
                    }
                    self.file(&name, &text, depth + 1)?;
                }
            }
            Err(why) => {
                let what = format!("include {}: {}", quoted(&pattern), quoted(&why));
                self.note(place, what);
            }
        }
        Ok(())
    }

    fn count(&mut self, place: &Place, bytes: usize) -> Result<(), Wrong> {
        self.read += bytes;
        if self.read > TEXT_MAX {
            return Err(wrong(
                place,
                format!("more than {} MiB in all", TEXT_MAX >> 20),
            ));
        }
        Ok(())
    }

    fn words(&mut self, place: &Place, text: &str) -> Result<(), Wrong> {
        self.count(place, text.len())?;
        for piece in split(text, self.dialect).map_err(|what| wrong(place, what))? {
            match piece {
                Piece::Word(word) => self.tree.word(place, word),
                Piece::Open => self.tree.open(place)?,
                Piece::Close => self.tree.close(place)?,
            }
        }
        self.tree.end_of_line();
        Ok(())
    }
}

/// `$NAME=VALUE`
fn definition(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.trim_start().strip_prefix('$')?.split_once('=')?;
    let is_name = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then_some((name, value.trim()))
}

/// Without what stands behind `#` or `!` outside quotes.
fn uncommented(text: &str) -> &str {
    let mut quote = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote => escaped = true,
            '"' => quote = !quote,
            '#' | '!' if !quote => return &text[..at],
            _ => {}
        }
    }
    text
}

enum Piece {
    Word(String),
    Open,
    Close,
}

/// Words, quoted ones as one, and braces.
fn split(text: &str, dialect: Dialect) -> Result<Vec<Piece>, &'static str> {
    let mut pieces = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = uncommented(text).chars();
    let mut quote = false;
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quote = !quote;
                word.get_or_insert_default();
            }
            '\\' if quote => word.get_or_insert_default().extend(chars.next()),
            c if quote => word.get_or_insert_default().push(c),
            '{' | '}' => {
                pieces.extend(word.take().map(Piece::Word));
                pieces.push(if c == '{' { Piece::Open } else { Piece::Close });
            }
            c if c.is_whitespace() => pieces.extend(word.take().map(Piece::Word)),
            '<' if dialect == Dialect::Dpvs => while chars.next().is_some_and(|c| c != '>') {},
            c => word.get_or_insert_default().push(c),
        }
    }
    if quote {
        return Err("a quotation mark without its second");
    }
    pieces.extend(word.map(Piece::Word));
    Ok(pieces)
}

/// From words to statements.
#[derive(Debug, Default)]
struct Tree {
    /// The blocks that are open, the outermost first, each with what precedes it.
    open: Vec<(Vec<Statement>, Statement)>,
    /// Of the innermost.
    done: Vec<Statement>,
    current: Option<Statement>,
}

impl Tree {
    fn word(&mut self, place: &Place, word: String) {
        match &mut self.current {
            Some(statement) => statement.words.push(word),
            None => {
                self.current = Some(Statement {
                    place: place.clone(),
                    words: vec![word],
                    block: None,
                    end: place.line,
                });
            }
        }
    }

    fn end_of_line(&mut self) {
        self.done.extend(self.current.take());
    }

    /// A brace on a line of its own belongs to the statement before it.
    fn open(&mut self, place: &Place) -> Result<(), Wrong> {
        let before = self.current.take().or_else(|| self.done.pop());
        let Some(statement) = before.filter(|statement| statement.block.is_none()) else {
            return Err(wrong(place, "{ without a keyword in front of it"));
        };
        if self.open.len() == DEPTH_MAX {
            return Err(wrong(
                place,
                format!("more than {DEPTH_MAX} blocks within blocks"),
            ));
        }
        let before = std::mem::take(&mut self.done);
        self.open.push((before, statement));
        Ok(())
    }

    fn close(&mut self, place: &Place) -> Result<(), Wrong> {
        self.end_of_line();
        let Some((before, mut statement)) = self.open.pop() else {
            return Err(wrong(place, "} without a { in front of it"));
        };
        statement.block = Some(std::mem::replace(&mut self.done, before));
        statement.end = if place.file == statement.place.file {
            place.line
        } else {
            statement.place.line
        };
        self.done.push(statement);
        Ok(())
    }

    fn finish(self) -> Result<Vec<Statement>, Wrong> {
        match self.open.last() {
            Some((_, statement)) => {
                let what = format!(
                    "the block of {} has no }}",
                    quoted(&statement.words.join(" "))
                );
                Err(wrong(&statement.place, what))
            }
            None => Ok(self.done),
        }
    }
}

fn wrong(place: &Place, what: impl Into<String>) -> Wrong {
    Wrong {
        place: place.clone(),
        what: what.into(),
    }
}
