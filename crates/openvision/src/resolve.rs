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
    let hub_id = hub_id_of(model);
    if let Some(folder) = cached(hub_id) {
        return Ok(folder);
    }
    let get = if cfg!(feature = "fetch") {
        format!("`openvision models fetch {model}` downloads it")
    } else {
        format!("this build cannot download; get {hub_id} by other means and name its folder")
    };
    let is_known = registry::all().iter().any(|entry| entry.hub_id.as_deref() == Some(hub_id));
    let hint = if is_known {
        format!("it is known as {hub_id}, but not on this machine; {get}")
    } else if hub_id.matches('/').count() == 1 && !model.starts_with('.') {
        format!("neither a path nor in the Hugging Face cache; if it is a hub id, {get}{}", near(model))
    } else {
        format!("there is no such file or folder{}", near(model))
    };
    Err(ModelError::Unknown { name: model.to_owned(), hint }.into())
}

/// The hub id that a name of the registry stands for; a hub id stands for itself, whoever's it is.
pub(crate) fn hub_id_of(model: &str) -> &str {
    let own_words = |entry: &registry::Entry| entry.name == model || entry.hub_id.as_deref() == Some(model);
    let entry = registry::find(model).filter(|entry| own_words(entry) || !model.contains('/'));
    entry.and_then(|entry| entry.hub_id.as_deref()).unwrap_or(model)
}

/// Names of the registry that are alike, for a typing mistake.
pub(crate) fn near(model: &str) -> String {
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

/// `HF_HUB_CACHE`, else `hub` in [`hub_home`].
pub(crate) fn cache_folder() -> Option<PathBuf> {
    variable("HF_HUB_CACHE").or_else(|| hub_home().map(|home| home.join("hub")))
}

/// What the hub's client keeps for a user: `HF_HOME`, else `~/.cache/huggingface`.
pub(crate) fn hub_home() -> Option<PathBuf> {
    variable("HF_HOME")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache/huggingface")))
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
