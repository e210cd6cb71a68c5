//! The reference: what each key means, from the doc comments of the types.

/// The keys of one table.
pub struct Reference {
    /// What the table is, from its doc comment.
    pub doc: &'static str,
    /// Its keys in the order of the type.
    pub keys: Vec<Key>,
}

/// One key.
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
}
