//! A set of byte strings with their ids, asked which of them begin a text.
use std::collections::HashMap;

use super::bpe::PairHashers;

/// Strings stored byte by byte from a common root.
pub(super) struct Trie {
    edges: HashMap<u64, u32, PairHashers>,
    /// Of each node, the value of the string that ends there.
    values: Vec<Option<u32>>,
}

impl Trie {
    pub(super) fn new() -> Self {
        Self { edges: HashMap::with_hasher(PairHashers::new()), values: vec![None] }
    }

    /// Adds a string; of equal strings the first one stays. Empty strings match nowhere and are left out.
    pub(super) fn insert(&mut self, key: &[u8], value: u32) {
        if key.is_empty() {
            return;
        }
        let mut node = 0;
        for &byte in key {
            let fresh = self.values.len() as u32;
            node = *self.edges.entry(edge(node, byte)).or_insert(fresh);
            if node == fresh {
                self.values.push(None);
            }
        }
        self.values[node as usize].get_or_insert(value);
    }

    /// Length and value of every string that `text` begins with, shortest first.
    pub(super) fn prefixes<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (usize, u32)> + 'a {
        let mut node = 0;
        let nodes = text.iter().map_while(move |&byte| {
            node = *self.edges.get(&edge(node, byte))?;
            Some(node)
        });
        nodes.enumerate().filter_map(|(at, node)| Some((at + 1, self.values[node as usize]?)))
    }

    /// Length and value of the longest string that `text` begins with.
    pub(super) fn longest_prefix(&self, text: &[u8]) -> Option<(usize, u32)> {
        self.prefixes(text).last()
    }
}

fn edge(node: u32, byte: u8) -> u64 {
    u64::from(node) << 8 | u64::from(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_a_text() {
        let mut trie = Trie::new();
        for (key, value) in [("a", 1), ("abc", 2), ("b", 3), ("", 4), ("a", 5)] {
            trie.insert(key.as_bytes(), value);
        }
        assert_eq!(trie.prefixes(b"abcd").collect::<Vec<_>>(), [(1, 1), (3, 2)]);
        assert_eq!(trie.longest_prefix(b"ab"), Some((1, 1)));
        assert_eq!(trie.longest_prefix(b"xa"), None);
        assert_eq!(trie.longest_prefix(b""), None);
    }
}
