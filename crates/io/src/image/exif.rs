//! The orientation tag of EXIF data. Anything odd in it means "no orientation", never an error: the picture counts.

/// Tag of the orientation in the first directory.
const ORIENTATION: u16 = 0x0112;

/// Numbers of a TIFF structure, in its byte order; every read is checked.
#[derive(Clone, Copy)]
pub(super) struct TiffBytes<'a> {
    bytes: &'a [u8],
    little_endian: bool,
}

impl<'a> TiffBytes<'a> {
    /// The byte order is the first thing in the file.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        match bytes.get(..2)? {
            b"II" => Some(Self { bytes, little_endian: true }),
            b"MM" => Some(Self { bytes, little_endian: false }),
            _ => None,
        }
    }

    fn number(&self, offset: usize, length: usize) -> Option<u64> {
        let bytes = self.bytes.get(offset..offset.checked_add(length)?)?;
        let add = |sum: u64, &byte: &u8| sum << 8 | u64::from(byte);
        Some(if self.little_endian { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) })
    }

    /// Where the value of a SHORT tag of the first directory lies, in classic files and BigTIFF.
    pub(super) fn short_value_offset(&self, wanted: u16) -> Option<usize> {
        let big = self.number(2, 2)? == 43;
        let (count_bytes, entry_bytes) = if big { (8, 20) } else { (2, 12) };
        let directory = usize::try_from(if big { self.number(8, 8)? } else { self.number(4, 4)? }).ok()?;
        let count = self.number(directory, count_bytes)?.min(4096); // 4096 tags are more than anybody writes
        for index in 0..count as usize {
            let entry = directory.checked_add(count_bytes)?.checked_add(index * entry_bytes)?;
            if self.number(entry, 2)? == u64::from(wanted) {
                let is_short = self.number(entry.checked_add(2)?, 2)? == 3;
                return is_short.then_some(entry + if big { 12 } else { 8 });
            }
        }
        None
    }

    /// Value of a SHORT tag of the first directory.
    pub(super) fn short(&self, wanted: u16) -> Option<u16> {
        Some(self.number(self.short_value_offset(wanted)?, 2)? as u16)
    }

    /// The two bytes of a SHORT in this byte order.
    pub(super) fn short_bytes(&self, value: u16) -> [u8; 2] {
        if self.little_endian { value.to_le_bytes() } else { value.to_be_bytes() }
    }
}

/// Orientation 1..=8 of EXIF data, with or without the `Exif\0\0` in front; 1 when there is none or it is not valid.
pub(super) fn orientation(exif: &[u8]) -> u8 {
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let value = TiffBytes::new(tiff).and_then(|tiff| tiff.short(ORIENTATION));
    value.filter(|value| (1..=8).contains(value)).map_or(1, |value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exif(little_endian: bool, value: u16) -> Vec<u8> {
        let short = |v: u16| if little_endian { v.to_le_bytes() } else { v.to_be_bytes() };
        let long = |v: u32| if little_endian { v.to_le_bytes() } else { v.to_be_bytes() };
        let mut bytes = if little_endian { b"Exif\0\0II".to_vec() } else { b"MM".to_vec() };
        bytes.extend(short(42));
        bytes.extend(long(8));
        bytes.extend(short(1));
        bytes.extend(short(ORIENTATION));
        bytes.extend(short(3));
        bytes.extend(long(1));
        bytes.extend(short(value));
        bytes.extend([0; 6]);
        bytes
    }

    #[test]
    fn reads_both_byte_orders_and_ignores_nonsense() {
        for little_endian in [true, false] {
            for value in [0, 1, 6, 8, 9, 65535] {
                let want = if (1..=8).contains(&value) { value as u8 } else { 1 };
                assert_eq!(orientation(&exif(little_endian, value)), want);
            }
        }
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_survived() {
        let good = exif(true, 6);
        for length in 0..good.len() {
            assert!((1..=8).contains(&orientation(&good[..length])));
        }
        for position in 0..good.len() {
            for value in [0, 1, 0x7F, 0x80, 0xFF] {
                let mut bad = good.clone();
                bad[position] = value;
                assert!((1..=8).contains(&orientation(&bad)));
            }
        }
    }
}
