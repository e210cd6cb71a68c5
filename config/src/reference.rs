//! The reference: what each key means, from the doc comments of the types.

/// The keys of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// What the table is, from its doc comment.
    pub doc: &'static str,
    /// Its keys in the order of the type.
    pub keys: Vec<Key>,
    /// Keys of the documented configuration that this version refuses as not yet there.
    pub later: Vec<&'static str>,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it means, from its doc comment.
    pub doc: &'static str,
    /// What a value looks like: `a span such as "10s"`.
    pub expected: String,
    /// The default as it would be written; `None` for a key that must be there or simply may be absent.
    pub default: Option<String>,
    /// Whether it must be there.
    pub required: bool,
    /// The keys of the tables that it holds, where it does.
    pub table: Option<Reference>,
    /// The words that it takes, where it takes words, each with what it means.
    pub choices: Vec<(&'static str, &'static str)>,
}

impl Reference {
    /// These keys and then those of `more`: a table that is read by two types. The doc is this one's.
    #[must_use]
    pub fn with(mut self, more: Self) -> Self {
        self.keys.extend(more.keys);
        self.later.extend(more.later);
        self
    }
}
