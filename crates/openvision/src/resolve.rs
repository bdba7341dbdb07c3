//! From what `--model` says to files on this machine. Nothing is fetched here.

use crate::Error;
use openvision_model::{ModelError, registry};
use std::path::{Path, PathBuf};

/// Finds a model: a path, a short name of the registry, or a hub id in the Hugging Face cache.
///
/// # Errors
/// It is not on this machine, or nothing of that name is known.
pub fn resolve(model: &str) -> Result<PathBuf, Error> {
    let path = Path::new(model);
    if path.exists() {
        return Ok(path.to_path_buf());
    }
    let entry = registry::find(model);
    let hub_id = entry.and_then(|entry| entry.hub_id.as_deref()).unwrap_or(model);
    if let Some(folder) = cached(hub_id) {
        return Ok(folder);
    }
    let hint = match entry {
        Some(entry) => {
            format!("it is known as {}, but not on this machine; download {} and name its folder", entry.name, hub_id)
        }
        None if hub_id.matches('/').count() == 1 && !model.starts_with('.') => {
            format!("neither a path nor in the Hugging Face cache{}", near(model))
        }
        None => format!("there is no such file or folder{}", near(model)),
    };
    Err(ModelError::Unknown { name: model.to_owned(), hint }.into())
}

/// Names of the registry that are alike, for a typing mistake.
fn near(model: &str) -> String {
    let wanted = model.to_ascii_lowercase();
    let shared = |name: &str| wanted.split(['/', '-']).filter(|part| part.len() > 1 && name.contains(part)).count();
    let mut ranked: Vec<(usize, &str)> =
        registry::all().iter().map(|entry| (shared(&entry.name), entry.name.as_str())).collect();
    ranked.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let best: Vec<&str> = ranked.iter().filter(|(count, _)| *count > 0).map(|(_, name)| *name).take(3).collect();
    if best.is_empty() {
        "; `openvision models list` shows the known ones".into()
    } else {
        format!("; near: {}", best.join(", "))
    }
}

/// The snapshot of a hub id in the Hugging Face cache, as the hub's own client lays it out.
pub fn cached(hub_id: &str) -> Option<PathBuf> {
    let (organisation, name) = hub_id.split_once('/')?;
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['/', '\\']);
    if !(plain(organisation) && plain(name)) {
        return None;
    }
    let repository = cache_folder()?.join(format!("models--{organisation}--{name}"));
    let revision = std::fs::read_to_string(repository.join("refs/main")).ok()?;
    let snapshot = repository.join("snapshots").join(revision.trim());
    snapshot.is_dir().then_some(snapshot)
}

/// `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
fn cache_folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("HF_HUB_CACHE")
        .or_else(|| variable("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache/huggingface/hub")))
}
