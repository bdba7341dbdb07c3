//! `.npz` trees: a zip archive of `.npy` arrays, stored or deflated, as `numpy.savez` and `savez_compressed` write
//! them and JAX code uses them for checkpoints. The name of an array is its path in the tree, `img/embedding/kernel`.
//! Format of `.npy`: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use flate2::read::DeflateDecoder;

use super::dtype::DType;
use super::error::{Foreign, NpyError, WeightsError};
use super::layout::Layout;
use super::source::{Reader, Source};
use super::zip::{Directory, Member};
use super::{Container, Location, MAX_RANK, MAX_TENSORS, Part, TensorInfo};

/// Longest `.npy` header: numpy's own limit for files that are not trusted.
pub(super) const MAX_NPY_HEADER: usize = 10_000;
/// A deflated array may be this large whatever it is deflated from ...
const FREE_INFLATION: u64 = 64 << 20;
/// ... and above that so many times what is stored. Weights deflate to nine tenths.
pub(super) const MAX_INFLATION: u64 = 100;
/// Where a checkpoint of big_vision and its kin keeps the model beside the optimizer (`load_params` of its `utils.py`).
const ROOTS: [&str; 2] = ["params/", "opt/target/"];

/// An array inside a deflate stream, which is inflated whenever the array is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deflated {
    /// Bytes of the stream.
    stored: u64,
    /// Bytes of the header before the elements, inflated.
    skip: u64,
}

impl Deflated {
    fn reader(self, source: &Source, start: u64) -> DeflateDecoder<Reader<'_>> {
        DeflateDecoder::new(source.reader(start, self.stored))
    }

    /// Inflates all elements into `out`, which has exactly their bytes; the stream begins at `start`.
    pub(super) fn inflate(self, source: &Source, start: u64, out: &mut [u8]) -> Result<(), NpyError> {
        let mut reader = self.reader(source, start);
        let mut inflate = || -> std::io::Result<bool> {
            std::io::copy(&mut reader.by_ref().take(self.skip), &mut std::io::sink())?;
            reader.read_exact(out)?;
            Ok(reader.read(&mut [0])? == 0)
        };
        match inflate() {
            Ok(true) => Ok(()),
            Ok(false) => Err(NpyError::TooLong),
            Err(error) => Err(NpyError::Inflate { message: plain(&error) }),
        }
    }
}

/// Whether an archive is one of arrays; a torch file has its `data.pkl` and none.
pub(super) fn is_npz(directory: &Directory) -> bool {
    let mut names = directory.names();
    names.clone().any(|name| name.ends_with(b".npy")) && !names.any(|name| name.ends_with(b"data.pkl"))
}

/// Reads and checks the header of every array of the model.
pub(super) fn read(source: Source, directory: &Directory) -> Result<Part, WeightsError> {
    let mut ignored = BTreeSet::new();
    let mut arrays: Vec<(&str, &[u8])> = Vec::new();
    for member in directory.names() {
        let name = std::str::from_utf8(member)
            .map_err(|_| wrap(&source, String::from_utf8_lossy(member).as_ref(), NpyError::NameNotUtf8))?;
        match name.strip_suffix(".npy") {
            Some(name) => arrays.push((name, member)),
            None => _ = ignored.insert(name.to_owned()),
        }
    }
    if let Some(root) = ROOTS.into_iter().find(|root| arrays.iter().any(|(name, _)| name.starts_with(root))) {
        let first = |name: &str| name.split('/').next().unwrap_or(name).to_owned();
        ignored.extend(arrays.iter().filter(|(name, _)| !name.starts_with(root)).map(|(name, _)| first(name)));
        arrays = arrays.iter().filter_map(|(name, member)| Some((name.strip_prefix(root)?, *member))).collect();
    }
    if arrays.len() > MAX_TENSORS {
        return Err(wrap(&source, "", NpyError::TooManyArrays { count: arrays.len() }));
    }
    let mut tensors = Vec::with_capacity(arrays.len());
    for (name, member) in arrays {
        let Some(entry) = directory.get(member) else { continue };
        tensors.push(array(&source, directory, (name, member), entry)?);
    }
    let (container, ignored) = (Container::Npz, ignored.into_iter().collect());
    let (metadata, typed) = (BTreeMap::new(), BTreeMap::new());
    Ok(Part { container, source, tensors, metadata, typed, ignored })
}

fn wrap(source: &Source, array: &str, error: NpyError) -> WeightsError {
    WeightsError::Npy { path: source.path().to_owned(), array: Foreign::from(array), source: error }
}

/// One array: what its header says, and where its elements lie.
fn array(
    source: &Source,
    directory: &Directory,
    (name, member): (&str, &[u8]),
    entry: Member,
) -> Result<(TensorInfo, Location), WeightsError> {
    let wrap = |error| wrap(source, name, error);
    let start = directory.start(source, member, entry)?;
    let (text, skip) = if entry.deflated() {
        read_header(&mut Deflated { stored: entry.size, skip: 0 }.reader(source, start)).map_err(wrap)?
    } else {
        read_header(&mut source.reader(start, entry.size)).map_err(wrap)?
    };
    let header = Header::parse(&text).map_err(wrap)?;
    let elements = super::element_count(&header.shape, header.dtype).ok_or_else(|| wrap(NpyError::ShapeOverflow))?;
    let (_, width) = header.dtype.block();
    let (needed, held) = ((elements * width) as u64, entry.inflated.saturating_sub(skip));
    if needed != held {
        return Err(wrap(NpyError::Size { needed, held }));
    }
    if entry.deflated() && needed > FREE_INFLATION && needed / MAX_INFLATION > entry.size {
        return Err(wrap(NpyError::Bomb { stored: entry.size, inflated: needed }));
    }
    let layout = Layout::new(&header.shape, &strides(&header));
    let deflated = entry.deflated().then_some(Deflated { stored: entry.size, skip });
    let offset = if entry.deflated() { start } else { start + skip };
    let info = TensorInfo { name: name.to_owned(), dtype: header.dtype, shape: header.shape };
    Ok((info, Location { source: 0, offset, layout, deflated }))
}

/// In elements; they fit, since the number of elements does (an axis of 0 makes the layout empty whatever they are).
fn strides(header: &Header) -> Vec<usize> {
    let mut strides = vec![1usize; header.shape.len()];
    let mut step = 1usize;
    let axes: Vec<usize> = (0..strides.len()).collect();
    let order: Vec<usize> = if header.fortran { axes } else { axes.into_iter().rev().collect() };
    for axis in order {
        strides[axis] = step;
        step = step.saturating_mul(header.shape[axis]);
    }
    strides
}

/// The header's text and how many bytes precede the data.
fn read_header(from: &mut dyn Read) -> Result<(Vec<u8>, u64), NpyError> {
    let mut exact = |out: &mut [u8]| from.read_exact(out).map_err(|error| NpyError::Header { message: plain(&error) });
    let mut start = [0; 8];
    exact(&mut start)?;
    if start[..6] != *b"\x93NUMPY" {
        return Err(NpyError::Magic);
    }
    let mut length = [0; 4];
    let length_bytes = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(NpyError::Version { version }),
    };
    exact(&mut length[..length_bytes])?;
    let len = u32::from_le_bytes(length) as usize;
    if len > MAX_NPY_HEADER {
        return Err(NpyError::HeaderTooLong { len });
    }
    let mut text = vec![0; len];
    exact(&mut text)?;
    Ok((text, (8 + length_bytes + len) as u64))
}

/// An error's text without what a file may have put into it.
fn plain(error: &std::io::Error) -> String {
    error.to_string().chars().take(200).flat_map(char::escape_debug).collect()
}

/// What a header says.
#[derive(Debug, PartialEq)]
struct Header {
    dtype: DType,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`: these three entries in any order, literals
    /// only. It is Python's syntax, and nothing of it is evaluated.
    fn parse(text: &[u8]) -> Result<Header, NpyError> {
        let mut literal = Literal { text, at: 0 };
        let (mut dtype, mut fortran, mut shape) = (None, None, None);
        literal.expect(b'{')?;
        while !literal.eat(b'}') {
            let key = literal.string()?;
            literal.expect(b':')?;
            let again = match key {
                b"descr" => dtype.replace(literal.dtype()?).is_some(),
                b"fortran_order" => fortran.replace(literal.flag()?).is_some(),
                b"shape" => shape.replace(literal.shape()?).is_some(),
                _ => return Err(literal.wrong("an entry other than descr, fortran_order and shape")),
            };
            if again {
                return Err(literal.wrong("an entry that is there twice"));
            }
            if !literal.eat(b',') && literal.peek() != Some(b'}') {
                return Err(literal.wrong("no comma or brace after an entry"));
            }
        }
        match (literal.peek(), dtype, fortran, shape) {
            (None, Some(dtype), Some(fortran), Some(shape)) => Ok(Header { dtype, fortran, shape }),
            (None, ..) => Err(literal.wrong("fewer than the three entries")),
            _ => Err(literal.wrong("something after the dictionary")),
        }
    }
}

struct Literal<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Literal<'a> {
    fn wrong(&self, what: &'static str) -> NpyError {
        NpyError::Literal { at: self.at, what }
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), NpyError> {
        if self.eat(byte) { Ok(()) } else { Err(self.wrong("an unexpected character")) }
    }

    /// A text in quotes without escapes.
    fn string(&mut self) -> Result<&'a [u8], NpyError> {
        let quote = self.peek().filter(|byte| matches!(byte, b'\'' | b'"'));
        let quote = quote.ok_or_else(|| self.wrong("no text in quotes"))?;
        let rest = &self.text[self.at + 1..];
        let end = rest.iter().position(|byte| *byte == quote).ok_or_else(|| self.wrong("a text without its end"))?;
        if rest[..end].contains(&b'\\') {
            return Err(self.wrong("an escape"));
        }
        self.at += end + 2;
        Ok(&rest[..end])
    }

    fn flag(&mut self) -> Result<bool, NpyError> {
        self.peek();
        for (word, value) in [(&b"True"[..], true), (b"False", false)] {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.wrong("neither True nor False"))
    }

    fn shape(&mut self) -> Result<Vec<usize>, NpyError> {
        self.expect(b'(')?;
        let mut sizes = Vec::new();
        while !self.eat(b')') {
            if sizes.len() == MAX_RANK {
                return Err(NpyError::TooManyAxes);
            }
            if self.peek() == Some(b'-') {
                return Err(self.wrong("a negative size"));
            }
            sizes.push(self.number()?);
            if !self.eat(b',') && self.peek() != Some(b')') {
                return Err(self.wrong("no comma or parenthesis after a size"));
            }
        }
        Ok(sizes)
    }

    fn number(&mut self) -> Result<usize, NpyError> {
        let digits = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let text = std::str::from_utf8(&self.text[self.at..self.at + digits]).unwrap_or_default();
        if digits == 0 {
            return Err(self.wrong("no whole number"));
        }
        let value = text.parse().map_err(|_| NpyError::ShapeOverflow)?;
        self.at += digits;
        Ok(value)
    }

    fn dtype(&mut self) -> Result<DType, NpyError> {
        if self.peek() == Some(b'[') {
            return Err(NpyError::Structured);
        }
        let descr = self.string()?;
        let refused = |found: &[u8]| NpyError::DType { found: Foreign::from(String::from_utf8_lossy(found).as_ref()) };
        Ok(match descr {
            b"<f8" => DType::F64,
            b"<f4" => DType::F32,
            b"<f2" => DType::F16,
            // numpy has no bfloat16 and writes JAX's as two bytes of no type.
            b"|V2" | b"<V2" => DType::BF16,
            b"<i8" => DType::I64,
            b"<i4" => DType::I32,
            b"<i2" => DType::I16,
            b"|i1" => DType::I8,
            b"|u1" => DType::U8,
            b"|b1" => DType::Bool,
            [b'>', ..] => return Err(NpyError::BigEndian),
            [b'|' | b'<', b'O', ..] => return Err(NpyError::Object),
            other => return Err(refused(other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_literals_and_nothing_else() {
        let header = |dtype, fortran, shape: &[usize]| Header { dtype, fortran, shape: shape.to_vec() };
        for (text, want) in [
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   \n", header(DType::F32, false, &[3, 4])),
            ("{\"shape\":(5,),\"descr\":\"|V2\",\"fortran_order\":True}", header(DType::BF16, true, &[5])),
            ("{'descr': '<i8', 'fortran_order': False, 'shape': ()}", header(DType::I64, false, &[])),
        ] {
            assert_eq!(Header::parse(text.as_bytes()).unwrap(), want, "{text}");
        }
        let with = |descr: &str, shape: &str| format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}");
        for (text, reason) in [
            (with("'|O'", "(1,)"), "Object"),
            (with("[('a', '<f4')]", "(1,)"), "Structured"),
            (with("'>f4'", "(1,)"), "BigEndian"),
            (with("'<c8'", "(1,)"), "DType"),
            (with("'<f4'", "(1, -1)"), "negative"),
            (with("'<f4'", "(1 2)"), "no comma"),
            (with("'<f4'", "(1, (2,))"), "no whole number"),
            (with("'<f4'", "(99999999999999999999,)"), "ShapeOverflow"),
            (with("'<f4'", "(1,1,1,1,1,1,1,1,1)"), "TooManyAxes"),
            (with("'<f4'", "__import__('os')"), "unexpected character"),
            (with("'\\x3cf4'", "(1,)"), "an escape"),
            (with("'<f4'", "(1,), 'shape': (2,)"), "twice"),
            (with("'<f4'", "(1,), 'x': 1"), "an entry other"),
            (with("'<f4'", "(1,)") + "x", "after the dictionary"),
            ("{'descr': '<f4'}".into(), "fewer than"),
            ("{'descr': '<f4".into(), "without its end"),
            (String::new(), "unexpected character"),
        ] {
            let error = format!("{:?}", Header::parse(text.as_bytes()).unwrap_err());
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
