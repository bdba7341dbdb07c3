//! `openvision models list|show|verify|convert|init`; `fetch` has a file of its own.

use super::Ending;
use super::common::Common;
use super::report::say;
use clap::{Args, Subcommand, ValueEnum};
use openvision::resolve::{cached, resolve};
use openvision::verify::verify;
use openvision::{Error, Model, pool};
use openvision_io::weights::{Checkpoint, DType, PREFERRED, TensorInfo};
use openvision_model::config::ModelConfig;
use openvision_model::import::describe;
use openvision_model::import::export::{self, Target};
use openvision_model::{ModelError, init, onnx, registry};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub(crate) enum Models {
    /// The known models with their exact sizes
    List {
        #[command(flatten)]
        common: Common,
        /// Only this family: openvision, openvision2, clip, open_clip, siglip
        #[arg(long, value_name = "F")]
        family: Option<String>,
    },
    /// Download a model from the hub into the local cache
    #[cfg(feature = "fetch")]
    Fetch(super::fetch::Fetch),
    /// What a model is: configuration, tensors, preprocessing, texts, cost, fingerprints
    Show(Named),
    /// Load a model, check every tensor, run a self-test
    Verify(Named),
    /// Write a model in another layout
    Convert(Convert),
    /// Make a model with seeded, untrained weights
    Init(Init),
}

#[derive(Args)]
pub(crate) struct Named {
    #[command(flatten)]
    common: Common,
    /// The model (or --model)
    #[arg(value_name = "M")]
    name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Layout {
    /// Ours: model.safetensors, config.json
    Openvision,
    /// open_clip's folder
    #[value(name = "open_clip")]
    OpenClip,
    /// Hugging Face CLIPModel or SiglipModel
    Hf,
    /// ONNX graphs: image.onnx, text.onnx
    Onnx,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stored {
    /// 32-bit floats
    F32,
    /// IEEE half precision
    F16,
    /// bfloat16
    Bf16,
    /// The blocks' matrices as bytes with a scale an output; only with --to openvision
    Int8,
}

#[derive(Args)]
#[command(after_help = "Example:\n  openvision models convert clip-vit-base-patch32 out --to open_clip")]
pub(crate) struct Convert {
    /// The model: a folder, a file or a name
    #[arg(value_name = "M")]
    name: String,
    /// The folder to write
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// The layout to write
    #[arg(long, value_enum)]
    to: Layout,
    /// Round or quantise the weights; without it stored bytes are copied
    #[arg(long, value_enum)]
    precision: Option<Stored>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "Example:\n  openvision models init openvision/tiny-16-160 models/tiny --seed 1")]
pub(crate) struct Init {
    /// A name of `models list`, or a config.json of this program's format
    #[arg(value_name = "CONFIG")]
    config: String,
    /// The folder to write
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Seed of the weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

impl Models {
    pub(crate) fn run(self) -> Result<Ending, Error> {
        match self {
            Models::List { common, family } => list(&common, family.as_deref()),
            #[cfg(feature = "fetch")]
            Models::Fetch(fetch) => fetch.run(),
            Models::Show(named) => named.show(),
            Models::Verify(named) => named.verify(),
            Models::Convert(convert) => convert.run(),
            Models::Init(init) => init.run(),
        }
    }
}

/// What every listing says of a model.
fn summary(config: &ModelConfig) -> Value {
    let counts = config.parameters();
    json!({
        "name": config.name,
        "family": config.family.name(),
        "image_size": [config.image.height, config.image.width],
        "patch_size": config.image.patch,
        "params": counts,
        "embed_dim": config.embed_dim,
        "flops": config.flops(),
        "licence": config.licence,
    })
}

fn list(common: &Common, family: Option<&str>) -> Result<Ending, Error> {
    let chosen: Vec<_> =
        registry::all().iter().filter(|entry| family.is_none_or(|f| entry.config.family.name() == f)).collect();
    if chosen.is_empty() {
        return Err(Error::Usage(format!(
            "no family '{}': openvision, openvision2, clip, open_clip, siglip",
            family.unwrap_or("")
        )));
    }
    if !common.json {
        say(format_args!(
            "{:28} {:>6} {:>5} {:>6} {:>14} {:>14} {:>7}  cached",
            "name", "pixels", "patch", "width", "image", "total", "GFLOP"
        ))?;
    }
    for entry in chosen {
        let config = &entry.config;
        let folder = entry.hub_id.as_deref().and_then(cached);
        if common.json {
            let mut line = summary(config);
            line["hub_id"] = json!(entry.hub_id);
            line["cached"] = json!(folder.is_some());
            say(line)?;
            continue;
        }
        let counts = config.parameters();
        say(format_args!(
            "{:28} {:>6} {:>5} {:>6} {:>14} {:>14} {:>7.1}  {}",
            entry.name,
            config.image.height,
            config.image.patch,
            config.embed_dim,
            counts.image + counts.position + counts.projection,
            counts.total,
            config.flops().image as f64 / 1e9,
            if folder.is_some() { "yes" } else { "-" },
        ))?;
    }
    Ok(Ending::Done)
}

impl Named {
    fn path(&self) -> Result<PathBuf, Error> {
        match &self.name {
            Some(name) => resolve(name),
            None => self.common.model_path(),
        }
    }

    fn show(&self) -> Result<Ending, Error> {
        let path = match self.path() {
            Ok(path) => path,
            // A known model that is not here still has a description.
            Err(error) => match self.name.as_deref().and_then(registry::find) {
                Some(entry) => return self.print(&summary_with_config(&entry.config)),
                None => return Err(error),
            },
        };
        let description = match describe(&path, self.common.as_published) {
            Ok(description) => description,
            Err(ModelError::Layout { problem, .. }) => return self.show_weights(&path, &problem),
            Err(error) => return Err(error.into()),
        };
        let mut facts = summary_with_config(&description.config);
        facts["path"] = json!(path.display().to_string());
        facts["container"] = json!(description.checkpoint.container().name());
        facts["layout"] = json!(description.layout.describe());
        facts["notes"] = json!(description.notes);
        facts["tensors"] = tensors(&description.checkpoint);
        drop(description);
        let options = self.common.options(true, true);
        let model = Model::load(&path, &options, pool(self.common.threads()?))?;
        facts["logit_scale"] = json!(model.logit_scale());
        facts["logit_bias"] = json!(model.logit_bias());
        // A tokenizer that cannot be read is a fact about the model, not the end of its description.
        facts["tokenizer"] = match model.config.text {
            Some(_) => json!(model.tokenizer().map_or_else(|error| error.to_string(), |t| t.describe())),
            None => Value::Null,
        };
        let text_bytes = model.text().ok().map(|text| text.weight_bytes());
        facts["memory_bytes"] = json!({ "image": model.image()?.weight_bytes(), "text": text_bytes });
        facts["fingerprint"] = json!({ "image": model.image_fingerprint()?, "text": model.text_fingerprint().ok() });
        self.print(&facts)
    }

    /// A file of weights that is no model of this program: what it holds, and why.
    fn show_weights(&self, path: &Path, problem: &str) -> Result<Ending, Error> {
        let checkpoint = Checkpoint::open(path).map_err(ModelError::from)?;
        self.print(&json!({
            "path": path.display().to_string(),
            "container": checkpoint.container().name(),
            "notes": [problem],
            "metadata": checkpoint.metadata(),
            "ignored": checkpoint.ignored(),
            "tensors": tensors(&checkpoint),
        }))
    }

    fn print(&self, facts: &Value) -> Result<Ending, Error> {
        if self.common.json {
            say(facts)?;
            return Ok(Ending::Done);
        }
        for (name, value) in facts.as_object().into_iter().flatten() {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                ("tensors", Value::Array(all)) => {
                    say(format_args!("tensors            {}", all.len()))?;
                    for tensor in all {
                        let name = tensor["name"].as_str().unwrap_or("").escape_debug();
                        say(format_args!("  {name} {} {}", tensor["dtype"], tensor["shape"]))?;
                    }
                }
                ("metadata", Value::Object(all)) if all.is_empty() => {}
                ("metadata", Value::Object(all)) => {
                    say(format_args!("metadata           {}", all.len()))?;
                    for (key, value) in all {
                        say(format_args!("  {} = {}", key.escape_debug(), cut(value.as_str().unwrap_or(""))))?;
                    }
                }
                ("ignored", Value::Array(all)) if all.is_empty() => {}
                ("notes", Value::Array(all)) => {
                    for note in all {
                        say(format_args!("note               {}", note.as_str().unwrap_or("")))?;
                    }
                }
                (_, Value::String(text)) => say(format_args!("{name:18} {text}"))?,
                _ => say(format_args!("{name:18} {value}"))?,
            }
        }
        Ok(Ending::Done)
    }

    fn verify(&self) -> Result<Ending, Error> {
        let report = verify(&self.path()?, &self.common.options(true, true), &pool(self.common.threads()?));
        if self.common.json {
            say(json!(report))?;
        } else {
            report.checked.iter().try_for_each(|line| say(format_args!("ok       {line}")))?;
            report.problems.iter().try_for_each(|line| say(format_args!("problem  {line}")))?;
            say(if report.ok { "the model is fine" } else { "the model is NOT fine" })?;
        }
        Ok(if report.ok { Ending::Done } else { Ending::NotOk })
    }
}

/// A text of a file for a terminal: escaped, and no longer than two lines.
fn cut(text: &str) -> String {
    const LONGEST: usize = 160;
    let mut shown = String::new();
    for character in text.chars().take(LONGEST) {
        match character {
            '"' | '\'' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    let more = text.chars().count().saturating_sub(LONGEST);
    if more > 0 { format!("{shown}... ({more} more characters)") } else { shown }
}

fn summary_with_config(config: &ModelConfig) -> Value {
    let mut facts = summary(config);
    facts["config"] = json!(config);
    facts
}

fn tensors(checkpoint: &Checkpoint) -> Value {
    let one = |t: &TensorInfo| json!({ "name": t.name, "dtype": t.dtype.name(), "shape": t.shape });
    checkpoint.tensors().iter().map(one).collect()
}

impl Convert {
    fn run(self) -> Result<Ending, Error> {
        let path = resolve(&self.name)?;
        let description = describe(&path, false)?;
        let from = if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(Path::new("")) };
        let real = |folder: &Path| folder.join(".").canonicalize().ok();
        if real(from).is_some_and(|from| Some(from) == real(&self.out)) {
            let problem = "the model lies here, and would be overwritten: name another folder";
            return Err(Error::Usage(format!("{}: {problem}", self.out.display())));
        }
        must_be_free(&self.out)?;
        let precision = self.precision.map(|stored| match stored {
            Stored::F32 => DType::F32,
            Stored::F16 => DType::F16,
            Stored::Bf16 => DType::BF16,
            Stored::Int8 => DType::I8,
        });
        let target = match self.to {
            Layout::Openvision => Some(Target::Ours),
            Layout::OpenClip => Some(Target::OpenClip),
            Layout::Hf => Some(Target::HuggingFace),
            Layout::Onnx => None,
        };
        match target {
            Some(target) => {
                for note in export::convert(&description, target, precision, &self.out)? {
                    eprintln!("note: {note}");
                }
            }
            None => onnx::export(&description, precision, &self.out)?,
        }
        done(self.json, &self.out)
    }
}

impl Init {
    fn run(self) -> Result<Ending, Error> {
        let config = match registry::find(&self.config) {
            Some(entry) => entry.config.clone(),
            None => read_config(Path::new(&self.config))?,
        };
        must_be_free(&self.out)?;
        init::write(&config, self.seed, &self.out)?;
        done(self.json, &self.out)
    }
}

/// Refuses a folder with files of a model: what is new and what is old would be read as one.
fn must_be_free(folder: &Path) -> Result<(), Error> {
    const OTHERS: [&str; 5] =
        ["config.json", "open_clip_config.json", "caption_decoder.safetensors", "image.onnx", "text.onnx"];
    match OTHERS.iter().chain(&PREFERRED).find(|name| folder.join(name).exists()) {
        Some(name) => {
            let problem = format!("{}: holds a model already ({name}): name another folder", folder.display());
            Err(Error::Usage(problem))
        }
        None => Ok(()),
    }
}

fn read_config(path: &Path) -> Result<ModelConfig, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })?;
    let config: ModelConfig = serde_json::from_str(&text)
        .map_err(|source| openvision_model::ModelError::Json { path: path.into(), source })?;
    config.check(&path.display().to_string())?;
    Ok(config)
}

fn done(as_json: bool, folder: &Path) -> Result<Ending, Error> {
    if as_json {
        say(json!({ "written": folder.display().to_string() }))?;
    } else {
        eprintln!("written: {}", folder.display());
    }
    Ok(Ending::Done)
}
