//! Which files of a repository this program needs, and which names are acceptable at all.

use super::HubError;
use openvision_io::token;
use openvision_io::weights::{NOT_WEIGHTS, PREFERRED};

/// Configurations and the caption decoder: what a model folder may hold beside its weights and its tokenizer.
const COMPANIONS: [&str; 5] =
    ["config.json", "open_clip_config.json", "preprocessor_config.json", "text_decoder_config.json", DECODER];
const DECODER: &str = "caption_decoder.safetensors";

/// Otherwise the first file with the first of these endings.
const ENDINGS: [&str; 6] = [".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".npz"];
/// The files to download, weights last; `None` if nothing is a weights file. Folders (Orbax, ONNX, other tools' formats)
/// are left aside.
pub(super) fn choose(names: &[String]) -> Option<Vec<&str>> {
    let top: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.contains('/')).collect();
    // The names that are looked for in a folder; of two formats the one without code.
    let (first, rest): (Vec<&str>, Vec<&str>) = PREFERRED.iter().partition(|name| name.contains(".safetensors"));
    let weights = first.into_iter().chain(rest).find(|name| top.contains(name)).or_else(|| {
        let mut others: Vec<&str> = top.clone();
        others.retain(|name| *name != DECODER && !NOT_WEIGHTS.iter().any(|prefix| name.starts_with(prefix)));
        others.sort_unstable();
        ENDINGS.iter().find_map(|ending| others.iter().copied().find(|name| name.ends_with(ending)))
    })?;
    let companions = COMPANIONS.into_iter().chain(token::FILES);
    let mut chosen: Vec<&str> = companions.filter(|name| top.contains(name)).collect();
    chosen.push(top.iter().copied().find(|name| *name == weights)?);
    if let Some(whole) = weights.strip_suffix(".index.json") {
        let (stem, ending) = whole.rsplit_once('.')?;
        let is_shard = |name: &&str| {
            let middle = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(ending));
            middle.is_some_and(|middle| middle.starts_with('-') && middle.contains("-of-"))
        };
        let before = chosen.len();
        chosen.extend(top.iter().copied().filter(is_shard));
        if chosen.len() == before {
            return None;
        }
    }
    Some(chosen)
}

/// `ORGANISATION/NAME`, by the hub's own rules (`validate_repo_id`).
pub(super) fn check_id(id: &str) -> Result<(), HubError> {
    let problem = |problem: &str| HubError::NotAnId { given: shown(id), problem: problem.into() };
    let Some((organisation, name)) = id.split_once('/') else { return Err(problem("it has no '/'")) };
    if id.len() > 128 || name.len() > 96 || organisation.len() > 96 {
        return Err(problem("it is too long"));
    }
    for part in [organisation, name] {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if part.is_empty() || !part.chars().all(allowed) {
            return Err(problem("each part is letters, digits, '-', '_' and '.'"));
        }
        if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) || part.contains("--") || part.contains("..") {
            return Err(problem("no part starts or ends with '-' or '.', or has '--' or '..'"));
        }
    }
    Ok(())
}

/// A branch, a tag, a commit or a reference such as `refs/pr/3`: also a path below `refs/` in the cache.
pub(super) fn check_revision(revision: &str) -> Result<(), HubError> {
    if revision.len() <= 250 && is_plain_path(revision) {
        Ok(())
    } else {
        Err(HubError::NotARevision { given: shown(revision) })
    }
}

/// Refuses names that lead out of the snapshot's folder, or that no file can have.
pub(super) fn check_name(hub_id: &str, name: &str) -> Result<(), HubError> {
    if name.len() <= 1024 && is_plain_path(name) {
        Ok(())
    } else {
        Err(HubError::HostileName { hub_id: hub_id.into(), name: shown(name) })
    }
}

fn is_plain_path(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= 255;
    path.split('/').all(plain) && !path.chars().any(|c| c.is_control() || matches!(c, '\\' | ':'))
}

/// Foreign text for a message: short, without control characters.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str]) -> Option<String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        choose(&names).map(|chosen| chosen.join(" "))
    }

    #[test]
    fn one_format_is_chosen_with_what_belongs_to_it() {
        for (names, want) in [
            // UCSC-VLAA's OpenVision.
            (
                &[
                    ".gitattributes",
                    "README.md",
                    "jax_orbax_weight/checkpoint.npz/manifest.ocdbt",
                    "open_clip_config.json",
                    "open_clip_model.safetensors",
                    "open_clip_pytorch_model.bin",
                    "tokenizer.json",
                ][..],
                Some("open_clip_config.json tokenizer.json open_clip_model.safetensors"),
            ),
            // openai/clip-vit-base-patch32.
            (
                &["config.json", "flax_model.msgpack", "merges.txt", "pytorch_model.bin", "tf_model.h5", "vocab.json"],
                Some("config.json vocab.json merges.txt pytorch_model.bin"),
            ),
            // Safetensors win over torch files of a layout that open_clip would prefer.
            (
                &["open_clip_pytorch_model.bin", "model.safetensors", "config.json"],
                Some("config.json model.safetensors"),
            ),
            // OpenVision 2 with its decoder.
            (
                &["caption_decoder.safetensors", "pytorch_model.bin", "text_decoder_config.json"],
                Some("text_decoder_config.json caption_decoder.safetensors pytorch_model.bin"),
            ),
            (&["caption_decoder.safetensors"], None),
            // Shards of the chosen index only.
            (
                &[
                    "model-00001-of-00002.safetensors",
                    "model-00002-of-00002.safetensors",
                    "model.safetensors.index.json",
                    "pytorch_model-00001-of-00001.bin",
                    "pytorch_model.bin.index.json",
                ],
                Some("model.safetensors.index.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors"),
            ),
            (&["model.safetensors.index.json"], None),
            (&["optimizer.bin", "x.pt", "b.bin"], Some("b.bin")),
            (&["README.md", "onnx/model.safetensors"], None),
            (&[], None),
        ] {
            assert_eq!(chosen(names).as_deref(), want, "{names:?}");
        }
    }

    #[test]
    fn ids_revisions_and_names_stay_in_their_folder() {
        for good in ["UCSC-VLAA/openvision-vit-tiny-patch16-160", "a/b", "google/siglip2_x.y"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a/b..c", "a/b--c", "a/-b", "a/b.", "a/b c", "a/b\0"]
        {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
        assert!(check_id(&format!("a/{}", "b".repeat(97))).is_err());
        for good in ["main", "v1.0", "refs/pr/3", "feature/x"] {
            assert!(check_revision(good).is_ok(), "{good}");
        }
        for bad in ["", "/main", "a//b", "../../x", "a/..", "a\\b", "a\nb", "."] {
            assert!(check_revision(bad).is_err(), "{bad:?}");
        }
        for good in ["a", ".gitattributes", "a/b/c.bin", "..a", "ü x"] {
            assert!(check_name("a/b", good).is_ok(), "{good}");
        }
        for bad in ["", "../../x", "/etc/passwd", "a/../b", "a\0b", "a\\..\\b", "C:x", "a//b", "./a", "a/"] {
            assert!(check_name("a/b", bad).is_err(), "{bad:?}");
        }
        assert!(check_name("a/b", &"x".repeat(256)).is_err());
    }
}
