//! Splits a command line into options the way popt does: bundled short options, `--name=value`,
//! values that may look like options, words left over.

/// Whether an option has a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    Nothing,
    Value,
    /// The next word, unless it begins with `-`.
    Perhaps,
}

/// One option of the grammar.
#[derive(Debug, Clone, Copy)]
pub struct Switch<T> {
    pub short: Option<char>,
    pub long: &'static str,
    pub takes: Takes,
    pub meaning: T,
}

/// Why a word is no option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    #[error("unknown option")]
    Unknown,
    #[error("missing argument")]
    Missing,
    #[error("option does not take an argument")]
    Unwanted,
}

/// An option and its value.
pub type Found<'w, T> = (T, Option<&'w str>);

/// The words of a command line, read from the left.
#[derive(Debug)]
pub struct Words<'w, T: 'static> {
    switches: &'static [Switch<T>],
    rest: std::slice::Iter<'w, String>,
    /// What is left of a bundle of short options.
    bundle: &'w str,
    /// The word being read, for messages.
    pub word: &'w str,
    /// Words that are no options, in order.
    pub left_over: Vec<&'w str>,
}

impl<'w, T: Copy> Words<'w, T> {
    pub fn new(switches: &'static [Switch<T>], words: &'w [String]) -> Self {
        Self {
            switches,
            rest: words.iter(),
            bundle: "",
            word: "",
            left_over: Vec::new(),
        }
    }

    /// The next option, or `None` at the end of the line.
    pub fn option(&mut self) -> Result<Option<Found<'w, T>>, Bad> {
        while self.bundle.is_empty() {
            let Some(word) = self.rest.next() else {
                return Ok(None);
            };
            if word == "--" {
                self.left_over
                    .extend(self.rest.by_ref().map(String::as_str));
                return Ok(None);
            }
            match word.strip_prefix('-') {
                None | Some("") => self.left_over.push(word),
                Some(name) => {
                    self.word = word;
                    match name.strip_prefix('-') {
                        Some(long) => return self.long(long).map(Some),
                        None => self.bundle = name,
                    }
                }
            }
        }
        self.short().map(Some)
    }

    fn long(&mut self, text: &'w str) -> Result<Found<'w, T>, Bad> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let switch = self
            .switches
            .iter()
            .find(|s| s.long == name)
            .ok_or(Bad::Unknown)?;
        let value = match (switch.takes, value) {
            (Takes::Nothing, Some(_)) => return Err(Bad::Unwanted),
            (Takes::Nothing, None) => None,
            (_, Some(value)) => Some(value),
            (takes, None) => self.following(takes)?,
        };
        Ok((switch.meaning, value))
    }

    fn short(&mut self) -> Result<Found<'w, T>, Bad> {
        let mut letters = self.bundle.chars();
        let letter = letters.next().ok_or(Bad::Unknown)?;
        let rest = letters.as_str();
        self.bundle = "";
        let known = |s: &&Switch<T>| s.short == Some(letter);
        let switch = self.switches.iter().find(known).ok_or(Bad::Unknown)?;
        let value = match switch.takes {
            Takes::Nothing => {
                self.bundle = rest;
                None
            }
            takes if rest.is_empty() => self.following(takes)?,
            _ => Some(rest.strip_prefix('=').unwrap_or(rest)),
        };
        Ok((switch.meaning, value))
    }

    /// The next word as a value.
    fn following(&mut self, takes: Takes) -> Result<Option<&'w str>, Bad> {
        let next = self.rest.as_slice().first();
        if takes == Takes::Perhaps && next.is_none_or(|word| word.starts_with('-')) {
            return Ok(None);
        }
        self.rest
            .next()
            .map(|word| Some(word.as_str()))
            .ok_or(Bad::Missing)
    }
}
