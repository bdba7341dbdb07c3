//! A loaded model: the towers that were asked for, the tokenizer, the logit scale.

use crate::caption::Captioner;
use crate::config::{Family, ModelConfig, TextConfig, TextLayout, TextPooling, TransformerConfig};
use crate::encoder::{Encoder, EncoderShape, Fill, Pass, Tower};
use crate::import::{Description, describe};
use crate::load::{LoadOptions, Named, Positional, Source, check, load};
use crate::quantized::{Arithmetic, StoredInt8, check_possible};
use crate::rounded::Rounded;
use crate::tower::{ImageTower, TextTower, Until};
use crate::{ModelError, fingerprint};
use openvision_io::token::{self, Clean, OpenVisionVariant, Separator, TextRecipe, Tokenizer};
use openvision_io::weights::DType;
use openvision_kernels::attention::{AttentionShape, Mask};
use openvision_kernels::pool::Pool;
use openvision_kernels::{Isa, vector};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

/// A model in memory. Shared between threads without locks of its own; one pass runs at a time.
pub struct Model {
    /// What the model is, as it was loaded.
    pub config: ModelConfig,
    /// What a user should know about how it was read.
    pub notes: Vec<String>,
    image: Option<(Encoder, blake3::Hash)>,
    text: Option<(Encoder, blake3::Hash)>,
    logit_scale: f32,
    logit_bias: Option<f32>,
    pool: Arc<Pool>,
    isa: Isa,
    rounded: Option<DType>,
    arithmetic: Arithmetic,
    merge_tokens: usize,
    folder: Option<PathBuf>,
    tokenizer: OnceLock<Box<dyn Tokenizer>>,
}

/// Applies the options that change what a model is.
fn adjusted(mut config: ModelConfig, options: &LoadOptions) -> ModelConfig {
    if options.as_published {
        config.preprocess = config.preprocess.as_published();
    }
    if let Some(text) = &mut config.text
        && options.jax_texts
        && text.layout == TextLayout::Openvision
    {
        text.layout = TextLayout::OpenvisionJax;
    }
    if let (Some(gelu), Family::Siglip) = (options.gelu, config.family) {
        config.set_activation(gelu);
    }
    if let Some(size) = options.image_size {
        config = config.with_image_size(size);
    }
    if options.scaled_decode.is_some() {
        config.preprocess.scaled_decode = options.scaled_decode;
    }
    config
}

impl Model {
    /// Loads a file or a folder.
    ///
    /// # Errors
    /// Broken files, unknown layouts, and every tensor that is missing, unexpected or misshapen, all at once.
    pub fn load(path: &Path, options: &LoadOptions, pool: Arc<Pool>) -> Result<Model, ModelError> {
        let Description { checkpoint, config, layout, folder, notes, .. } = describe(path, options.as_published)?;
        let named = Named { tensors: &checkpoint, layout };
        let mut model = Self::from_tensors(config, named, options, pool).map_err(|error| match error {
            ModelError::Tensors { problems, .. } => ModelError::Tensors { place: path.display().to_string(), problems },
            other => other,
        })?;
        model.notes = notes;
        model.folder = Some(folder);
        Ok(model)
    }

    /// Loads from any source of tensors, by a description.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn from_tensors(
        config: ModelConfig,
        named: Named,
        options: &LoadOptions,
        pool: Arc<Pool>,
    ) -> Result<Model, ModelError> {
        let own = config.image;
        let config = adjusted(config, options);
        config.check("the model")?;
        let stored = StoredInt8::new(named.tensors)
            .map_err(|problems| ModelError::Tensors { place: "the model".into(), problems })?;
        let arithmetic = match (options.arithmetic, &stored) {
            (Arithmetic::Stored, Some(_)) => Arithmetic::Int8,
            (Arithmetic::Stored, None) => Arithmetic::Float,
            (asked, _) => asked,
        };
        let named = match &stored {
            Some(stored) => Named { tensors: stored, ..named },
            None => named,
        };
        let rounded = options.rounded.map(|dtype| Rounded { tensors: named.tensors, dtype });
        let named = match &rounded {
            Some(rounded) => Named { tensors: rounded, ..named },
            None => named,
        };
        let isa = match options.isa {
            Some(isa) => isa,
            None => Isa::from_environment()?,
        };
        check_possible(arithmetic, isa)?;
        let image = ImageTower::new(&config.image, config.embed_dim).merging(options.merge_tokens)?;
        let text = config.text.map(|text| TextTower::new(&text, config.embed_dim));
        let plans: Vec<_> = std::iter::once(&image.plan).chain(text.as_ref().map(|text| &text.plan)).collect();
        let problems = check(named, &plans, &["visual.positional_embedding"]);
        if !problems.is_empty() {
            return Err(ModelError::Tensors { place: "the model".into(), problems });
        }
        let from = Source { named, isa, arithmetic };
        let positional = Positional { table: image.positions(), image: &config.image, own: &own };
        let image = options
            .image
            .then(|| {
                let (store, hash) = load(from, &image.plan, Some(positional), &pool)?;
                let shape = image_shape(&config);
                Ok::<_, ModelError>((Encoder::new(Tower::Image(image), store, shape, pool.threads()), hash))
            })
            .transpose()?;
        let text = text
            .zip(config.text)
            .filter(|_| options.text)
            .map(|(tower, text)| {
                let (store, hash) = load(from, &tower.plan, None, &pool)?;
                let shape = text_shape(&text);
                Ok::<_, ModelError>((Encoder::new(Tower::Text(tower), store, shape, pool.threads()), hash))
            })
            .transpose()?;
        let logit_scale = named.scalar("logit_scale")?.unwrap_or((1.0f32 / 0.07).ln()).exp();
        let logit_bias = if config.family == Family::Siglip { named.scalar("logit_bias")? } else { None };
        let (notes, folder, tokenizer) = (Vec::new(), None, OnceLock::new());
        let (rounded, merge_tokens) = (options.rounded, options.merge_tokens);
        Ok(Model {
            config,
            notes,
            image,
            text,
            logit_scale,
            logit_bias,
            pool,
            isa,
            rounded,
            arithmetic,
            merge_tokens,
            folder,
            tokenizer,
        })
    }

    /// The model's folder, if it came from one.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Loads the caption decoder.
    ///
    /// # Errors
    /// There is none, or its file is broken.
    pub fn captioner(&self) -> Result<Captioner, ModelError> {
        match (self.config.decoder, &self.folder) {
            (Some(decoder), Some(folder)) => {
                let (rounded, arithmetic, isa) = (self.rounded, self.arithmetic, Some(self.isa));
                let options = LoadOptions { rounded, arithmetic, isa, ..LoadOptions::default() };
                Captioner::load(folder, decoder, &options, Arc::clone(&self.pool))
            }
            _ => Err(ModelError::NoDecoder),
        }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// What products are computed with: floats or bytes.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// The name of that, as fingerprints and tables have it: `f32`, `int8` or `bf16-dot`.
    pub fn precision(&self) -> &'static str {
        self.arithmetic.name()
    }

    /// The pool that runs this model.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Tokens of pictures that are merged in each block.
    pub fn merge_tokens(&self) -> usize {
        self.merge_tokens
    }

    /// What cosines are multiplied by before a softmax: e^logit_scale.
    pub fn logit_scale(&self) -> f32 {
        self.logit_scale
    }

    /// What is added to scaled cosines before a sigmoid, in models of the sigmoid loss.
    pub fn logit_bias(&self) -> Option<f32> {
        self.logit_bias
    }

    /// The image tower.
    ///
    /// # Errors
    /// It was not loaded.
    pub fn image(&self) -> Result<&Encoder, ModelError> {
        self.image.as_ref().map(|(encoder, _)| encoder).ok_or(ModelError::NoTower("image"))
    }

    /// The text tower.
    ///
    /// # Errors
    /// It was not loaded.
    pub fn text(&self) -> Result<&Encoder, ModelError> {
        self.config.text()?;
        self.text.as_ref().map(|(encoder, _)| encoder).ok_or(ModelError::NoTower("text"))
    }

    /// Fingerprint of this model's image embeddings.
    ///
    /// # Errors
    /// The image tower was not loaded.
    pub fn image_fingerprint(&self) -> Result<String, ModelError> {
        let (_, hash) = self.image.as_ref().ok_or(ModelError::NoTower("image"))?;
        Ok(fingerprint::image(hash, &self.config, self.arithmetic, self.merge_tokens))
    }

    /// Fingerprint of this model's text embeddings.
    ///
    /// # Errors
    /// The text tower was not loaded, or there is no tokenizer.
    pub fn text_fingerprint(&self) -> Result<String, ModelError> {
        let (_, hash) = self.text.as_ref().ok_or(ModelError::NoTower("text"))?;
        Ok(fingerprint::text(hash, &self.config, &self.tokenizer()?.fingerprint(), self.arithmetic))
    }

    /// The tokenizer: the folder's own files where there are any, else the built-in vocabulary.
    ///
    /// # Errors
    /// The folder's files are broken, or none is known for this model.
    pub fn tokenizer(&self) -> Result<&dyn Tokenizer, ModelError> {
        if self.tokenizer.get().is_none() {
            let made = tokenizer(&self.config, self.folder.as_deref())?;
            // Two threads may both have made one; they are equal.
            let _ = self.tokenizer.set(made);
        }
        Ok(self.tokenizer.get().expect("set above").as_ref())
    }

    /// Raw embeddings of rows of token ids, [texts × embed_dim].
    ///
    /// # Errors
    /// A row has the wrong length, an id outside the vocabulary, or lacks the token that pooling looks for.
    pub fn encode_ids(&self, texts: &[Vec<u32>]) -> Result<Vec<f32>, ModelError> {
        let marks = texts.iter().map(|ids| self.mark(ids)).collect::<Result<Vec<usize>, _>>()?;
        let width = self.config.embed_dim;
        // Equal rows (a prompt of several labels, say) are encoded once.
        let mut places: BTreeMap<&[u32], Vec<usize>> = BTreeMap::new();
        texts.iter().enumerate().for_each(|(index, ids)| places.entry(ids).or_default().push(index));
        let mut places: Vec<Vec<usize>> = places.into_values().collect();
        // Texts of about one length together: each pass is as long as its longest.
        places.sort_by_key(|places| marks[places[0]]);
        let out = Mutex::new(vec![0.0; texts.len() * width]);
        let pass = Pass {
            count: places.len(),
            until: Until::Embedding,
            fill: &|index, item| {
                item.ids.copy_from_slice(&texts[places[index][0]]);
                *item.mark = marks[places[index][0]];
                Fill::Ready
            },
            sink: &|index, embedding| {
                let mut out = out.lock().expect("copying does not panic");
                for &place in &places[index] {
                    out[place * width..][..width].copy_from_slice(embedding);
                }
            },
            observe: None,
        };
        self.text()?.run(&self.pool, &pass);
        Ok(out.into_inner().expect("copying does not panic"))
    }

    /// Unit embeddings of texts, [texts × embed_dim], and for each text how many pieces did not fit.
    ///
    /// # Errors
    /// There is no text tower or tokenizer.
    pub fn encode_texts(&self, texts: &[impl AsRef<str>]) -> Result<(Vec<f32>, Vec<usize>), ModelError> {
        let tokenizer = self.tokenizer()?;
        let rows: Vec<_> = texts.iter().map(|text| tokenizer.encode(text.as_ref())).collect();
        let dropped = rows.iter().map(|row| row.dropped).collect();
        let ids: Vec<Vec<u32>> = rows.into_iter().map(|row| row.ids).collect();
        let mut embeddings = self.encode_ids(&ids)?;
        for embedding in embeddings.chunks_exact_mut(self.config.embed_dim) {
            vector::normalize(self.isa, embedding);
        }
        Ok((embeddings, dropped))
    }

    /// Raw embeddings of pixel tensors [pictures, 3, height, width], [pictures × embed_dim].
    ///
    /// # Errors
    /// There is no image tower, or the length is not a whole number of pictures.
    pub fn encode_pixels(&self, pixels: &[f32]) -> Result<Vec<f32>, ModelError> {
        let one = 3 * self.config.image.height * self.config.image.width;
        if !pixels.len().is_multiple_of(one) {
            return Err(ModelError::Input(format!("{} values are no whole pictures of {one}", pixels.len())));
        }
        let width = self.config.embed_dim;
        let out = Mutex::new(vec![0.0; pixels.len() / one * width]);
        let pass = Pass {
            count: pixels.len() / one,
            until: Until::Embedding,
            fill: &|index, item| {
                item.pixels.copy_from_slice(&pixels[index * one..][..one]);
                Fill::Ready
            },
            sink: &|index, embedding| {
                let mut out = out.lock().expect("copying does not panic");
                out[index * width..][..width].copy_from_slice(embedding);
            },
            observe: None,
        };
        self.image()?.run(&self.pool, &pass);
        Ok(out.into_inner().expect("copying does not panic"))
    }

    /// The position that pooling takes in a row of ids.
    ///
    /// # Errors
    /// The row does not fit the model.
    pub fn mark(&self, ids: &[u32]) -> Result<usize, ModelError> {
        let text = self.config.text()?;
        if ids.len() != text.context {
            return Err(ModelError::Input(format!("{} ids; the text tower takes {}", ids.len(), text.context)));
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= text.vocabulary) {
            let problem = format!("token id {id} is outside the vocabulary of {}", text.vocabulary);
            return Err(ModelError::Input(problem));
        }
        Ok(match text.pooling {
            TextPooling::Last => text.context - 1,
            TextPooling::First => 0,
            TextPooling::LargestId => {
                let largest = ids.iter().max().copied().unwrap_or(0);
                ids.iter().position(|&id| id == largest).unwrap_or(0)
            }
            TextPooling::FirstOf(end) => ids.iter().position(|&id| id == end).ok_or_else(|| {
                ModelError::Input(format!("a text without the end token {end}, which the model pools"))
            })?,
        })
    }
}

/// Width of the widest rows that a team gathers to pool them: those of the MLP, or [q | k | v].
fn gathered_width(transformer: &TransformerConfig) -> usize {
    transformer.mlp_width.max(3 * transformer.width)
}

pub(crate) fn image_shape(config: &ModelConfig) -> EncoderShape {
    let (image, transformer) = (&config.image, &config.image.transformer);
    EncoderShape {
        tokens: image.tokens(),
        width: gathered_width(transformer),
        pixels: 3 * image.height * image.width,
        ids: 0,
        attention: AttentionShape {
            tokens: image.tokens(),
            heads: transformer.heads,
            head_dim: transformer.head_width(),
            mask: Mask::None,
        },
    }
}

pub(crate) fn text_shape(text: &TextConfig) -> EncoderShape {
    let transformer = &text.transformer;
    EncoderShape {
        tokens: text.context,
        width: gathered_width(transformer),
        pixels: 0,
        ids: text.context,
        attention: AttentionShape {
            tokens: text.context,
            heads: transformer.heads,
            head_dim: transformer.head_width(),
            mask: text.mask(),
        },
    }
}

/// The tokenizer of a model.
fn tokenizer(config: &ModelConfig, folder: Option<&Path>) -> Result<Box<dyn Tokenizer>, ModelError> {
    let text = config.text()?;
    let layout = match text.layout {
        TextLayout::Openvision => token::TextLayout::OpenVision(OpenVisionVariant::Torch),
        TextLayout::OpenvisionJax => token::TextLayout::OpenVision(OpenVisionVariant::Jax),
        TextLayout::BertClassFirst => token::TextLayout::Bert(Clean::Whitespace, Separator::Strip),
        TextLayout::Clip => token::TextLayout::OpenClip(Clean::Lower),
        TextLayout::ClipHuggingFace => token::TextLayout::HuggingFaceClip,
        TextLayout::Folder => token::TextLayout::Folder(None),
        TextLayout::FolderWhitespace => token::TextLayout::Folder(Some(Clean::Whitespace)),
        TextLayout::FolderLower => token::TextLayout::Folder(Some(Clean::Lower)),
        TextLayout::FolderCanonicalize => token::TextLayout::Folder(Some(Clean::Canonicalize)),
    };
    let recipe = TextRecipe { layout, context_length: text.context };
    let own = folder.map(|folder| token::from_folder(folder, &recipe)).transpose()?.flatten();
    Ok(match own {
        Some(tokenizer) => tokenizer,
        None => token::built_in(&recipe)?,
    })
}
