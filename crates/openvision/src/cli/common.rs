//! Options that every command has, and what they turn into.

use clap::{Args, ValueEnum};
use openvision::inputs::{Input, Options};
use openvision::interrupt::Interrupt;
use openvision::{Error, LoadOptions, Model, pool, resolve};
use openvision_io::image::Limits;
use openvision_io::weights::DType;
use openvision_model::Arithmetic;
use openvision_model::config::{ActivationName, Family};
use std::path::PathBuf;

/// Arithmetic of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
    /// 32-bit floats
    F32,
    /// Weights rounded to bfloat16, arithmetic in 32 bits
    Bf16,
    /// Weights rounded to half precision, arithmetic in 32 bits
    F16,
    /// The blocks' weights and their inputs quantised to bytes; everything else in 32 bits
    Int8,
    /// The blocks' weights and their inputs rounded to bfloat16 and multiplied so, where the processor can (AVX512_BF16)
    Bf16Dot,
}

/// The two forms of GELU that SigLIP's weights are run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Gelu {
    /// x Φ(x) by the error function: timm, open_clip
    Erf,
    /// The tanh approximation: the authors, transformers
    Tanh,
}

/// Where a forward pass runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Device {
    /// This machine's processor
    Cpu,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// The model: a folder, a weights file, a hub id in the local cache, or a name of `models list`
    #[arg(long, short, env = "OPENVISION_MODEL", global = true, value_name = "M")]
    pub(crate) model: Option<String>,
    /// Threads [default: all processors]
    #[arg(long, short = 'j', value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Arithmetic of the forward pass [default: int8 where the model is stored so, else f32]
    #[arg(long, value_enum)]
    pub(crate) precision: Option<Precision>,
    /// Where the forward pass runs
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    pub(crate) device: Device,
    /// Follow the peers to the letter: published text layout, no EXIF orientation, 16-bit gray clipped
    #[arg(long)]
    pub(crate) as_published: bool,
    /// GELU of a SigLIP model [default: as its file's library has it; with --as-published, as its authors trained it]
    #[arg(long, value_enum, value_name = "FORM")]
    pub(crate) gelu: Option<Gelu>,
    /// Use no network (only `models fetch` does)
    #[arg(long)]
    pub(crate) offline: bool,
    /// One JSON object a line on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress and no notes
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// More about what is done
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// Most threads that make sense to ask for; a typing mistake should not start a million.
const MOST_THREADS: usize = 1024;

impl Common {
    pub(crate) fn threads(&self) -> Result<usize, Error> {
        match self.threads {
            Some(threads) if (1..=MOST_THREADS).contains(&threads) => Ok(threads),
            Some(threads) => Err(Error::Usage(format!("--threads {threads} is not between 1 and {MOST_THREADS}"))),
            None => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
        }
    }

    /// Where the model is.
    pub(crate) fn model_path(&self) -> Result<PathBuf, Error> {
        let model = self.model.as_deref().ok_or_else(|| {
            let hint = "no model: name one with --model (a folder, a file or a name of `openvision models list`), \
                        or set OPENVISION_MODEL";
            Error::Usage(hint.into())
        })?;
        resolve::resolve(model)
    }

    pub(crate) fn options(&self, image: bool, text: bool) -> LoadOptions {
        let gelu = self.gelu.map(|gelu| match gelu {
            Gelu::Erf => ActivationName::GeluErf,
            Gelu::Tanh => ActivationName::GeluTanh,
        });
        let (arithmetic, rounded) = match self.precision {
            None => (Arithmetic::Stored, None),
            Some(Precision::F32) => (Arithmetic::Float, None),
            Some(Precision::Bf16) => (Arithmetic::Float, Some(DType::BF16)),
            Some(Precision::F16) => (Arithmetic::Float, Some(DType::F16)),
            Some(Precision::Int8) => (Arithmetic::Int8, None),
            Some(Precision::Bf16Dot) => (Arithmetic::Bf16Dot, None),
        };
        let as_published = self.as_published;
        LoadOptions { image, text, as_published, gelu, rounded, arithmetic, ..LoadOptions::default() }
    }

    /// Loads the model with the towers that are needed.
    pub(crate) fn load(&self, options: &LoadOptions) -> Result<Model, Error> {
        let path = self.model_path()?;
        let started = std::time::Instant::now();
        let model = Model::load(&path, options, pool(self.threads()?))?;
        if self.gelu.is_some() && model.config.family != Family::Siglip {
            return Err(Error::Usage("--gelu chooses among the readings of SigLIP models; this is none".into()));
        }
        if !self.quiet {
            for note in &model.notes {
                self.note(note);
            }
        }
        if self.verbose {
            let seconds = started.elapsed().as_secs_f64();
            eprintln!("loaded {} in {seconds:.2} s, {}", path.display(), model.isa().name());
        }
        Ok(model)
    }

    /// A remark on standard error, with `-v` only: nothing is wrong.
    pub(crate) fn note(&self, text: &str) {
        if self.verbose {
            eprintln!("note: {text}");
        }
    }
}

/// Options of commands that read pictures.
#[derive(Args, Clone, Debug)]
pub(crate) struct Pictures {
    /// Files, folders (recursive), patterns, .tar shards, .parquet tables, or - for a list of paths on standard input
    #[arg(value_name = "INPUT")]
    pub(crate) inputs: Vec<String>,
    /// The list on standard input is separated by NUL, not by lines
    #[arg(short = '0', long)]
    pub(crate) null: bool,
    /// Column of .parquet inputs that holds the pictures [default: image, jpg, ..., or the only one of bytes]
    #[arg(long, value_name = "NAME")]
    pub(crate) column: Option<String>,
    /// Refuse pictures of more pixels
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_pixels)]
    pub(crate) max_pixels: u64,
    /// Encode at this height and width (N or HxW) instead of the model's own
    #[arg(long, value_name = "SIZE", value_parser = image_size)]
    pub(crate) image_size: Option<(usize, usize)>,
    /// Decode large JPEG pictures at 1/2, 1/4 or 1/8 where both sides stay TIMES what they are resized to (2 where nothing
    /// is said): faster, other pixels by a little
    #[arg(long, value_name = "TIMES", num_args = 0..=1, require_equals = true, default_missing_value = "2",
          value_parser = clap::value_parser!(u8).range(1..=8))]
    pub(crate) scaled_decode: Option<u8>,
    /// Merge the R most similar tokens of a picture in each block: faster, other embeddings
    #[arg(long, value_name = "R", default_value_t = 0, hide_default_value = true)]
    pub(crate) merge_tokens: usize,
}

impl Pictures {
    pub(crate) fn limits(&self) -> Limits {
        Limits { max_pixels: self.max_pixels, ..Limits::default() }
    }

    /// Adds what these options change of a model.
    pub(crate) fn apply(&self, options: &mut LoadOptions) {
        options.image_size = self.image_size;
        options.scaled_decode = self.scaled_decode;
        options.merge_tokens = self.merge_tokens;
    }

    pub(crate) fn files(&self) -> Result<Vec<Input>, Error> {
        self.expand(&self.inputs)
    }

    /// The pictures of these arguments, which may be some of the command's.
    pub(crate) fn expand(&self, arguments: &[String]) -> Result<Vec<Input>, Error> {
        let options = Options { nul_separated: self.null, column: self.column.clone() };
        openvision::inputs::expand(arguments, &options)
    }
}

pub(crate) fn image_size(text: &str) -> Result<(usize, usize), String> {
    let side = |part: &str| part.parse::<usize>().map_err(|_| format!("'{text}' is not a size such as 224 or 160x240"));
    match text.split_once('x') {
        Some((height, width)) => Ok((side(height)?, side(width)?)),
        None => side(text).map(|side| (side, side)),
    }
}

/// Ctrl-C as a flag.
pub(crate) fn interrupt() -> Interrupt {
    Interrupt::listen()
}
