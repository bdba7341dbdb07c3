//! Strided views of a storage: which parts of it to read, in which order, to get a contiguous tensor.

use super::dtype::DType;
use super::error::WeightsError;
use super::source::Source;

/// Up to this many bytes a scattered tensor's whole extent is read at once, whatever share of it is wanted.
const SMALL_EXTENT: u64 = 1 << 20;

/// The order of a tensor's elements in its storage, with dimensions merged as far as they are contiguous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// All elements in a row.
    Contiguous {
        /// How many.
        elements: usize,
    },
    /// Size and stride in elements of each merged dimension, outermost first; every size is at least 1.
    Strided {
        /// The merged dimensions.
        dimensions: Vec<(usize, usize)>,
    },
}

impl Layout {
    /// The layout of a checked tensor: the product of `shape` fits, and so does its extent.
    pub(super) fn new(shape: &[usize], strides: &[usize]) -> Layout {
        if shape.contains(&0) {
            return Layout::Contiguous { elements: 0 };
        }
        let mut dimensions: Vec<(usize, usize)> = Vec::new();
        for (size, stride) in shape.iter().copied().zip(strides.iter().copied()) {
            if size == 1 {
                continue;
            }
            match dimensions.last_mut() {
                // The outer dimension steps exactly over the inner one: together they are one dimension.
                Some((outer, outer_stride)) if stride.checked_mul(size) == Some(*outer_stride) && stride != 0 => {
                    *outer *= size;
                    *outer_stride = stride;
                }
                _ => dimensions.push((size, stride)),
            }
        }
        match dimensions.as_slice() {
            [] => Layout::Contiguous { elements: 1 },
            &[(elements, 1)] => Layout::Contiguous { elements },
            _ => Layout::Strided { dimensions },
        }
    }

    /// Number of elements.
    pub(super) fn elements(&self) -> usize {
        match self {
            Layout::Contiguous { elements } => *elements,
            Layout::Strided { dimensions } => dimensions.iter().map(|(size, _)| size).product(),
        }
    }
}

/// Reads the elements in row-major order into `out`, which has exactly their bytes.
/// `offset` is that of the first element, in bytes of the file.
pub(super) fn read(
    source: &Source,
    offset: u64,
    layout: &Layout,
    dtype: DType,
    out: &mut [u8],
) -> Result<(), WeightsError> {
    match layout {
        Layout::Contiguous { elements: 0 } => Ok(()),
        Layout::Contiguous { .. } => source.read_at(out, offset),
        Layout::Strided { dimensions } => read_strided(source, offset, dimensions, dtype.block().1, out),
    }
}

fn read_strided(
    source: &Source,
    offset: u64,
    dimensions: &[(usize, usize)],
    width: usize,
    out: &mut [u8],
) -> Result<(), WeightsError> {
    // Both were checked against the storage's size when the file was opened.
    let extent: usize = 1 + dimensions.iter().map(|(size, stride)| (size - 1) * stride).sum::<usize>();
    let bytes = extent as u64 * width as u64;
    // Elements that lie in a row in the storage.
    let run = match dimensions.last() {
        Some(&(size, 1)) => size,
        _ => 1,
    };
    let outer = if run == 1 { dimensions } else { &dimensions[..dimensions.len() - 1] };
    if bytes <= SMALL_EXTENT || bytes / 4 <= out.len() as u64 {
        let all = source.read_vec(offset, bytes)?;
        return gather(outer, run * width, width, out, |target, at| {
            target.copy_from_slice(&all[at..at + target.len()]);
            Ok(())
        });
    }
    gather(outer, run * width, width, out, |target, at| source.read_at(target, offset + at as u64))
}

/// Walks the outer dimensions in row-major order and fetches a run of `run` bytes at each place.
fn gather(
    dimensions: &[(usize, usize)],
    run: usize,
    width: usize,
    out: &mut [u8],
    mut fetch: impl FnMut(&mut [u8], usize) -> Result<(), WeightsError>,
) -> Result<(), WeightsError> {
    let mut index = vec![0; dimensions.len()];
    let mut at = 0;
    for target in out.chunks_exact_mut(run) {
        fetch(target, at * width)?;
        for (position, (size, stride)) in index.iter_mut().zip(dimensions).rev() {
            *position += 1;
            at += stride;
            if *position < *size {
                break;
            }
            at -= size * stride;
            *position = 0;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plain definition: element (i, j, k) is at i*s0 + j*s1 + k*s2.
    fn oracle(shape: &[usize], strides: &[usize], storage: &[u8]) -> Vec<u8> {
        let count: usize = shape.iter().product();
        (0..count)
            .map(|mut flat| {
                let mut at = 0;
                for (size, stride) in shape.iter().zip(strides).rev() {
                    at += (flat % size) * stride;
                    flat /= size;
                }
                storage[at]
            })
            .collect()
    }

    #[test]
    fn strided_reads_are_the_definition() {
        let storage: Vec<u8> = (0..=255).cycle().take(3 << 20).map(|i| (i as u32 * 7 % 251) as u8).collect();
        let source = Source::from_bytes(storage.clone());
        let cases: [(&[usize], &[usize]); 13] = [
            (&[], &[]),
            (&[3, 4], &[4, 1]),
            (&[4, 3], &[1, 4]),
            (&[2, 3, 4], &[12, 4, 1]),
            (&[2, 3, 4], &[1, 2, 6]),
            (&[2, 3, 4], &[100, 4, 1]),
            (&[3, 1, 5], &[5, 999, 1]),
            (&[7], &[0]),
            (&[2, 7, 3], &[3, 0, 1]),
            (&[5, 4], &[1, 1]),
            (&[0, 3], &[3, 1]),
            // Scattered over 2 MB: fetched one run at a time.
            (&[20, 10], &[100_000, 1]),
            (&[20, 10], &[100_000, 3]),
        ];
        for (shape, strides) in cases {
            let layout = Layout::new(shape, strides);
            let mut out = vec![0; shape.iter().product()];
            assert_eq!(layout.elements(), out.len(), "{shape:?} {strides:?}");
            read(&source, 0, &layout, DType::U8, &mut out).unwrap();
            assert_eq!(out, oracle(shape, strides, &storage), "{shape:?} {strides:?}");
        }
    }

    #[test]
    fn contiguous_dimensions_merge() {
        assert_eq!(Layout::new(&[2, 3, 4], &[12, 4, 1]), Layout::Contiguous { elements: 24 });
        assert_eq!(Layout::new(&[1, 3, 1], &[77, 1, 0]), Layout::Contiguous { elements: 3 });
        assert_eq!(Layout::new(&[], &[]), Layout::Contiguous { elements: 1 });
        assert_eq!(Layout::new(&[2, 3, 4], &[24, 4, 1]), Layout::Strided { dimensions: vec![(2, 24), (12, 1)] });
    }
}
