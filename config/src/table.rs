//! A table as the user wrote it.

/// A table as the user wrote it: reads keys, notes mistakes with their places.
pub struct Table<'a> {
    /// Where it stands.
    pub path: &'a str,
}
