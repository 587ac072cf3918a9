//! Where in the file a value stands, for the message about it.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;

use super::ConfigError;

/// Knows where in which file a value stands.
pub(super) struct Reader<'t> {
    pub(super) text: &'t str,
    pub(super) file: &'t str,
}

pub(super) type Checked<T> = Result<T, ConfigError>;

impl Reader<'_> {
    pub(super) fn wrong(&self, at: Range<usize>, reason: impl Into<String>) -> ConfigError {
        let before = self.text.as_bytes().get(..at.start).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        ConfigError::Wrong {
            file: self.file.to_owned(),
            line,
            reason: reason.into(),
        }
    }

    pub(super) fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let reason = error.message().lines().collect::<Vec<_>>().join(", ");
        self.wrong(error.span().unwrap_or(0..0), reason)
    }

    /// `value`, or `default` where the file says nothing.
    pub(super) fn number<T: TryFrom<i64>>(
        &self,
        key: &str,
        value: Option<&Spanned<i64>>,
        default: T,
        range: RangeInclusive<i64>,
    ) -> Checked<T> {
        let Some(value) = value else {
            return Ok(default);
        };
        let number = *value.get_ref();
        (range
            .contains(&number)
            .then(|| T::try_from(number).ok())
            .flatten())
        .ok_or_else(|| {
            let (low, high) = (range.start(), range.end());
            self.wrong(
                value.span(),
                format!("{key} = {number} is out of range, {low} to {high} is right"),
            )
        })
    }
}
