//! Values of options and arguments, and what is right where one is not.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use clap::ArgGroup;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use control::Word;

/// One of the words of a choice.
pub(super) fn one_of<T: Word + Send + Sync>() -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(T::ALL.iter().map(|value| value.word())).try_map(|word| {
        let mut all = T::ALL.iter().copied();
        all.find(|value| value.word() == word).ok_or("no such word")
    })
}

/// One of the words of a choice, or `none`.
pub(super) fn or_none<T: Word + Send + Sync>() -> impl TypedValueParser<Value = OrNone<T>> {
    let words = T::ALL.iter().map(|value| value.word()).chain([NONE]);
    PossibleValuesParser::new(words).map(|word| {
        let mut all = T::ALL.iter().copied();
        OrNone(all.find(|value| value.word() == word))
    })
}

/// A value, or `none`.
#[derive(Debug, Clone, Copy)]
pub(super) struct OrNone<T>(pub(super) Option<T>);

const NONE: &str = "none";

pub(super) fn mss(text: &str) -> Result<OrNone<u16>, &'static str> {
    number(text).ok_or("not a segment size, 1380 or none is right")
}

pub(super) fn seconds(text: &str) -> Result<OrNone<u32>, &'static str> {
    number(text).ok_or("not a number of seconds, 600 or none is right")
}

fn number<T: FromStr>(text: &str) -> Option<OrNone<T>> {
    match text {
        NONE => Some(OrNone(None)),
        number => number.parse().ok().map(|number| OrNone(Some(number))),
    }
}

pub(super) fn address(text: &str) -> Result<IpAddr, &'static str> {
    text.parse()
        .map_err(|_| "not an address, 10.0.0.5 or 2001:db8::5 is right")
}

pub(super) const NO_ADDRESS_PORT: &str =
    "not an address and port, 10.0.0.1:80 or [2001:db8::1]:80 is right";

pub(super) fn address_port(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| NO_ADDRESS_PORT)
}

/// An edit names something.
pub(super) fn some_of<const N: usize>(names: [&'static str; N]) -> ArgGroup {
    let what = ArgGroup::new("what").args(names);
    what.multiple(true).required(true)
}
