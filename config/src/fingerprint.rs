//! Fingerprints: whether something was written otherwise.

use std::fmt;

use rtlive_core::sorted;
use sha2::{Digest, Sha256};

use crate::document::{Entry, Kind, Node};

/// Stands for what some tables hold, wherever in the files it stands and however it is laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "Fingerprint({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

impl Fingerprint {
    pub(crate) fn of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Self {
        let mut hash = Sha256::new();
        table(&mut hash, entries.collect());
        Self(hash.finalize().into())
    }
}

/// Keys by name: their order says nothing, and that of several files less.
fn table(hash: &mut Sha256, mut entries: Vec<&Entry>) {
    sorted::by(&mut entries, |a, b| a.key.cmp(&b.key));
    hash.update(b"{");
    for entry in entries {
        text(hash, &entry.key);
        value(hash, &entry.node);
    }
    hash.update(b"}");
}

fn value(hash: &mut Sha256, node: &Node) {
    match &node.kind {
        // A text is told from what it would be without quotes.
        Kind::Text(found) => text(hash, &format!("{found:?}")),
        Kind::Integer(integer) => text(hash, &format!("{integer:?}")),
        Kind::Float(float) => text(hash, &format!("{float:?}")),
        Kind::Bool(found) => text(hash, if *found { "true" } else { "false" }),
        Kind::Date(date) => text(hash, date),
        Kind::List(items) => {
            hash.update(b"[");
            items.iter().for_each(|item| value(hash, item));
            hash.update(b"]");
        }
        Kind::Table(entries) => table(hash, entries.iter().collect()),
    }
}

/// With its length, so that no two sequences of texts make the same bytes.
fn text(hash: &mut Sha256, text: &str) {
    hash.update(text.len().to_le_bytes());
    hash.update(text);
}

#[cfg(test)]
mod tests {
    use crate::document::Document;

    #[test]
    fn only_what_is_written_counts() {
        let of = |text: &str| Document::of_text("t.toml", text).root().fingerprint(&["a", "b"]);
        let first = of("[a]\nx = 1\ny = [1, 2]\n[c]\nz = 1");
        assert_eq!(first, of("# moved\n[c]\nz = 2\n[a]\ny = [ 1,2 ]\nx = 1"));
        for other in ["a = { x = 2, y = [1, 2] }", "a = { x = 1, y = [2, 1] }", "a = { x = '1', y = [1, 2] }", ""] {
            assert_ne!(first, of(other), "{other}");
        }
    }
}
