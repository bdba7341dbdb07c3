//! From a decoded picture to the pixel tensor of a vision encoder, exactly as open_clip or Hugging Face's Pillow
//! processors do it: orientation, resize, crop or pad, RGB, scale, normalize. The recipe is data.

use crate::image::{Mode, Picture, Scale};
use openvision_kernels::Isa;
use openvision_kernels::resize::{self, Filter, Resize};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Mean that OpenAI's CLIP was trained with; the default of open_clip and of Hugging Face's CLIP.
pub const OPENAI_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Standard deviation that goes with [`OPENAI_MEAN`].
pub const OPENAI_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];
/// Mean of ImageNet, used by the OpenVision models.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Largest side of a model's input.
const MAX_SIZE: usize = 16_384;
/// Largest side of a picture to resize: the filter's weights take memory in proportion.
const MAX_SIDE: usize = 1_000_000;

/// How a picture comes to the model's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeMode {
    /// Both sides to the size, aspect ratio ignored.
    Squash,
    /// Shorter side to the size, then the center is cut out.
    Shortest,
    /// Longer side to the size, then the rest is filled.
    Longest,
}

/// Resampling filter; all but `Nearest` are antialiased.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names say it
pub enum Interpolation {
    Nearest,
    Box,
    Bilinear,
    Hamming,
    Bicubic,
    Lanczos,
}

/// Whose order of steps, crop rounding and scaling arithmetic is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Resize in the picture's own mode (palettes by nearest neighbor, alpha premultiplied), crop offset rounded half
    /// to even, RGB after that, division by 255 in f32.
    OpenClip,
    /// RGB first, crop offset rounded down, multiplication by 1/255 in f64.
    Hf,
    /// As `Hf`, but the longer side is rounded half to even: OpenVision 2's caption example.
    Openvision2,
}

/// What becomes of 16-bit gray.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gray16 {
    /// Its high byte: what a person sees.
    Scale,
    /// Everything above 255 is white: what Pillow, hence every peer, does.
    Clip,
}

/// What becomes of transparent pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alpha {
    /// Alpha is dropped, the colors below it show: open_clip, transformers up to version 4.
    Drop,
    /// The picture is laid on white before anything else: transformers since version 5.
    OnWhite,
}

/// A preprocessing recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Height and width of the tensor.
    pub size: (usize, usize),
    /// How the picture comes to that size.
    pub resize: ResizeMode,
    /// With [`ResizeMode::Shortest`]: what the shorter side becomes before the crop; `None` is the size itself.
    #[serde(default)]
    pub shortest_edge: Option<usize>,
    /// Resampling filter.
    pub interpolation: Interpolation,
    /// Subtracted from values in 0..=1, per channel.
    pub mean: [f32; 3],
    /// Divided by, per channel.
    pub std: [f32; 3],
    /// Value of filled borders, in the picture's own mode.
    #[serde(default)]
    pub fill_color: u8,
    /// Whose arithmetic.
    pub order: Order,
    /// What becomes of transparent pixels.
    pub alpha: Alpha,
    /// Apply the EXIF orientation. No peer does.
    pub orient: bool,
    /// What becomes of 16-bit gray.
    pub gray16: Gray16,
    /// JPEG pictures may be decoded at a half, a quarter or an eighth of their size, where both sides stay at least this
    /// many times what they are resized to. Other pixels than those of whole decoding, a little; `None` is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaled_decode: Option<u8>,
}

/// Why a recipe or a call of it is wrong.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum PreprocessError {
    /// A field of a configuration holds something that cannot be used.
    #[error("preprocessing field `{field}`: {problem}")]
    Field {
        /// Name in the file.
        field: &'static str,
        /// What is wrong and what is wanted.
        problem: String,
    },
    /// A side of the picture is too long for resampling.
    #[error("a picture of {width}x{height} pixels: sides beyond {MAX_SIDE} are not resized; crop it first")]
    SideTooLong {
        /// Width of the picture.
        width: usize,
        /// Height of the picture.
        height: usize,
    },
    /// A picture whose buffer does not match its size.
    #[error("a picture of {width}x{height} {mode} needs {expected} bytes, it has {got}")]
    PictureLength {
        /// Width of the picture.
        width: usize,
        /// Height of the picture.
        height: usize,
        /// Pillow's name of the mode.
        mode: &'static str,
        /// Bytes that size and mode need.
        expected: usize,
        /// Bytes there.
        got: usize,
    },
    /// The output slice has another length than 3 * height * width.
    #[error("the output holds {got} values, the recipe gives {expected} (3 x height x width)")]
    OutputLength {
        /// Wanted.
        expected: usize,
        /// Given.
        got: usize,
    },
}

/// An RGB picture of one byte a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb8 {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Row by row, red, green, blue.
    pub data: Vec<u8>,
}

fn field_error(field: &'static str, problem: impl Into<String>) -> PreprocessError {
    PreprocessError::Field { field, problem: problem.into() }
}

mod config;
mod geometry;

impl Preprocess {
    /// OpenVision 2's recipe, by the caption example that its authors published beside the weights: shorter side to
    /// `size`, center crop, ImageNet's mean and deviation.
    pub fn openvision2(size: (usize, usize)) -> Self {
        Self {
            size,
            resize: ResizeMode::Shortest,
            shortest_edge: Some(size.0.min(size.1)),
            interpolation: Interpolation::Bilinear,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            fill_color: 0,
            order: Order::Openvision2,
            alpha: Alpha::Drop,
            orient: true,
            gray16: Gray16::Scale,
            scaled_decode: None,
        }
    }

    /// The recipe with the peers' literal behavior where the default is kinder to people: no EXIF orientation, 16-bit
    /// gray clipped.
    pub fn as_published(self) -> Self {
        Self { orient: false, gray16: Gray16::Clip, ..self }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// Names the first field that cannot be used.
    pub fn check(&self) -> Result<(), PreprocessError> {
        let (height, width) = self.size;
        for side in [height, width].into_iter().chain(self.shortest_edge) {
            if !(1..=MAX_SIZE).contains(&side) {
                return Err(field_error("size", format!("{side} is not in 1..={MAX_SIZE}")));
            }
        }
        if let Some(value) = self.mean.iter().find(|value| !value.is_finite()) {
            return Err(field_error("mean", format!("{value} is not a finite number")));
        }
        if let Some(value) = self.std.iter().find(|value| !(value.is_finite() && **value > 0.0)) {
            return Err(field_error("std", format!("{value} is not a positive finite number")));
        }
        if let Some(times) = self.scaled_decode.filter(|times| !(1..=8).contains(times)) {
            return Err(field_error("scaled_decode", format!("{times} is not in 1..=8")));
        }
        Ok(())
    }

    /// The smallest scale at which a JPEG picture of `width` x `height` may be decoded, whichever way it lies.
    pub fn decode_scale(&self, width: usize, height: usize) -> Scale {
        let Some(times) = self.scaled_decode.map(usize::from) else { return Scale::Whole };
        let fits = |scale: &Scale| {
            let (width, height) = (scale.of(width), scale.of(height));
            [(width, height), (height, width)].into_iter().all(|(width, height)| {
                let plan = geometry::plan(self, width, height);
                width >= times * plan.width && height >= times * plan.height
            })
        };
        [Scale::Eighth, Scale::Quarter, Scale::Half].into_iter().find(fits).unwrap_or(Scale::Whole)
    }

    /// The resized and cropped picture in RGB, `size.1` wide and `size.0` high: the bytes that open_clip gives to
    /// `ToTensor`, equal to Pillow's.
    ///
    /// # Errors
    /// A recipe that does not pass [`Preprocess::check`], or a picture that cannot be resized.
    pub fn to_rgb8(&self, picture: &Picture) -> Result<Rgb8, PreprocessError> {
        self.check()?;
        check_picture(picture)?;
        let mut picture = Cow::Borrowed(picture);
        if self.gray16 == Gray16::Scale && picture.mode == Mode::I16 {
            picture = Cow::Owned(picture.into_owned().to_8_bit_gray());
        }
        if self.orient && picture.orientation != 1 {
            picture = Cow::Owned(picture.into_owned().oriented());
        }
        if self.alpha == Alpha::OnWhite
            && (picture.transparency.is_some() || matches!(picture.mode, Mode::Rgba | Mode::La))
        {
            picture = Cow::Owned(picture.into_owned().on_white());
        }
        // Three equal bands of gray are resampled equally: gray may wait, other modes may not.
        if self.order != Order::OpenClip && !matches!(picture.mode, Mode::Rgb | Mode::L) {
            picture = Cow::Owned(picture.into_owned().to_rgb());
        }
        let plan = geometry::plan(self, picture.width, picture.height);
        let resized = resize_in_own_mode(&picture, &plan);
        let data = geometry::pad(resized, &plan, self.size, self.fill_color).to_rgb().data;
        Ok(Rgb8 { width: self.size.1, height: self.size.0, data })
    }

    /// `Image.resize` of Pillow to the size of the recipe, whatever its resize mode: the picture keeps its mode
    /// (palettes and 1-bit pictures by nearest neighbor, alpha premultiplied while summing).
    ///
    /// # Errors
    /// As [`Preprocess::to_rgb8`].
    pub fn resize_in_own_mode(&self, picture: &Picture) -> Result<Picture, PreprocessError> {
        self.check()?;
        check_picture(picture)?;
        let squash = Self { resize: ResizeMode::Squash, ..self.clone() };
        Ok(resize_in_own_mode(picture, &geometry::plan(&squash, picture.width, picture.height)))
    }

    /// The pixel tensor `[3, height, width]`, normalized: three f32 roundings a value (scale, subtract, divide), in
    /// the peer's arithmetic.
    ///
    /// # Errors
    /// As [`Preprocess::to_rgb8`], and when `out` does not hold `3 * height * width` values.
    pub fn to_tensor(&self, picture: &Picture, out: &mut [f32]) -> Result<(), PreprocessError> {
        let expected = 3 * self.size.0.saturating_mul(self.size.1);
        if out.len() != expected {
            return Err(PreprocessError::OutputLength { expected, got: out.len() });
        }
        let rgb = self.to_rgb8(picture)?;
        self.normalize(&rgb, out);
        Ok(())
    }

    /// Values per byte come from a table: only 256 are possible.
    fn normalize(&self, rgb: &Rgb8, out: &mut [f32]) {
        let plane = rgb.width * rgb.height;
        for (channel, out) in out.chunks_exact_mut(plane).enumerate() {
            let table: [f32; 256] = std::array::from_fn(|byte| {
                let scaled = match self.order {
                    Order::OpenClip => byte as f32 / 255.0,
                    Order::Hf | Order::Openvision2 => (byte as f64 * (1.0 / 255.0)) as f32,
                };
                (scaled - self.mean[channel]) / self.std[channel]
            });
            for (value, pixel) in out.iter_mut().zip(rgb.data.as_chunks::<3>().0) {
                *value = table[usize::from(pixel[channel])];
            }
        }
    }
}

/// A [`Picture`] has public fields: what the kernels rely on is checked here.
fn check_picture(picture: &Picture) -> Result<(), PreprocessError> {
    let (width, height) = (picture.width, picture.height);
    let expected = width.saturating_mul(height).saturating_mul(picture.mode.bytes_per_pixel());
    if expected == 0 || picture.data.len() != expected {
        let mode = picture.mode.pillow_name();
        return Err(PreprocessError::PictureLength { width, height, mode, expected, got: picture.data.len() });
    }
    if width.max(height) > MAX_SIDE {
        return Err(PreprocessError::SideTooLong { width, height });
    }
    Ok(())
}

/// The bytes are the same on every instruction set: a wrong name in the environment is for the engine to report.
fn isa() -> Isa {
    Isa::from_environment().unwrap_or_else(|_| Isa::best())
}

/// `Image.resize` of Pillow, cut to the window of the plan.
fn resize_in_own_mode(picture: &Picture, plan: &geometry::Plan) -> Picture {
    let filter = match plan.interpolation {
        _ if matches!(picture.mode, Mode::P | Mode::One) => None,
        Interpolation::Nearest => None,
        Interpolation::Box => Some(Filter::Box),
        Interpolation::Bilinear => Some(Filter::Bilinear),
        Interpolation::Hamming => Some(Filter::Hamming),
        Interpolation::Bicubic => Some(Filter::Bicubic),
        Interpolation::Lanczos => Some(Filter::Lanczos),
    };
    let unchanged = (picture.width, picture.height) == (plan.width, plan.height);
    let data = match (picture.mode, filter) {
        (_, None) => resize::resize_nearest(&job(&picture.data, picture, plan, picture.mode.bytes_per_pixel())),
        (Mode::La | Mode::Rgba, Some(filter)) if !unchanged => {
            let size = picture.mode.bytes_per_pixel();
            let mut premultiplied = picture.data.clone();
            premultiplied.chunks_exact_mut(size).for_each(premultiply);
            let mut data = resize::resize_u8(isa(), &job(&premultiplied, picture, plan, size), filter);
            data.chunks_exact_mut(size).for_each(unpremultiply);
            data
        }
        (Mode::I16, Some(filter)) => {
            let samples: Vec<u16> = picture.data.as_chunks::<2>().0.iter().map(|v| u16::from_le_bytes(*v)).collect();
            let resized = resize::resize_u16(&job(&samples, picture, plan, 1), filter);
            resized.into_iter().flat_map(u16::to_le_bytes).collect()
        }
        (Mode::F, Some(filter)) => {
            let samples: Vec<f32> = picture.data.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect();
            let resized = resize::resize_f32(&job(&samples, picture, plan, 1), filter);
            resized.into_iter().flat_map(f32::to_le_bytes).collect()
        }
        (mode, Some(filter)) => {
            resize::resize_u8(isa(), &job(&picture.data, picture, plan, mode.bytes_per_pixel()), filter)
        }
    };
    Picture {
        width: plan.window.width,
        height: plan.window.height,
        mode: picture.mode,
        data,
        palette: picture.palette.clone(),
        transparency: picture.transparency.clone(),
        orientation: picture.orientation,
        format: picture.format,
    }
}

fn job<'a, T>(samples: &'a [T], picture: &Picture, plan: &geometry::Plan, channels: usize) -> Resize<'a, T> {
    let (width, new_width, new_height, window) = (picture.width, plan.width, plan.height, plan.window);
    Resize { samples, width, channels, new_width, new_height, window }
}

/// `rgbA2rgba` of Pillow's Convert.c; alpha is the last sample.
fn premultiply(pixel: &mut [u8]) {
    if let [colors @ .., alpha] = pixel {
        for color in colors {
            let product = u32::from(*color) * u32::from(*alpha) + 128;
            *color = (((product >> 8) + product) >> 8) as u8;
        }
    }
}

/// `rgba2rgbA` of Pillow's Convert.c.
fn unpremultiply(pixel: &mut [u8]) {
    if let [colors @ .., alpha] = pixel
        && !matches!(*alpha, 0 | 255)
    {
        for color in colors {
            *color = (255 * u32::from(*color) / u32::from(*alpha)).min(255) as u8;
        }
    }
}
