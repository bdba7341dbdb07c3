//! Writing a model in another layout: names, shapes and configuration change, values do not.

use super::decoder;
use super::hugging_face::activation_name;
use super::names::{NameLayout, places};
use super::source::Description;
use crate::ModelError;
use crate::config::{
    ActivationName, Family, ImagePooling, ModelConfig, Positions, StoredPrecision, TextConfig, TextLayout, TextPooling,
    TransformerConfig,
};
use crate::load::{Named, check};
use crate::positions::sin_cos_2d;
use crate::quantized::{Arithmetic, StoredInt8, quantize, scale_name};
use crate::tower::plans;
use openvision_io::atomic::write_atomic;
use openvision_io::preprocess::{Interpolation, Order, Preprocess, ResizeMode};
use openvision_io::weights::{DType, SafeTensorsWriter, TensorInfo, narrow_from_f32};
use openvision_tensor::{LinearSpec, ParamPlan, TensorSpec};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// A layout to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Our folder: `model.safetensors`, `config.json`.
    Ours,
    /// open_clip's: `open_clip_model.safetensors`, `open_clip_config.json`.
    OpenClip,
    /// transformers' CLIPModel or SiglipModel: `model.safetensors`, `config.json`, `preprocessor_config.json`.
    HuggingFace,
}

impl Target {
    fn layout(self, config: &ModelConfig) -> NameLayout {
        match (self, config.family) {
            (Target::HuggingFace, Family::Siglip) => NameLayout::HuggingFaceSiglip,
            (Target::HuggingFace, _) => NameLayout::HuggingFace,
            (Target::OpenClip, Family::Siglip) => NameLayout::OpenClipSiglip,
            (Target::OpenClip, _) if config.text.is_none() => NameLayout::VisionOnly,
            (Target::Ours | Target::OpenClip, _) => NameLayout::OpenClip,
        }
    }

    fn weights_file(self) -> &'static str {
        match self {
            Target::OpenClip => "open_clip_model.safetensors",
            Target::Ours | Target::HuggingFace => "model.safetensors",
        }
    }
}

/// Writes a model into `folder`. Without a `precision`, stored bytes are copied, so that a round trip is bit-exact; with
/// [`DType::I8`] the blocks' matrices are quantised, which our own layout alone can hold. Gives what a user should know
/// about it.
///
/// # Errors
/// The layout cannot express the model, tensors do not fit, or files cannot be written.
pub fn convert(
    from: &Description,
    target: Target,
    precision: Option<DType>,
    folder: &Path,
) -> Result<Vec<String>, ModelError> {
    let mut notes = Vec::new();
    let stored = stored_int8(from)?;
    let int8 = precision == Some(DType::I8) || precision.is_none() && stored.is_some();
    if target != Target::Ours && (int8 || stored.is_some()) {
        let why =
            "int8 weights are of this program's own layout: convert to openvision, with --precision f32 to get floats";
        return Err(unable("another layout", "precision", why.into()));
    }
    let configs = configurations(&from.config, target, &mut notes)?;
    let named = match &stored {
        Some(stored) => Named { tensors: stored, layout: from.layout },
        None => Named { tensors: &from.checkpoint, layout: from.layout },
    };
    let plans = plans(&from.config);
    let problems = check(named, &plans.iter().collect::<Vec<_>>(), &[]);
    if !problems.is_empty() {
        return Err(ModelError::Tensors { place: from.folder.display().to_string(), problems });
    }
    let layout = target.layout(&from.config);
    let mut ours: Vec<TensorSpec> = plans.iter().flat_map(ParamPlan::tensors).collect();
    for scalar in ["logit_scale", "logit_bias"] {
        if named.scalar(scalar)?.is_some() {
            ours.push(TensorSpec { name: scalar.to_owned(), shape: vec![] });
        }
    }
    let mut pieces: BTreeMap<String, Piece> = BTreeMap::new();
    for spec in &ours {
        let stored = from.layout.source(&spec.name);
        let dtype = named.tensors.get(stored.names()[0]).map_or(DType::F32, |tensor| tensor.dtype);
        add_pieces(layout, spec, dtype, &mut pieces);
    }
    let maps = plans.iter().flat_map(|plan| &plan.linears).filter(|spec| int8 && Arithmetic::Int8.quantizes(spec));
    let maps = maps.map(|spec| (spec.weight.as_str(), spec)).collect();
    let rounded_to = precision.filter(|dtype| dtype.is_float());
    std::fs::create_dir_all(folder).map_err(|source| ModelError::Read { path: folder.into(), source })?;
    let weights = Weights { from, named, pieces, maps, rounded_to };
    let writer = weights.write(&folder.join(target.weights_file()))?;
    for (name, config) in &configs {
        write_json(&folder.join(name), config)?;
    }
    if target == Target::Ours {
        let precision = int8.then_some(StoredPrecision::Int8);
        write_config(&ModelConfig { precision, ..from.config.clone() }, folder)?;
    }
    copy_tokenizer(&from.folder, folder)?;
    if let Some(decoder) = &from.config.decoder {
        copy(&from.folder, folder, decoder::WEIGHTS_FILE)?;
        write_json(&folder.join(decoder::CONFIG_FILE), &decoder::to_json(decoder))?;
    }
    writer.finish()?;
    Ok(notes)
}

/// What goes into a weights file.
struct Weights<'a> {
    from: &'a Description,
    named: Named<'a>,
    pieces: BTreeMap<String, Piece>,
    /// Matrices that are written as bytes, by name.
    maps: BTreeMap<&'a str, &'a LinearSpec>,
    rounded_to: Option<DType>,
}

impl Weights<'_> {
    fn dtype(&self, piece: &Piece) -> DType {
        self.rounded_to.filter(|_| piece.dtype.is_float()).unwrap_or(piece.dtype)
    }

    /// Writes the file but for its end.
    fn write(&self, path: &Path) -> Result<SafeTensorsWriter, ModelError> {
        let mut infos = Vec::new();
        for (name, piece) in &self.pieces {
            let (name, shape) = (name.clone(), piece.shape.clone());
            if let Some(spec) = self.maps.get(name.as_str()) {
                infos.push(TensorInfo { name: scale_name(&name), dtype: DType::F32, shape: vec![spec.n] });
                infos.push(TensorInfo { name, dtype: DType::I8, shape });
            } else {
                infos.push(TensorInfo { name, dtype: self.dtype(piece), shape });
            }
        }
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let mut writer = SafeTensorsWriter::create(path, &metadata, &infos)?;
        for (name, piece) in &self.pieces {
            if let Some(spec) = self.maps.get(name.as_str()) {
                let (bytes, scales) = quantize(self.named, spec)?;
                writer.write(name, bytemuck::cast_slice(&bytes))?;
                writer.write(&scale_name(name), &little_endian(&scales))?;
                continue;
            }
            let bytes = match self.named.tensors.stored_scales(name) {
                Some(_) => {
                    let mut values = vec![0.0; piece.shape.iter().product()];
                    self.named.tensors.read_f32(name, &mut values)?;
                    little_endian(&values)
                }
                None => piece.read(self.from)?,
            };
            let dtype = self.dtype(piece);
            writer.write(name, &if dtype == piece.dtype { bytes } else { rounded(piece.dtype, dtype, &bytes) })?;
        }
        Ok(writer)
    }
}

/// The tensors of a folder that stores bytes.
///
/// # Errors
/// Their scales are missing or broken.
pub(crate) fn stored_int8(from: &Description) -> Result<Option<StoredInt8<'_>>, ModelError> {
    let place = || from.folder.display().to_string();
    StoredInt8::new(&from.checkpoint).map_err(|problems| ModelError::Tensors { place: place(), problems })
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Copies the tokenizer's files, which are the same in every layout.
pub(crate) fn copy_tokenizer(from: &Path, to: &Path) -> Result<(), ModelError> {
    let there = |name: &&str| from.join(name).is_file();
    openvision_io::token::FILES.into_iter().filter(there).try_for_each(|name| copy(from, to, name))
}

fn copy(from: &Path, to: &Path, name: &str) -> Result<(), ModelError> {
    let path = from.join(name);
    let mut source = std::fs::File::open(&path).map_err(|source| ModelError::Read { path, source })?;
    write_atomic(&to.join(name), |file| std::io::copy(&mut source, file).map(drop))
        .map_err(|error| ModelError::Weights(error.into()))
}

fn rounded(from: DType, to: DType, bytes: &[u8]) -> Vec<u8> {
    let mut values = vec![0.0; bytes.len() / from.block().1];
    openvision_io::weights::widen_to_f32(from, bytes, &mut values);
    narrow_from_f32(to, &values).unwrap_or_default()
}

/// One tensor of the target and what of ours it is made of.
struct Piece {
    dtype: DType,
    shape: Vec<usize>,
    /// Our tensors, by their place in this one, and how much of each is used.
    made_of: BTreeMap<usize, (TensorSpec, Use)>,
}

/// Which part of a tensor of ours is used, and how.
#[derive(Clone)]
struct Use {
    /// One of so many equal parts of the rows.
    rows: (usize, usize),
    /// The target's axis at each place of ours; empty for our order.
    order: Vec<usize>,
}

/// Adds one of our tensors to the target's.
fn add_pieces(layout: NameLayout, spec: &TensorSpec, dtype: DType, pieces: &mut BTreeMap<String, Piece>) {
    let wanted = layout.source(&spec.name);
    let names = wanted.names();
    let place = wanted.view.part.map_or(0, |[from, _, _]| from);
    for (i, name) in names.iter().enumerate() {
        let (shape, made_of) = (wanted.stored_shape(&spec.shape), BTreeMap::new());
        let piece = pieces.entry((*name).to_owned()).or_insert(Piece { dtype, shape, made_of });
        let how = Use { rows: (i, names.len()), order: wanted.view.order.clone() };
        piece.made_of.insert(place, (spec.clone(), how));
    }
}

/// One of our tensors in our layout: its bytes and those of one element.
fn ours(from: &Description, spec: &TensorSpec) -> Result<(Vec<u8>, usize), ModelError> {
    let named = Named { tensors: &from.checkpoint, layout: from.layout };
    let image = &from.config.image;
    if named.computed(&spec.name) && image.positions == Positions::SinCos2d {
        let table = sin_cos_2d(image.grid(), image.transformer.width);
        return Ok((little_endian(&table), 4));
    }
    let stored = from.layout.source(&spec.name);
    let dtypes: Vec<DType> =
        stored.names().iter().filter_map(|name| from.checkpoint.get(name)).map(|tensor| tensor.dtype).collect();
    if dtypes.windows(2).any(|pair| pair[0] != pair[1]) {
        let place = from.folder.display().to_string();
        return Err(ModelError::config(&place, &spec.name, "its parts are stored in different types"));
    }
    let size = dtypes.first().map_or(1, |dtype| dtype.block().1);
    let shape = stored.shape_of_one(&spec.shape);
    let one = shape.iter().product::<usize>() * size;
    let mut all = Vec::new();
    for name in stored.names() {
        let bytes = from.checkpoint.read_bytes(name)?;
        let start = match stored.view.part {
            Some([from, to, _]) => one / (to - from) * from,
            None => one * stored.block.unwrap_or(0),
        };
        let bytes = &bytes[start..start + one];
        if stored.view.order.is_empty() {
            all.extend_from_slice(bytes);
        } else {
            places(&shape, &stored.view.order).for_each(|at| all.extend_from_slice(&bytes[at * size..][..size]));
        }
    }
    Ok((all, size))
}

impl Piece {
    fn read(&self, from: &Description) -> Result<Vec<u8>, ModelError> {
        let mut all = Vec::new();
        for (spec, Use { rows: (i, of), order }) in self.made_of.values() {
            let (bytes, size) = ours(from, spec)?;
            let bytes = &bytes[bytes.len() / of * i..bytes.len() / of * (i + 1)];
            if order.is_empty() {
                all.extend_from_slice(bytes);
                continue;
            }
            // The other way round: for each element of the target its place in ours.
            let mut back = vec![0; order.len()];
            order.iter().enumerate().for_each(|(ours, theirs)| back[*theirs] = ours);
            places(&self.shape, &back).for_each(|at| all.extend_from_slice(&bytes[at * size..][..size]));
        }
        Ok(all)
    }
}

/// Writes our `config.json`.
///
/// # Errors
/// The file cannot be written.
pub fn write_config(config: &ModelConfig, folder: &Path) -> Result<(), ModelError> {
    write_json(&folder.join("config.json"), config)
}

fn write_json(path: &Path, json: &impl serde::Serialize) -> Result<(), ModelError> {
    let mut text = serde_json::to_string_pretty(json).expect("descriptions are always JSON");
    text.push('\n');
    write_atomic(path, |file| file.write_all(text.as_bytes())).map_err(|error| ModelError::Weights(error.into()))
}

/// The configuration files of a foreign target.
fn configurations(
    config: &ModelConfig,
    target: Target,
    notes: &mut Vec<String>,
) -> Result<Vec<(&'static str, Value)>, ModelError> {
    Ok(match target {
        Target::Ours => vec![],
        Target::OpenClip => vec![("open_clip_config.json", open_clip(config, notes)?)],
        Target::HuggingFace => {
            let (model, preprocessor) = hugging_face(config)?;
            vec![("config.json", model), ("preprocessor_config.json", preprocessor)]
        }
    })
}

fn unable(target: &str, field: &str, why: String) -> ModelError {
    ModelError::config(&format!("conversion to {target}"), field, why)
}

/// The ratio that open_clip's truncated product turns back into the MLP width.
fn mlp_ratio(config: &TransformerConfig) -> f64 {
    let ratio = config.mlp_width as f64 / config.width as f64;
    if super::mlp_width(config.width, ratio) == config.mlp_width { ratio } else { ratio + 1e-9 }
}

fn open_clip(config: &ModelConfig, notes: &mut Vec<String>) -> Result<Value, ModelError> {
    if config.family == Family::Siglip {
        return open_clip_siglip(config, notes);
    }
    let quick = |t: &TransformerConfig| t.activation == ActivationName::QuickGelu;
    let image = &config.image;
    if config.text.is_some_and(|text| quick(&image.transformer) != quick(&text.transformer)) {
        return Err(unable("open_clip", "activation", "QuickGELU in one tower only cannot be expressed".into()));
    }
    let side = if image.height == image.width { json!(image.height) } else { json!([image.height, image.width]) };
    let mut vision = json!({
        "image_size": side,
        "layers": image.transformer.layers,
        "width": image.transformer.width,
        "head_width": image.transformer.head_width(),
        "patch_size": image.patch,
    });
    if !image.pre_norm {
        vision["no_ln_pre"] = json!(true);
    }
    if image.pooling != ImagePooling::Class {
        vision["pool_type"] = json!("avg");
    }
    if image.pooling == ImagePooling::MeanThenNorm {
        vision["final_ln_after_pool"] = json!(true);
    }
    open_clip_tower(&image.transformer, &mut vision);
    let words = match &config.text {
        Some(text) => open_clip_text(text),
        // open_clip's default: it cannot express that there is no text tower.
        None => json!({ "context_length": 77, "vocab_size": 49_408, "width": 512, "heads": 8, "layers": 12 }),
    };
    let mut model = json!({ "embed_dim": config.embed_dim, "vision_cfg": vision, "text_cfg": words });
    if quick(&image.transformer) {
        model["quick_gelu"] = json!(true);
    }
    // OpenVision 2's folders have none: its recipe is not one of open_clip's.
    if config.preprocess.order == Order::Openvision2 {
        return Ok(json!({ "model_cfg": model }));
    }
    Ok(json!({ "model_cfg": model, "preprocess_cfg": open_clip_preprocess(&config.preprocess)? }))
}

/// What a tower's transformer adds where it is not open_clip's default.
fn open_clip_tower(t: &TransformerConfig, tower: &mut Value) {
    if t.mlp_width != 4 * t.width {
        tower["mlp_ratio"] = json!(mlp_ratio(t));
    }
    if t.activation == ActivationName::GeluTanh {
        tower["act_kwargs"] = json!({ "approximate": "tanh" });
    }
    if t.epsilon != 1e-5 {
        tower["norm_kwargs"] = json!({ "eps": shortest(t.epsilon) });
    }
}

/// A float as the shortest decimal that reads back as the same f32.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

fn open_clip_text(text: &TextConfig) -> Value {
    let mut words = json!({
        "context_length": text.context,
        "vocab_size": text.vocabulary,
        "width": text.transformer.width,
        "heads": text.transformer.heads,
        "layers": text.transformer.layers,
    });
    open_clip_tower(&text.transformer, &mut words);
    if !text.causal {
        words["no_causal_mask"] = json!(true);
    }
    match text.pooling {
        TextPooling::LargestId => {}
        TextPooling::Last => words["pool_type"] = json!("last"),
        TextPooling::First => words["pool_type"] = json!("first"),
        // CLIP's end token has the largest id: open_clip's own rule gives the same position.
        TextPooling::FirstOf(id) if id as usize + 1 == text.vocabulary => {}
        TextPooling::FirstOf(id) => {
            words["pool_type"] = json!("eos");
            words["eos_id"] = json!(id);
        }
    }
    match text.layout {
        TextLayout::Openvision | TextLayout::OpenvisionJax => {
            words["hf_tokenizer_name"] = json!("bert-base-uncased");
            words["tokenizer_kwargs"] = json!({ "strip_sep_token": true });
            // Makes open_clip since 2025-05 lay texts out as the model was trained.
            words["tokenizer_mode"] = json!("clips");
        }
        TextLayout::BertClassFirst => {
            words["hf_tokenizer_name"] = json!("bert-base-uncased");
            words["tokenizer_kwargs"] = json!({ "strip_sep_token": true });
        }
        layout => clean(layout, &mut words),
    }
    words
}

/// The cleaning of a folder's tokenizer, as open_clip names it. Its own configurations of SigLIP say `canonicalize`.
fn clean(layout: TextLayout, words: &mut Value) {
    let clean = match layout {
        TextLayout::FolderWhitespace => "whitespace",
        TextLayout::FolderLower => "lower",
        TextLayout::Folder | TextLayout::FolderCanonicalize => "canonicalize",
        _ => return,
    };
    words["tokenizer_kwargs"] = json!({ "clean": clean });
}

fn open_clip_preprocess(preprocess: &Preprocess) -> Result<Value, ModelError> {
    let interpolation = match preprocess.interpolation {
        Interpolation::Bilinear => "bilinear",
        Interpolation::Bicubic => "bicubic",
        other => return Err(unable("open_clip", "interpolation", format!("{other:?} cannot be expressed"))),
    };
    let mode = match preprocess.resize {
        ResizeMode::Squash => "squash",
        ResizeMode::Shortest => "shortest",
        ResizeMode::Longest => "longest",
    };
    Ok(json!({
        "mean": preprocess.mean.map(shortest),
        "std": preprocess.std.map(shortest),
        "interpolation": interpolation,
        "resize_mode": mode,
    }))
}

/// SigLIP in open_clip: the image tower by its name in timm.
fn open_clip_siglip(config: &ModelConfig, notes: &mut Vec<String>) -> Result<Value, ModelError> {
    let (image, text) = (&config.image, config.text()?);
    let tower = super::timm::like(image)
        .ok_or_else(|| unable("open_clip", "image", "timm has no SigLIP tower of this size".into()))?;
    if tower.activation != image.transformer.activation {
        notes.push(format!(
            "open_clip runs the image tower ({}) with the exact GELU, this model has the tanh form: its vectors will \
             differ a little there, as they do between the published folders",
            tower.name
        ));
    }
    let mut words = json!({
        "context_length": text.context, "vocab_size": text.vocabulary, "width": text.transformer.width,
        "heads": text.transformer.heads, "layers": text.transformer.layers, "no_causal_mask": true,
        "proj_bias": true, "pool_type": "last", "norm_kwargs": { "eps": shortest(text.transformer.epsilon) },
        "mlp_ratio": mlp_ratio(&text.transformer),
    });
    if text.transformer.activation == ActivationName::GeluTanh {
        words["act_kwargs"] = json!({ "approximate": "tanh" });
    }
    clean(text.layout, &mut words);
    let vision = json!({
        "image_size": image.height, "timm_model_name": tower.name, "timm_pool": "map", "timm_proj": "none",
    });
    let model = json!({
        "embed_dim": config.embed_dim, "init_logit_bias": -10, "custom_text": true, "vision_cfg": vision, "text_cfg": words,
    });
    Ok(json!({ "model_cfg": model, "preprocess_cfg": open_clip_preprocess(&config.preprocess)? }))
}

fn hugging_face(config: &ModelConfig) -> Result<(Value, Value), ModelError> {
    if config.family == Family::Siglip {
        return hugging_face_siglip(config);
    }
    let (image, text) = (&config.image, config.text()?);
    let refuse = |field: &str, why: &str| Err(unable("Hugging Face's CLIPModel", field, why.to_owned()));
    if !image.pre_norm || image.pooling != ImagePooling::Class {
        return refuse("image", "it has a pre-norm and pools the class token; this tower does not");
    }
    if !text.causal {
        return refuse("text", "its text tower is causal; this one is not");
    }
    if image.height != image.width {
        return refuse("image size", "it takes square pictures only");
    }
    let end = match text.pooling {
        TextPooling::FirstOf(id) => id,
        TextPooling::LargestId => text.vocabulary as u32 - 1,
        _ => return refuse("text.pooling", "it pools the end token"),
    };
    let mut vision = hugging_face_tower(&image.transformer);
    vision["projection_dim"] = json!(config.embed_dim);
    vision["model_type"] = json!("clip_vision_model");
    vision["image_size"] = json!(image.height);
    vision["patch_size"] = json!(image.patch);
    vision["num_channels"] = json!(3);
    let mut words = hugging_face_tower(&text.transformer);
    words["projection_dim"] = json!(config.embed_dim);
    words["model_type"] = json!("clip_text_model");
    words["vocab_size"] = json!(text.vocabulary);
    words["max_position_embeddings"] = json!(text.context);
    words["bos_token_id"] = json!(end.saturating_sub(1));
    words["eos_token_id"] = json!(end);
    words["pad_token_id"] = json!(end);
    let model = json!({
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": 2.6592,
        "vision_config": vision,
        "text_config": words,
    });
    Ok((model, hugging_face_preprocess(&config.preprocess, image.height)?))
}

fn hugging_face_tower(t: &TransformerConfig) -> Value {
    json!({
        "hidden_size": t.width,
        "intermediate_size": t.mlp_width,
        "num_hidden_layers": t.layers,
        "num_attention_heads": t.heads,
        "hidden_act": activation_name(t.activation),
        "layer_norm_eps": shortest(t.epsilon),
    })
}

fn hugging_face_siglip(config: &ModelConfig) -> Result<(Value, Value), ModelError> {
    let (image, text) = (&config.image, config.text()?);
    if image.height != image.width {
        return Err(unable("Hugging Face's SiglipModel", "image size", "it takes square pictures only".into()));
    }
    let mut vision = hugging_face_tower(&image.transformer);
    vision["model_type"] = json!("siglip_vision_model");
    vision["image_size"] = json!(image.height);
    vision["patch_size"] = json!(image.patch);
    vision["num_channels"] = json!(3);
    vision["vision_use_head"] = json!(true);
    let mut words = hugging_face_tower(&text.transformer);
    words["model_type"] = json!("siglip_text_model");
    words["vocab_size"] = json!(text.vocabulary);
    words["max_position_embeddings"] = json!(text.context);
    words["projection_size"] = json!(config.embed_dim);
    let model = json!({
        "architectures": ["SiglipModel"], "model_type": "siglip", "vision_config": vision, "text_config": words,
    });
    let mut preprocessor = hugging_face_preprocess(&config.preprocess, image.height)?;
    preprocessor["image_processor_type"] = json!("SiglipImageProcessor");
    Ok((model, preprocessor))
}

fn hugging_face_preprocess(preprocess: &Preprocess, side: usize) -> Result<Value, ModelError> {
    let resample = match preprocess.interpolation {
        Interpolation::Nearest => 0,
        Interpolation::Lanczos => 1,
        Interpolation::Bilinear => 2,
        Interpolation::Bicubic => 3,
        Interpolation::Box => 4,
        Interpolation::Hamming => 5,
    };
    let crop = match preprocess.resize {
        ResizeMode::Shortest => true,
        ResizeMode::Squash => false,
        ResizeMode::Longest => {
            return Err(unable("Hugging Face's CLIPModel", "resize", "padding cannot be expressed".into()));
        }
    };
    // The two differ by a pixel of crop offset in one of four sizes; a converted folder follows its new owner.
    let size = match crop {
        true => json!({ "shortest_edge": preprocess.shortest_edge.unwrap_or(side) }),
        false => json!({ "height": side, "width": side }),
    };
    Ok(json!({
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": true,
        "size": size,
        "resample": resample,
        "do_center_crop": crop,
        "crop_size": { "height": side, "width": side },
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": preprocess.mean.map(shortest),
        "image_std": preprocess.std.map(shortest),
        "do_convert_rgb": true,
    }))
}
