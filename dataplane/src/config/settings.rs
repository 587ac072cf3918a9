//! `[settings]`: the control protocol's table of settings, and where each value stands.

use std::collections::BTreeMap;

use control::{SETTINGS, Setting, Settings, Value};
use toml::Spanned;

use super::reader::{Checked, Reader};

impl Reader<'_> {
    /// The defaults, and what the file says.
    pub(super) fn settings(
        &self,
        raw: &BTreeMap<Spanned<String>, Spanned<toml::Value>>,
    ) -> Checked<Settings> {
        let (mut settings, mut last) = (Settings::default(), 0..0);
        for (key, raw) in raw {
            let setting = self.setting(key)?;
            let value = match raw.get_ref() {
                toml::Value::Boolean(on) => Some(Value::Switch(*on)),
                toml::Value::Integer(number) => u32::try_from(*number).ok().map(Value::Number),
                _ => None,
            };
            let set = value.ok_or_else(|| {
                let (name, raw) = (setting.name, raw.get_ref());
                format!(
                    "{name} = {raw} is out of range, {} is right",
                    right(setting)
                )
            });
            set.and_then(|value| setting.set(&mut settings, value))
                .map_err(|why| self.wrong(raw.span(), why))?;
            last = raw.span();
        }
        settings.check().map_err(|why| self.wrong(last, why))?;
        Ok(settings)
    }

    fn setting(&self, key: &Spanned<String>) -> Checked<&'static Setting> {
        let name = key.get_ref();
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        setting.ok_or_else(|| {
            let known = SETTINGS.iter().map(|setting| format!("`{}`", setting.name));
            let known = known.collect::<Vec<_>>().join(", ");
            let reason = format!("unknown field `{name}`, expected one of {known}");
            self.wrong(key.span(), reason)
        })
    }
}

/// What a setting may be, in words.
fn right(setting: &Setting) -> String {
    match setting.range() {
        None => "true or false".to_owned(),
        Some(range) => format!("{} to {}", range.start(), range.end()),
    }
}
