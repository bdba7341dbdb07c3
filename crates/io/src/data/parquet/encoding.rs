//! Encodings of values: levels and indices in runs, plain values, differences. All output is bounded by the number of
//! values that the caller expects and by [`LONGEST`].

use super::Defect;
use std::ops::Range;

/// Most bytes of the values of one page or dictionary.
pub(super) const LONGEST: usize = 256 << 20;

/// Decoded values of a page or a dictionary.
#[derive(Debug)]
pub(super) enum Values {
    /// Parts of a buffer.
    Bytes { data: Vec<u8>, parts: Vec<Range<u32>> },
    /// Whole numbers.
    Ints(Vec<i64>),
}

impl Values {
    pub(super) fn len(&self) -> usize {
        match self {
            Values::Bytes { parts, .. } => parts.len(),
            Values::Ints(values) => values.len(),
        }
    }

    /// Memory held.
    pub(super) fn weight(&self) -> usize {
        match self {
            Values::Bytes { data, parts } => data.len() + parts.len() * 8,
            Values::Ints(values) => values.len() * 8,
        }
    }
}

fn short() -> Defect {
    Defect::corrupt("a page ends inside its values")
}

fn varint(bytes: &[u8], at: &mut usize) -> Result<u64, Defect> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or_else(short)?;
        *at += 1;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Defect::corrupt("a number of more than ten bytes"))
}

fn zigzag(bytes: &[u8], at: &mut usize) -> Result<i64, Defect> {
    let value = varint(bytes, at)?;
    Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}

/// `count` numbers of `width` bits (at most 64), low bits first.
fn unpack(bytes: &[u8], width: u32, count: usize, mut each: impl FnMut(u64)) {
    let (mut window, mut held, mut next) = (0u128, 0, bytes.iter());
    for _ in 0..count {
        while held < width {
            window |= u128::from(*next.next().unwrap_or(&0)) << held;
            held += 8;
        }
        each((window & ((1u128 << width) - 1)) as u64);
        window >>= width;
        held -= width;
    }
}

/// Runs of repeated and of bit-packed numbers: `count` of them.
pub(super) fn runs(bytes: &[u8], width: u32, count: usize) -> Result<Vec<u32>, Defect> {
    if width > 32 {
        return Err(Defect::corrupt("indices of more than 32 bits"));
    }
    let mut out = Vec::new();
    let mut at = 0;
    while out.len() < count {
        let head = varint(bytes, &mut at)?;
        let left = count - out.len();
        if head & 1 == 0 {
            let length = width.div_ceil(8) as usize;
            let stored = bytes.get(at..at + length).ok_or_else(short)?;
            at += length;
            let value = stored.iter().rev().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
            let repeats = usize::try_from(head >> 1).unwrap_or(usize::MAX).min(left);
            if repeats == 0 {
                return Err(Defect::corrupt("a run of nothing"));
            }
            out.resize(out.len() + repeats, value);
        } else {
            let groups = usize::try_from(head >> 1).unwrap_or(usize::MAX);
            let values = groups.saturating_mul(8).min(left);
            if values == 0 {
                return Err(Defect::corrupt("a run of nothing"));
            }
            // The last run may be cut to what is needed.
            let length = (values * width as usize).div_ceil(8);
            unpack(bytes.get(at..at + length).ok_or_else(short)?, width, values, |value| out.push(value as u32));
            at = at.saturating_add(groups.saturating_mul(width as usize));
        }
    }
    Ok(out)
}

/// Bytes with their length, or numbers, one after the other.
pub(super) fn plain(data: Vec<u8>, number_bytes: Option<usize>, count: usize) -> Result<Values, Defect> {
    if let Some(size) = number_bytes {
        let stored = count.checked_mul(size).and_then(|length| data.get(..length)).ok_or_else(short)?;
        let number = |bytes: &[u8]| match bytes.try_into() {
            Ok(eight) => i64::from_le_bytes(eight),
            Err(_) => i64::from(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
        };
        return Ok(Values::Ints(stored.chunks_exact(size).map(number).collect()));
    }
    let mut parts = Vec::new();
    let mut at = 0usize;
    for _ in 0..count {
        let length = data.get(at..at + 4).ok_or_else(short)?;
        let start = at + 4;
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        at = start.checked_add(length).filter(|end| *end <= data.len()).ok_or_else(short)?;
        parts.push(start as u32..at as u32); // a page is shorter than 4 GiB
    }
    Ok(Values::Bytes { data, parts })
}

/// Differences in bit-packed miniblocks. Gives the numbers and the bytes taken.
pub(super) fn deltas(bytes: &[u8], count: usize) -> Result<(Vec<i64>, usize), Defect> {
    let mut at = 0;
    let block = varint(bytes, &mut at)?;
    let miniblocks = varint(bytes, &mut at)?;
    let total = varint(bytes, &mut at)?;
    let mut last = zigzag(bytes, &mut at)?;
    if total != count as u64 {
        return Err(Defect::corrupt(format!("{total} differences for {count} values")));
    }
    let mut out = Vec::new();
    if count > 0 {
        out.push(last);
    }
    if miniblocks == 0 || block % miniblocks != 0 || block / miniblocks % 8 != 0 || block > 1 << 20 || block == 0 {
        return Err(Defect::corrupt("blocks of differences of an impossible size"));
    }
    let per_miniblock = (block / miniblocks) as usize;
    while out.len() < count {
        let smallest = zigzag(bytes, &mut at)?;
        let widths = bytes.get(at..at + miniblocks as usize).ok_or_else(short)?;
        at += widths.len();
        for width in widths {
            if out.len() >= count {
                break; // what is left of the block is not stored
            }
            if *width > 64 {
                return Err(Defect::corrupt("differences of more than 64 bits"));
            }
            let length = per_miniblock / 8 * usize::from(*width);
            let packed = bytes.get(at..at + length).ok_or_else(short)?;
            at += length;
            let values = per_miniblock.min(count - out.len());
            unpack(packed, u32::from(*width), values, |delta| {
                last = last.wrapping_add(smallest).wrapping_add(delta.cast_signed());
                out.push(last);
            });
        }
    }
    Ok((out, at))
}

/// All lengths, then all bytes.
pub(super) fn delta_lengths(data: Vec<u8>, count: usize) -> Result<Values, Defect> {
    let (lengths, mut at) = deltas(&data, count)?;
    let mut parts = Vec::with_capacity(lengths.len());
    for length in lengths {
        let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length));
        let end = end.filter(|end| *end <= data.len()).ok_or_else(short)?;
        parts.push(at as u32..end as u32);
        at = end;
    }
    Ok(Values::Bytes { data, parts })
}

/// Lengths of what is shared with the value before, then the rest of each value.
pub(super) fn delta_bytes(data: &[u8], count: usize) -> Result<Values, Defect> {
    let (shared, at) = deltas(data, count)?;
    let Values::Bytes { data: rests, parts: rest_parts } = delta_lengths(data[at..].to_vec(), count)? else {
        return Err(short());
    };
    let (mut out, mut parts) = (Vec::new(), Vec::with_capacity(count));
    let mut last = 0..0usize;
    for (shared, rest) in shared.into_iter().zip(rest_parts) {
        let shared = usize::try_from(shared).ok().filter(|shared| *shared <= last.len());
        let shared = shared.ok_or_else(|| Defect::corrupt("a value shares more than the one before has"))?;
        let start = out.len();
        // Each value may repeat the whole one before it: little data could become very much.
        if start + shared + rest.len() > LONGEST {
            return Err(Defect::TooLong { bytes: (start + shared + rest.len()) as u64, limit: LONGEST as u64 });
        }
        out.extend_from_within(last.start..last.start + shared);
        out.extend_from_slice(&rests[rest.start as usize..rest.end as usize]);
        last = start..out.len();
        parts.push(start as u32..out.len() as u32);
    }
    Ok(Values::Bytes { data: out, parts })
}
