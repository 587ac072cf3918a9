//! `directorctl settings`: one option for each of them.

use clap::builder::{PossibleValuesParser, TypedValueParser, ValueParser};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, value_parser};
use control::{SETTINGS, Setting, Settings, Value};

use super::show::Table;

/// What is to be set.
#[derive(Debug, Clone)]
pub(super) struct SettingArgs(Vec<(&'static Setting, Value)>);

impl SettingArgs {
    pub(super) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// `settings` with what is named.
    pub(super) fn over(&self, mut settings: Settings) -> Result<Settings, String> {
        for (setting, value) in &self.0 {
            setting.set(&mut settings, *value)?;
        }
        Ok(settings)
    }
}

impl Args for SettingArgs {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().map(option))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let named = SETTINGS.iter().filter_map(|setting| {
            let value = matches.get_one::<Value>(setting.name)?;
            Some((setting, *value))
        });
        Ok(Self(named.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn option(setting: &'static Setting) -> Arg {
    let (parser, values) = match setting.range() {
        None => {
            let words = PossibleValuesParser::new(["true", "false"]);
            let parser = words.map(|word| Value::Switch(word == "true"));
            (ValueParser::new(parser), "BOOL".to_owned())
        }
        Some(range) => {
            let (low, high) = (*range.start(), *range.end());
            let numbers = value_parser!(u32).range(i64::from(low)..=i64::from(high));
            let parser = ValueParser::new(numbers.map(Value::Number));
            (parser, format!("{low}..{high}"))
        }
    };
    Arg::new(setting.name)
        .long(setting.word())
        .alias(setting.name)
        .value_parser(parser)
        .value_name(values)
        .allow_negative_numbers(true)
        .help(setting.meaning)
}

/// Each setting, what it is, what it is unless set, and what that means.
pub(super) fn table(settings: Settings) -> String {
    let title = ["SETTING", "VALUE", "DEFAULT", "MEANING"];
    let mut table = Table::new(title.len(), title);
    for setting in &SETTINGS {
        let [now, default] =
            [settings, Settings::default()].map(|settings| setting.of(settings).to_string());
        table.row([setting.word(), now, default, setting.meaning.to_owned()]);
    }
    table.text()
}
