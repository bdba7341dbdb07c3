//! Pages: headers, decompression, and values by row.

use super::Defect;
use super::encoding::{self, LONGEST, Values};
use super::metadata::{Leaf, Physical};
use super::thrift::Value;
use std::io::Read;

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dictionary,
    Data,
    /// Levels lie uncompressed before the values.
    DataV2 {
        levels: usize,
        is_compressed: bool,
    },
    /// An index or something of the future: passed over.
    Other,
}

/// A page's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Rows of a data page (null values count), entries of a dictionary.
    pub(super) count: u64,
    pub(super) compressed: u64,
    uncompressed: usize,
    encoding: i64,
}

impl Header {
    pub(super) fn new(value: &Value) -> Result<Self, Defect> {
        let missing = || Defect::corrupt("a page header without its sizes");
        let uncompressed = value.count(2).ok_or_else(missing)?;
        let compressed = value.count(3).ok_or_else(missing)?;
        let (kind, about) = match value.int(1) {
            Some(0) => (Kind::Data, value.field(5)),
            Some(2) => (Kind::Dictionary, value.field(7)),
            Some(3) => {
                let about = value.field(8).ok_or_else(missing)?;
                if about.count(6).unwrap_or(0) != 0 {
                    return Err(Defect::corrupt("levels of repetition in a flat column"));
                }
                let levels = about.count(5).and_then(|length| usize::try_from(length).ok()).ok_or_else(missing)?;
                let is_compressed = about.field(7) != Some(&Value::Bool(false));
                (Kind::DataV2 { levels, is_compressed }, Some(about))
            }
            _ => return Ok(Self { kind: Kind::Other, count: 0, compressed, uncompressed: 0, encoding: 0 }),
        };
        let about = about.ok_or_else(missing)?;
        let encoding = about.int(if matches!(kind, Kind::DataV2 { .. }) { 4 } else { 2 }).ok_or_else(missing)?;
        if kind == Kind::Data && about.int(3).unwrap_or(3) != 3 {
            return Err(Defect::Unsupported("levels in the deprecated encoding BIT_PACKED; write it anew".into()));
        }
        for bytes in [compressed, uncompressed] {
            if bytes > LONGEST as u64 {
                return Err(Defect::TooLong { bytes, limit: LONGEST as u64 });
            }
        }
        let count = about.count(1).ok_or_else(missing)?;
        Ok(Self { kind, count, compressed, uncompressed: uncompressed as usize, encoding })
    }
}

/// Decompresses exactly `length` bytes. Memory grows with what comes out, or is checked against what can.
fn decompress(codec: i64, bytes: &[u8], length: usize) -> Result<Vec<u8>, Defect> {
    let failed = |what: &dyn std::fmt::Display| Defect::corrupt(format!("a page does not decompress: {what}"));
    // What a byte can become at most: 64 bytes of three in Snappy, 255 of one in LZ4.
    let possible = |ratio: usize| {
        let fits = length <= bytes.len().saturating_mul(ratio);
        if fits { Ok(()) } else { Err(Defect::corrupt("a page that says it is longer than it can be")) }
    };
    let stream = |reader: &mut dyn Read| {
        let mut out = Vec::new();
        reader.take(length as u64 + 1).read_to_end(&mut out).map_err(|error| failed(&error))?;
        Ok(out)
    };
    let out = match codec {
        0 => bytes.to_vec(),
        1 => {
            possible(64)?;
            if snap::raw::decompress_len(bytes).map_err(|error| failed(&error))? != length {
                return Err(Defect::corrupt("a page of another length than its header says"));
            }
            snap::raw::Decoder::new().decompress_vec(bytes).map_err(|error| failed(&error))?
        }
        2 => stream(&mut flate2::read::MultiGzDecoder::new(bytes))?,
        5 => {
            possible(255)?;
            hadoop_lz4(bytes, length)?
        }
        // Refuses windows of more than 128 MiB, which would be its memory.
        6 => stream(&mut ruzstd::decoding::StreamingDecoder::new(bytes).map_err(|error| failed(&error))?)?,
        7 => {
            possible(255)?;
            lz4_flex::block::decompress(bytes, length).map_err(|error| failed(&error))?
        }
        3 => return Err(Defect::Unsupported("compressed with LZO; write it with Snappy or zstd".into())),
        4 => return Err(Defect::Unsupported("compressed with Brotli; write it with Snappy or zstd".into())),
        other => return Err(Defect::Unsupported(format!("compressed with the unknown codec {other}"))),
    };
    if out.len() != length {
        return Err(Defect::corrupt("a page of another length than its header says"));
    }
    Ok(out)
}

/// The old LZ4 of Hadoop: blocks with both lengths, big-endian, in front. Some writers left these out.
fn hadoop_lz4(bytes: &[u8], length: usize) -> Result<Vec<u8>, Defect> {
    let framed = || {
        let mut out = Vec::new();
        let mut rest = bytes;
        while let Some((head, data)) = rest.split_at_checked(8) {
            let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
            let (plain, packed) = (number(0), number(4));
            if out.len() + plain > length || plain > packed.saturating_mul(255) {
                return None;
            }
            let (block, after) = data.split_at_checked(packed)?;
            out.extend(lz4_flex::block::decompress(block, plain).ok()?);
            rest = after;
        }
        (rest.is_empty() && out.len() == length).then_some(out)
    };
    let whole = |error| Defect::corrupt(format!("a page does not decompress: {error}"));
    framed().map_or_else(|| lz4_flex::block::decompress(bytes, length).map_err(whole), Ok)
}

/// Bytes of a number, nothing for bytes.
fn number_bytes(leaf: &Leaf) -> Option<usize> {
    match leaf.physical {
        Physical::Int32 => Some(4),
        Physical::Int64 => Some(8),
        _ => None,
    }
}

/// Decodes a dictionary page.
pub(super) fn dictionary(header: &Header, codec: i64, leaf: &Leaf, bytes: &[u8]) -> Result<Values, Defect> {
    if !matches!(header.encoding, 0 | 2) {
        return Err(Defect::Unsupported(format!("a dictionary in encoding {}", header.encoding)));
    }
    let data = decompress(codec, bytes, header.uncompressed)?;
    encoding::plain(data, number_bytes(leaf), usize::try_from(header.count).unwrap_or(usize::MAX))
}

/// Marks a row without a value.
pub(super) const NONE: u32 = u32::MAX;

/// A decoded data page.
#[derive(Debug)]
pub(super) struct Data {
    /// By row of the page: which value, or [`NONE`].
    pub(super) rows: Vec<u32>,
    /// The page's own values; the rows index the dictionary where there are none.
    pub(super) own: Option<Values>,
}

/// Decodes a data page; `entries` are those of the dictionary.
pub(super) fn data(
    header: &Header,
    codec: i64,
    leaf: &Leaf,
    bytes: &[u8],
    entries: Option<usize>,
) -> Result<Data, Defect> {
    let count = usize::try_from(header.count).unwrap_or(usize::MAX);
    let (levels, values) = match header.kind {
        Kind::DataV2 { levels, is_compressed } => {
            let plain = header.uncompressed.checked_sub(levels);
            let (Some((levels, rest)), Some(plain)) = (bytes.split_at_checked(levels), plain) else {
                return Err(Defect::corrupt("levels longer than their page"));
            };
            let values = decompress(if is_compressed { codec } else { 0 }, rest, plain)?;
            (levels.to_vec(), values)
        }
        _ => {
            let mut page = decompress(codec, bytes, header.uncompressed)?;
            let mut levels = Vec::new();
            if leaf.max_definition > 0 {
                let length = page.get(..4).map(|l| u32::from_le_bytes([l[0], l[1], l[2], l[3]]) as usize);
                let end = length.and_then(|length| length.checked_add(4)).filter(|end| *end <= page.len());
                let end = end.ok_or_else(|| Defect::corrupt("levels longer than their page"))?;
                levels = page[4..end].to_vec();
                page.drain(..end);
            }
            (levels, page)
        }
    };
    let present: Vec<bool> = if leaf.max_definition == 0 {
        vec![true; count]
    } else {
        let width = 32 - leaf.max_definition.leading_zeros();
        encoding::runs(&levels, width, count)?.into_iter().map(|level| level == leaf.max_definition).collect()
    };
    let stored = present.iter().filter(|present| **present).count();
    let (indices, own) = decode(header.encoding, leaf, values, stored, entries)?;
    let mut next = 0;
    let mut row = |present: bool| {
        if !present {
            return NONE;
        }
        next += 1;
        indices.as_ref().map_or(next - 1, |indices| indices[next as usize - 1])
    };
    Ok(Data { rows: present.into_iter().map(&mut row).collect(), own })
}

type Decoded = (Option<Vec<u32>>, Option<Values>);

/// Values as indices into the dictionary, or as themselves.
fn decode(encoding: i64, leaf: &Leaf, data: Vec<u8>, count: usize, entries: Option<usize>) -> Result<Decoded, Defect> {
    let is_bytes = leaf.physical == Physical::Bytes;
    let own = match encoding {
        0 => encoding::plain(data, number_bytes(leaf), count)?,
        2 | 8 => {
            let entries = entries.ok_or_else(|| Defect::corrupt("indices without a dictionary"))?;
            let indices = match data.split_first() {
                Some((width, runs)) => encoding::runs(runs, u32::from(*width), count)?,
                None if count == 0 => Vec::new(),
                None => return Err(Defect::corrupt("a page ends inside its values")),
            };
            if indices.iter().any(|index| *index as usize >= entries) {
                return Err(Defect::corrupt("an index beyond the dictionary"));
            }
            return Ok((Some(indices), None));
        }
        5 if !is_bytes => Values::Ints(encoding::deltas(&data, count)?.0),
        6 if is_bytes => encoding::delta_lengths(data, count)?,
        7 if is_bytes => encoding::delta_bytes(&data, count)?,
        other => return Err(Defect::Unsupported(format!("values in encoding {other}; write them PLAIN"))),
    };
    Ok((None, Some(own)))
}
