//! Merging neighbors into larger pieces, best pair first: the loop that all byte-pair encodings share.
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A piece of the word in a doubly linked list; past either end is an index that no symbol has.
pub(super) struct Symbol {
    /// Id of the piece; what stands for an unknown one is the caller's affair.
    pub(super) piece: u32,
    /// First byte of the word that it covers.
    pub(super) start: usize,
    /// One past the last byte.
    pub(super) end: usize,
    next: usize,
    previous: usize,
    alive: bool,
}

/// A word as a list of symbols.
#[derive(Default)]
pub(super) struct Word {
    symbols: Vec<Symbol>,
}

/// A possible merge; ordered by rank, then by place. The ends tell whether its symbols are still what they were.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate<R> {
    rank: R,
    left: usize,
    left_end: usize,
    right_end: usize,
    merged: u32,
}

impl Word {
    pub(super) fn with_capacity(count: usize) -> Self {
        Self { symbols: Vec::with_capacity(count) }
    }

    /// Appends a symbol of `length` bytes, which must not be 0.
    pub(super) fn push(&mut self, piece: u32, length: usize) {
        let (at, start) = (self.symbols.len(), self.symbols.last().map_or(0, |last| last.end));
        let end = start + length;
        self.symbols.push(Symbol { piece, start, end, next: at + 1, previous: at.wrapping_sub(1), alive: true });
    }

    /// Merges until no neighbors can be. `rank` gives the rank of a pair, the lowest being merged first and the leftmost
    /// among equals, and the piece that it becomes. A heap keeps this n log n for words of any length.
    pub(super) fn merge<R: Ord>(&mut self, mut rank: impl FnMut(&Symbol, &Symbol) -> Option<(R, u32)>) {
        let symbols = &mut self.symbols;
        let mut queue = BinaryHeap::with_capacity(symbols.len());
        let mut enqueue = |symbols: &[Symbol], left: usize, right: usize, queue: &mut BinaryHeap<_>| {
            if let Some((rank, merged)) = rank(&symbols[left], &symbols[right]) {
                let (left_end, right_end) = (symbols[left].end, symbols[right].end);
                queue.push(Reverse(Candidate { rank, left, left_end, right_end, merged }));
            }
        };
        (1..symbols.len()).for_each(|right| enqueue(symbols, right - 1, right, &mut queue));
        while let Some(Reverse(Candidate { left, left_end, right_end, merged, .. })) = queue.pop() {
            let right = symbols[left].next;
            let stale = !symbols[left].alive
                || symbols[left].end != left_end
                || symbols.get(right).is_none_or(|symbol| symbol.end != right_end);
            if stale {
                continue;
            }
            let after = symbols[right].next;
            symbols[right].alive = false;
            symbols[left].piece = merged;
            symbols[left].end = right_end;
            symbols[left].next = after;
            if after < symbols.len() {
                symbols[after].previous = left;
                enqueue(symbols, left, after, &mut queue);
            }
            let before = symbols[left].previous;
            if before < symbols.len() {
                enqueue(symbols, before, left, &mut queue);
            }
        }
    }

    /// The symbols that are left.
    pub(super) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.alive)
    }
}
