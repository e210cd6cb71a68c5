//! What values a key can take: the trait, and the values that TOML itself has.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;

use rtlive_core::selector::Selector;
use rtlive_core::sorted;
use rtlive_core::template::Template;

use crate::reference::Reference;
use crate::table::Value;

/// A type that a key's value is read into.
pub trait Setting: Sized {
    /// What a value looks like, in words that follow "expected": `a span such as "10s"`.
    fn expected() -> String;

    /// Reads a value. What is wrong with it is noted in the value; `None` if something is.
    fn read(value: &Value<'_>) -> Option<Self>;

    /// What the absence of the key means; `None` when the key must be there.
    fn absent() -> Option<Self> {
        None
    }

    /// The keys of the tables that a value holds, where it does.
    fn table() -> Option<Reference> {
        None
    }

    /// The words that a value may be, where it is a word, each with what it means.
    fn choices() -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }
}

impl Setting for String {
    fn expected() -> String {
        "a text".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        parse(value, |text| (!text.is_empty()).then(|| text.to_owned()))
    }
}

impl Setting for PathBuf {
    fn expected() -> String {
        "a path".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        parse(value, |text| (!text.is_empty() && !text.contains('\0')).then(|| text.into()))
    }
}

impl Setting for bool {
    fn expected() -> String {
        "true or false".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        or_wrong(value, value.as_bool())
    }
}

/// A finite number; integers are taken too.
impl Setting for f64 {
    fn expected() -> String {
        "a number".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        or_wrong(value, value.as_number().filter(|number| number.is_finite()))
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl Setting for $integer {
            fn expected() -> String {
                integer_expected(i128::from(<$integer>::MIN), i128::from(<$integer>::MAX))
            }

            fn read(value: &Value<'_>) -> Option<Self> {
                or_wrong(value, value.as_integer().and_then(|integer| integer.try_into().ok()))
            }
        }
    )*};
}

integers!(u8, u16, u32, u64, i8, i16, i32, i64);

fn integer_expected(min: i128, max: i128) -> String {
    // A bound of 64 bits says nothing to a reader.
    match (min, max > i128::from(u32::MAX)) {
        (0, true) => "an integer, 0 or more".into(),
        (1, true) => "an integer, 1 or more".into(),
        (_, true) => "an integer".into(),
        (min, false) => format!("an integer from {min} to {max}"),
    }
}

/// An integer from `MIN` to `MAX`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bounded<T, const MIN: i64, const MAX: i64>(T);

impl<T: Copy, const MIN: i64, const MAX: i64> Bounded<T, MIN, MAX> {
    /// The integer.
    pub fn get(self) -> T {
        self.0
    }
}

impl<T: TryFrom<i64>, const MIN: i64, const MAX: i64> Setting for Bounded<T, MIN, MAX> {
    fn expected() -> String {
        integer_expected(i128::from(MIN), i128::from(MAX))
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let integer = value.as_integer().filter(|integer| (MIN..=MAX).contains(integer));
        or_wrong(value, integer.and_then(|integer| T::try_from(integer).ok()).map(Self))
    }
}

/// May be absent.
impl<T: Setting> Setting for Option<T> {
    fn expected() -> String {
        T::expected()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        T::read(value).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn table() -> Option<Reference> {
        T::table()
    }

    fn choices() -> Vec<(&'static str, &'static str)> {
        T::choices()
    }
}

/// A list; absent, it is empty.
impl<T: Setting> Setting for Vec<T> {
    fn expected() -> String {
        format!("a list, each {}", T::expected())
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        if value.list_len().is_none() {
            value.wrong(Self::expected());
        }
        value.each(T::read)
    }

    fn absent() -> Option<Self> {
        Some(Vec::new())
    }

    fn table() -> Option<Reference> {
        T::table()
    }

    fn choices() -> Vec<(&'static str, &'static str)> {
        T::choices()
    }
}

/// A list of at least one item; it must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonEmpty<T>(Vec<T>);

/// One value, or a list of at least one; it must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany<T>(Vec<T>);

impl<T: Setting> Setting for NonEmpty<T> {
    fn expected() -> String {
        format!("a list of at least one, each {}", T::expected())
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        match value.list_len() {
            None | Some(0) => {
                value.wrong(Self::expected());
                None
            }
            Some(_) => value.each(T::read).map(Self),
        }
    }

    fn table() -> Option<Reference> {
        T::table()
    }

    fn choices() -> Vec<(&'static str, &'static str)> {
        T::choices()
    }
}

impl<T: Setting> Setting for OneOrMany<T> {
    fn expected() -> String {
        format!("{}, or a list of them", T::expected())
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        match value.list_len() {
            None => T::read(value).map(|one| Self(vec![one])),
            Some(0) => {
                value.wrong(Self::expected());
                None
            }
            Some(_) => value.each(T::read).map(Self),
        }
    }

    fn table() -> Option<Reference> {
        T::table()
    }

    fn choices() -> Vec<(&'static str, &'static str)> {
        T::choices()
    }
}

macro_rules! lists {
    ($($list:ident),*) => {$(
        impl<T> Deref for $list<T> {
            type Target = [T];

            fn deref(&self) -> &[T] {
                &self.0
            }
        }

        impl<T> $list<T> {
            /// The items.
            pub fn into_vec(self) -> Vec<T> {
                self.0
            }
        }

        impl<T> IntoIterator for $list<T> {
            type Item = T;
            type IntoIter = std::vec::IntoIter<T>;

            fn into_iter(self) -> Self::IntoIter {
                self.0.into_iter()
            }
        }
    )*};
}

lists!(NonEmpty, OneOrMany);

/// A list of exactly `N`.
impl<T: Setting, const N: usize> Setting for [T; N] {
    fn expected() -> String {
        format!("a list of {N}, each {}", T::expected())
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        if value.list_len() != Some(N) {
            value.wrong(Self::expected());
            return None;
        }
        value.each(T::read)?.try_into().ok()
    }
}

/// A table whose keys the user chooses, by name; absent, it is empty.
impl<T: Setting> Setting for BTreeMap<String, T> {
    fn expected() -> String {
        <Named<T> as Setting>::expected()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        Named::read(value).map(|named| sorted::map(named.0))
    }

    fn absent() -> Option<Self> {
        Some(BTreeMap::new())
    }

    fn table() -> Option<Reference> {
        T::table()
    }
}

/// A table whose keys the user chooses, in the order in which they were written; absent, it is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named<T>(pub Vec<(String, T)>);

impl<T: Setting> Setting for Named<T> {
    fn expected() -> String {
        format!("a table of names, each with {}", T::expected())
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let entries = value.each_entry(T::read);
        if entries.is_none() && value.as_table().is_none() {
            value.wrong(Self::expected());
        }
        entries.map(Self)
    }

    fn absent() -> Option<Self> {
        Some(Self(Vec::new()))
    }

    fn table() -> Option<Reference> {
        T::table()
    }
}

impl Setting for Selector {
    fn expected() -> String {
        "a filter such as \"boiler/#\" or \"+/temperature\"".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let text = value.as_text();
        match text.map(str::parse) {
            Some(Ok(selector)) => Some(selector),
            Some(Err(_)) => {
                value.mistake(
                    "a filter such as \"boiler/#\", with `+` or `#` alone in a level and `#` only as the last",
                    value.found(),
                );
                None
            }
            None => or_wrong(value, None),
        }
    }
}

impl Setting for Template {
    fn expected() -> String {
        "a text with places such as {1} or {agent}".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        match value.as_text().map(str::parse) {
            Some(Ok(template)) => Some(template),
            Some(Err(_)) => {
                value.mistake(
                    "a text with places such as {1} or {agent}, and {{ or }} for a brace itself",
                    value.found(),
                );
                None
            }
            None => or_wrong(value, None),
        }
    }
}

/// `read`, and the mistake if there was nothing.
pub fn or_wrong<T: Setting>(value: &Value<'_>, read: Option<T>) -> Option<T> {
    if read.is_none() {
        value.wrong(T::expected());
    }
    read
}

/// Reads a text with `parse`; what is no text, or gives `None`, is a mistake.
pub fn parse<T: Setting>(value: &Value<'_>, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    or_wrong(value, value.as_text().and_then(parse))
}
