//! A writer of flatbuffers, as much as Arrow's schemas and record batches need. A buffer grows from its end to its
//! beginning, so it is kept reversed; a place is a distance from the end.

/// A value of a table's slot.
pub(super) enum Slot {
    U8(u8),
    I16(i16),
    I32(i32),
    I64(i64),
    /// Something written before.
    At(usize),
}

#[derive(Default)]
pub(super) struct Builder {
    reversed: Vec<u8>,
}

impl Builder {
    fn place(&self) -> usize {
        self.reversed.len()
    }

    fn prepend(&mut self, bytes: &[u8]) {
        self.reversed.extend(bytes.iter().rev());
    }

    /// Pads so that what follows is aligned once `more` bytes are in between.
    fn align(&mut self, to: usize, more: usize) {
        self.reversed.resize((self.place() + more).next_multiple_of(to) - more, 0);
    }

    fn offset_to(&mut self, place: usize) {
        self.align(4, 0);
        let offset = (self.place() + 4 - place) as u32;
        self.prepend(&offset.to_le_bytes());
    }

    pub(super) fn text(&mut self, text: &str) -> usize {
        self.align(4, text.len() + 1);
        self.prepend(&[0]);
        self.prepend(text.as_bytes());
        self.prepend(&(text.len() as u32).to_le_bytes());
        self.place()
    }

    /// A vector of things written before.
    pub(super) fn vector(&mut self, places: &[usize]) -> usize {
        self.align(4, 0);
        places.iter().rev().for_each(|place| self.offset_to(*place));
        self.prepend(&(places.len() as u32).to_le_bytes());
        self.place()
    }

    /// A vector of structures of 64-bit words.
    pub(super) fn structures<const WORDS: usize>(&mut self, all: &[[i64; WORDS]]) -> usize {
        self.align(8, 0);
        for structure in all.iter().rev() {
            structure.iter().rev().for_each(|word| self.prepend(&word.to_le_bytes()));
        }
        self.prepend(&(all.len() as u32).to_le_bytes());
        self.place()
    }

    /// A table with these slots; what is absent has its default.
    pub(super) fn table(&mut self, slots: &[(usize, Slot)]) -> usize {
        let end = self.place();
        let count = slots.iter().map(|(slot, _)| slot + 1).max().unwrap_or(0);
        let mut places = vec![None; count];
        for (slot, value) in slots {
            match value {
                Slot::U8(value) => self.prepend(&[*value]),
                Slot::I16(value) => {
                    self.align(2, 0);
                    self.prepend(&value.to_le_bytes());
                }
                Slot::I32(value) => {
                    self.align(4, 0);
                    self.prepend(&value.to_le_bytes());
                }
                Slot::I64(value) => {
                    self.align(8, 0);
                    self.prepend(&value.to_le_bytes());
                }
                Slot::At(place) => self.offset_to(*place),
            }
            places[*slot] = Some(self.place());
        }
        // The table begins with the distance to its list of slots, which stands right before it.
        self.align(4, 0);
        let list_bytes = 4 + 2 * count;
        self.prepend(&(list_bytes as i32).to_le_bytes());
        let table = self.place();
        for place in places.iter().rev() {
            self.prepend(&(place.map_or(0, |place| table - place) as u16).to_le_bytes());
        }
        self.prepend(&((table - end) as u16).to_le_bytes());
        self.prepend(&(list_bytes as u16).to_le_bytes());
        table
    }

    /// The buffer, a multiple of eight bytes long.
    pub(super) fn finish(mut self, root: usize) -> Vec<u8> {
        self.align(8, 4);
        self.offset_to(root);
        self.reversed.reverse();
        self.reversed
    }
}
