//! Option tables: a struct, its reading and its reference from one text.

use crate::reference::Key;
use crate::value::Setting;

/// Makes a struct of options, its reading from a [`Table`](crate::table::Table), and its
/// [`Reference`](crate::reference::Reference) from the doc comments.
///
/// ```
/// rtlive_config::options! {
///     /// A device on the bus.
///     pub struct DeviceOptions {
///         /// The name of the device.
///         pub name: String,                                  // must be there
///         /// The map of its registers.
///         pub map: Option<String>,                           // may be absent
///         /// How long an answer may take.
///         pub timeout: rtlive_config::quantity::Span = "300ms", // a default, as it would be written
///         /// What the registers hold; a key that is a word of Rust.
///         pub kind: String as "type" = "u16",
///         later: ["derived"],                                // refused as not yet in this version
///     }
/// }
/// let document = rtlive_config::document::Document::of_text("a.toml", "name = 'boiler'\ntimout = '1s'");
/// let device = DeviceOptions::read(&document.root()).unwrap();
/// assert_eq!((device.name.as_str(), device.timeout.0.as_millis()), ("boiler", 300));
/// assert_eq!(document.mistakes().to_string(), "a.toml:2:1: timout: unknown key; the nearest known one is `timeout`");
/// ```
///
/// Every field ends with a comma. The struct has `read` (all keys, and the rest is unknown), `read_part` (a table that another
/// type reads too), and `reference`; it is a `Setting` itself, so that tables nest.
#[macro_export]
macro_rules! options {
    (
        $(#[doc = $doc:literal])*
        $visibility:vis struct $name:ident {
            $(
                $(#[doc = $field_doc:literal])*
                pub $field:ident: $type:ty $(as $key:literal)? $(= $default:expr)?,
            )*
            $(later: [$($later:literal),* $(,)?] $(,)?)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug)]
        $visibility struct $name {
            $(
                $(#[doc = $field_doc])*
                pub $field: $type,
            )*
        }

        impl $name {
            /// Reads the table; a key that is not known is a mistake. `None` if something that must be there is missing or wrong.
            #[allow(dead_code)]
            pub fn read(table: &$crate::table::Table<'_>) -> Option<Self> {
                let read = Self::read_part(table);
                table.close();
                read
            }

            /// Reads the keys of this type from a table that another type reads too.
            #[allow(dead_code)]
            pub fn read_part(table: &$crate::table::Table<'_>) -> Option<Self> {
                // All keys are read before the first that is wrong counts, so that all mistakes are noted.
                $(
                    let $field = table.read::<$type>(
                        $crate::options!(@key $field $($key)?),
                        $crate::options!(@default $($default)?),
                    );
                )*
                $(table.refuse_later(&[$($later),*]);)?
                Some(Self { $($field: $field?,)* })
            }

            /// What each key means.
            #[allow(dead_code)]
            pub fn reference() -> $crate::reference::Reference {
                $crate::reference::Reference {
                    doc: concat!($($doc, "\n",)*),
                    keys: vec![$(
                        $crate::options::key::<$type>(
                            $crate::options!(@key $field $($key)?),
                            concat!($($field_doc, "\n",)*),
                            $crate::options!(@default $($default)?),
                        ),
                    )*],
                    later: vec![$($($later),*)?],
                }
            }
        }

        impl $crate::value::Setting for $name {
            fn expected() -> String {
                "a table".into()
            }

            fn read(value: &$crate::table::Value<'_>) -> Option<Self> {
                match value.as_table() {
                    Some(table) => Self::read(&table),
                    None => {
                        value.wrong("a table");
                        None
                    }
                }
            }

            fn table() -> Option<$crate::reference::Reference> {
                Some(Self::reference())
            }
        }
    };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    (@default) => { None };
    (@default $default:expr) => { Some(stringify!($default)) };
}

/// Makes an enum of words, its reading, and its part of the reference from the doc comments.
///
/// ```
/// rtlive_config::choices! {
///     /// How bits of a character are checked.
///     pub enum Parity {
///         /// Not at all.
///         None = "none",
///         /// The number of ones is even.
///         Even = "even",
///     }
/// }
/// assert_eq!(Parity::Even.word(), "even");
/// ```
#[macro_export]
macro_rules! choices {
    (
        $(#[doc = $doc:literal])*
        $visibility:vis enum $name:ident {
            $( $(#[doc = $variant_doc:literal])* $variant:ident = $word:literal, )*
            $(; later: [$($later:literal),* $(,)?])?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $visibility enum $name {
            $( $(#[doc = $variant_doc])* $variant, )*
        }

        impl $name {
            /// The word in the configuration.
            #[allow(dead_code)]
            pub const fn word(self) -> &'static str {
                match self {
                    $( Self::$variant => $word, )*
                }
            }
        }

        $crate::choices! {
            for $name {
                $( $(#[doc = $variant_doc])* $variant = $word, )*
                $(; later: [$($later),*])?
            }
        }
    };
    // For an enum that is defined elsewhere.
    (
        for $name:ty {
            $( $(#[doc = $variant_doc:literal])* $variant:ident = $word:literal, )*
            $(; later: [$($later:literal),* $(,)?])?
        }
    ) => {
        impl $crate::value::Setting for $name {
            fn expected() -> String {
                $crate::options::words(&[$($word),*])
            }

            fn read(value: &$crate::table::Value<'_>) -> Option<Self> {
                match value.as_text() {
                    $( Some($word) => Some(Self::$variant), )*
                    $($( Some($later) => {
                        value.not_yet(concat!("\"", $later, "\""));
                        None
                    } )*)?
                    found => {
                        $crate::options::wrong_word(value, found, &[$($word),*]);
                        None
                    }
                }
            }

            fn choices() -> Vec<(&'static str, &'static str)> {
                vec![
                    $( ($word, concat!($($variant_doc, "\n",)*).trim()), )*
                    $( $( ($later, "Not yet in this version."), )* )?
                ]
            }
        }
    };
}

/// One key of a reference; for [`options!`](crate::options!).
pub fn key<T: Setting>(name: &'static str, doc: &'static str, default: Option<&'static str>) -> Key {
    Key {
        name,
        doc,
        expected: T::expected(),
        default: default.map(Into::into),
        required: default.is_none() && T::absent().is_none(),
        table: T::table(),
        choices: T::choices(),
    }
}

/// `"a", "b" or "c"`; for [`choices!`](crate::choices!).
pub fn words(words: &[&str]) -> String {
    match words {
        [] => "nothing".into(),
        [one] => format!("{one:?}"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|word| format!("{word:?}")).collect();
            format!("{} or {last:?}", first.join(", "))
        }
    }
}

/// Notes a word that is none of those known; for [`choices!`](crate::choices!).
pub fn wrong_word(value: &crate::table::Value<'_>, found: Option<&str>, known: &[&str]) {
    match found.and_then(|found| crate::mistake::nearest(found, known.iter().copied())) {
        Some(nearest) => value.mistake(words(known), format!("{} (did you mean {nearest:?}?)", value.found())),
        None => value.wrong(words(known)),
    }
}
