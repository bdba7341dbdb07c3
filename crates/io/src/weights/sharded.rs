//! A checkpoint in several files with a JSON index (`*.index.json`): `{"weight_map": {tensor: file}}`. The shards may be
//! safetensors or torch files. A shard is always a plain file name in the index's own folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::error::{Foreign, IndexError, WeightsError};
use super::safetensors::{UniqueMap, printable};
use super::source::Source;
use super::{Content, MAX_HEADER, MAX_SHARDS, MAX_TENSORS, Part};

#[derive(Deserialize)]
struct Index {
    weight_map: UniqueMap,
}

/// Opens every shard that the index names and checks that each holds what the index says.
pub(super) fn read(source: &Source) -> Result<Vec<Part>, WeightsError> {
    let wrap = |error| WeightsError::Index { path: source.path().to_owned(), source: error };
    if source.len() > MAX_HEADER as u64 {
        return Err(wrap(IndexError::TooLarge { len: source.len() }));
    }
    let text = source.read_vec(0, source.len())?;
    let index: Index =
        serde_json::from_slice(&text).map_err(|error| wrap(IndexError::Json { message: printable(&error) }))?;
    let UniqueMap(weight_map) = index.weight_map;
    let mut by_shard: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, shard) in &weight_map {
        by_shard.entry(shard).or_default().push(tensor);
    }
    if by_shard.len() > MAX_SHARDS {
        return Err(wrap(IndexError::TooManyShards { count: by_shard.len() }));
    }
    // All names are checked before the first file is opened.
    for shard in by_shard.keys() {
        if !is_plain_file_name(shard) {
            return Err(wrap(IndexError::BadShardName { shard: Foreign::from(*shard) }));
        }
    }
    let folder = source.path().parent().unwrap_or_else(|| Path::new(""));
    let mut held_in_all = 0;
    let mut parts = Vec::with_capacity(by_shard.len());
    for (shard, tensors) in &by_shard {
        let part = open_shard(&folder.join(shard), shard, wrap)?;
        let held: std::collections::BTreeSet<&str> = part.tensors.iter().map(|(info, _)| info.name.as_str()).collect();
        if let Some(tensor) = tensors.iter().find(|tensor| !held.contains(*tensor)) {
            let (tensor, shard) = (Foreign::from(*tensor), Foreign::from(*shard));
            return Err(wrap(IndexError::MissingTensor { tensor, shard }));
        }
        held_in_all += part.tensors.len();
        if held_in_all > MAX_TENSORS {
            return Err(wrap(IndexError::TooManyTensors));
        }
        parts.push(part);
    }
    check_unique(&parts, &by_shard.keys().copied().collect::<Vec<_>>()).map_err(wrap)?;
    Ok(parts)
}

fn open_shard(path: &Path, shard: &str, wrap: impl Fn(IndexError) -> WeightsError) -> Result<Part, WeightsError> {
    if !path.exists() {
        return Err(wrap(IndexError::MissingShard { shard: Foreign::from(shard) }));
    }
    let source = Source::open(path)?;
    match Content::recognize(&source)? {
        Content::Index => Err(wrap(IndexError::NestedIndex { shard: Foreign::from(shard) })),
        content => Part::read(source, content),
    }
}

/// One component, no separator of any system, no drive, not a step upwards.
fn is_plain_file_name(name: &str) -> bool {
    let bad = |c: char| c == '/' || c == '\\' || c == ':' || c.is_control();
    !name.is_empty() && name != "." && name != ".." && !name.contains(bad)
}

fn check_unique(parts: &[Part], shards: &[&str]) -> Result<(), IndexError> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (part, shard) in parts.iter().zip(shards) {
        for (info, _) in &part.tensors {
            if let Some(first) = seen.insert(&info.name, shard).filter(|first| first != shard) {
                let (first, second) = (Foreign::from(first), Foreign::from(*shard));
                return Err(IndexError::TensorInTwoShards { tensor: Foreign::from(info.name.as_str()), first, second });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_plain_file_name;

    #[test]
    fn shard_names_stay_in_the_folder() {
        for good in ["model-00001-of-00002.safetensors", "a", "..a", "a b"] {
            assert!(is_plain_file_name(good), "{good:?}");
        }
        for bad in ["", ".", "..", "../a", "a/b", "/etc/passwd", "..\\x", "c:x", "a\0b", "a\nb"] {
            assert!(!is_plain_file_name(bad), "{bad:?}");
        }
    }
}
