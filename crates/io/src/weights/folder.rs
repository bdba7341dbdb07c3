//! Which file of a model folder holds the weights: open_clip's order of preference (3.3, factory.py), each name followed
//! by the index of its shards.

use std::path::{Path, PathBuf};

use super::error::{Foreign, WeightsError};

/// Names of weights in a folder, in order of preference. Our own folders have `model.safetensors`.
pub const PREFERRED: [&str; 13] = [
    "open_clip_model.safetensors",
    "open_clip_model.safetensors.index.json",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.bin.index.json",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "pytorch_model.pth",
    "model.pth",
    "model.pt",
];
/// Otherwise the first file by name with the first of these endings that occurs.
const ENDINGS: [&str; 8] = [".safetensors", ".index.json", ".bin", ".pth", ".pt", ".ckpt", ".npz", ".gguf"];
/// What names of files begin with that lie beside weights in training folders and are none.
pub const NOT_WEIGHTS: [&str; 5] = ["optimizer", "scheduler", "training_args", "rng_state", "scaler"];

/// The file to open in `folder`.
pub(super) fn find(folder: &Path) -> Result<PathBuf, WeightsError> {
    for name in PREFERRED {
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    let io = |source| WeightsError::Open { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        // A name that is not UTF-8 cannot have one of our endings.
        if let Some(name) = entry.file_name().to_str().filter(|_| entry.path().is_file()) {
            names.push(name.to_owned());
        }
    }
    names.retain(|name| !NOT_WEIGHTS.iter().any(|prefix| name.starts_with(prefix)));
    names.sort();
    let index = names.iter().find(|name| name.ends_with(".index.json"));
    for ending in ENDINGS {
        let Some(name) = names.iter().find(|name| name.ends_with(ending)) else { continue };
        return match (is_shard(name), index) {
            (false, _) => Ok(folder.join(name)),
            (true, Some(index)) => Ok(folder.join(index)),
            (true, None) => {
                let shard = Foreign::from(name.as_str());
                Err(WeightsError::ShardsWithoutIndex { path: folder.to_owned(), shard })
            }
        };
    }
    if let Some(path) = orbax(folder) {
        return Err(WeightsError::Orbax { path });
    }
    Err(WeightsError::EmptyFolder { path: folder.to_owned() })
}

/// The Orbax checkpoint that `folder` is or holds: `jax_orbax_weight/checkpoint.npz/STEP/default/manifest.ocdbt` in
/// OpenVision's repositories.
fn orbax(folder: &Path) -> Option<PathBuf> {
    const MARKS: [&str; 3] = ["manifest.ocdbt", "_CHECKPOINT_METADATA", "_METADATA"];
    let is_one = |folder: &Path| MARKS.iter().any(|mark| folder.join(mark).is_file());
    let mut level = vec![folder.to_owned()];
    for _ in 0..4 {
        if let Some(found) = level.iter().find(|folder| is_one(folder)) {
            return Some(found.clone());
        }
        let below = level.iter().filter_map(|folder| std::fs::read_dir(folder).ok());
        let folders = below.flat_map(|entries| entries.flatten().map(|entry| entry.path()));
        // A training folder has a few steps; a folder of other things is not searched to its end.
        level = folders.filter(|path| path.is_dir()).take(64).collect();
    }
    None
}

/// `NAME-00001-of-00005.ENDING`: a part, never the whole model.
fn is_shard(name: &str) -> bool {
    let digits = |text: &str| text.len() >= 5 && text.bytes().all(|b| b.is_ascii_digit());
    let Some((before, after)) = name.split_once("-of-") else { return false };
    let (Some((_, number)), Some((count, _))) = (before.rsplit_once('-'), after.split_once('.')) else {
        return false;
    };
    digits(number) && digits(count)
}

#[cfg(test)]
mod tests {
    use super::is_shard;

    #[test]
    fn shards_are_told_by_their_name() {
        assert!(is_shard("model-00001-of-00005.safetensors"));
        assert!(is_shard("pytorch_model-00001-of-00002.bin"));
        for name in ["model.safetensors", "state-of-art.bin", "model-1-of-2.bin", "a-00001-of-x.bin"] {
            assert!(!is_shard(name), "{name}");
        }
    }
}
