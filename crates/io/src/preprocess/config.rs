//! Reads the recipes that open_clip and Hugging Face store beside their models.

use super::{
    Alpha, Gray16, Interpolation, OPENAI_MEAN, OPENAI_STD, Order, Preprocess, PreprocessError, ResizeMode, field_error,
};
use serde_json::{Map, Value};

impl Preprocess {
    /// The evaluation transform that open_clip builds from `preprocess_cfg` of an `open_clip_config.json` (an object,
    /// or null for the defaults) for a model with inputs of `image_size` (height, width). As in open_clip, unknown
    /// keys and nulls are ignored and the model's size wins over the configuration's.
    ///
    /// Orientation is applied and 16-bit gray is scaled; [`Preprocess::as_published`] takes both back.
    ///
    /// # Errors
    /// Names the field that cannot be used.
    pub fn from_open_clip(preprocess_cfg: &Value, image_size: (usize, usize)) -> Result<Self, PreprocessError> {
        let empty = Map::new();
        let config = match preprocess_cfg {
            Value::Null => &empty,
            Value::Object(config) => config,
            _ => return Err(field_error("preprocess_cfg", "not an object")),
        };
        if let Some(mode) = present(config, "mode")
            && mode != "RGB"
        {
            return Err(field_error("mode", format!("{mode}: only \"RGB\" is supported")));
        }
        let recipe = Preprocess {
            size: image_size,
            resize: match text(config, "resize_mode")?.unwrap_or("shortest") {
                "shortest" => ResizeMode::Shortest,
                "longest" => ResizeMode::Longest,
                "squash" => ResizeMode::Squash,
                other => return Err(field_error("resize_mode", format!("{other:?}: use shortest, longest or squash"))),
            },
            shortest_edge: None,
            interpolation: match text(config, "interpolation")?.unwrap_or("bicubic") {
                "bicubic" | "random" => Interpolation::Bicubic, // random is for training; evaluation takes bicubic
                "bilinear" => Interpolation::Bilinear,
                other => return Err(field_error("interpolation", format!("{other:?}: use bicubic or bilinear"))),
            },
            mean: triple(config, "mean")?.unwrap_or(OPENAI_MEAN),
            std: triple(config, "std")?.unwrap_or(OPENAI_STD),
            fill_color: match present(config, "fill_color") {
                None => 0,
                Some(value) => value
                    .as_u64()
                    .and_then(|value| u8::try_from(value).ok())
                    .ok_or_else(|| field_error("fill_color", format!("{value} is not a whole number in 0..=255")))?,
            },
            order: Order::OpenClip,
            alpha: Alpha::Drop,
            orient: true,
            gray16: Gray16::Scale,
            scaled_decode: None,
        };
        recipe.check()?;
        Ok(recipe)
    }

    /// The transform of a `preprocessor_config.json` of a CLIP or SigLIP model, in the old form (`size: 224`) and the
    /// new one (`size: {"shortest_edge": 224}`), computed as the Pillow processors do.
    ///
    /// Orientation is applied and 16-bit gray is scaled; [`Preprocess::as_published`] takes both back.
    ///
    /// # Errors
    /// Names the field that cannot be used.
    pub fn from_hugging_face(preprocessor_config: &Value) -> Result<Self, PreprocessError> {
        let Value::Object(config) = preprocessor_config else {
            return Err(field_error("preprocessor_config", "not an object"));
        };
        let is_siglip = processor_name(config)?.starts_with("Siglip");
        let center_crop = flag(config, "do_center_crop")?.unwrap_or(!is_siglip);
        for (field, why) in [("do_resize", "pictures have different sizes"), ("do_rescale", "models want 0..=1")] {
            if flag(config, field)? == Some(false) {
                return Err(field_error(field, format!("false is not supported: {why}")));
            }
        }
        if let Some(factor) = present(config, "rescale_factor")
            && factor.as_f64().is_none_or(|factor| (factor * 255.0 - 1.0).abs() > 1e-9)
        {
            return Err(field_error("rescale_factor", format!("{factor}: only 1/255 is supported")));
        }
        let default_edge = 224;
        let wanted = side(config, "size")?.unwrap_or(if is_siglip {
            Side::Both(default_edge, default_edge)
        } else {
            Side::Shortest(default_edge)
        });
        let crop = match side(config, "crop_size")? {
            Some(Side::Both(height, width)) => (height, width),
            Some(Side::Shortest(edge)) => (edge, edge),
            None => (default_edge, default_edge),
        };
        let (size, resize, shortest_edge) = match (wanted, center_crop) {
            (Side::Both(height, width), false) => ((height, width), ResizeMode::Squash, None),
            (Side::Both(height, width), true) if (height, width) == crop => (crop, ResizeMode::Squash, None),
            (Side::Shortest(edge), true) => (crop, ResizeMode::Shortest, Some(edge)),
            (Side::Shortest(edge), false) if is_siglip => ((edge, edge), ResizeMode::Squash, None), // old form: size: 224
            (Side::Shortest(_), false) => {
                return Err(field_error("do_center_crop", "false with a shortest edge gives pictures of any size"));
            }
            (Side::Both(..), true) => {
                return Err(field_error("crop_size", "a crop after a resize to both sides is not supported"));
            }
        };
        let normalize = flag(config, "do_normalize")?.unwrap_or(true);
        let (mean, std) = if is_siglip { ([0.5; 3], [0.5; 3]) } else { (OPENAI_MEAN, OPENAI_STD) };
        let recipe = Preprocess {
            size,
            resize,
            shortest_edge,
            interpolation: resample(config)?,
            mean: if normalize { triple(config, "image_mean")?.unwrap_or(mean) } else { [0.0; 3] },
            std: if normalize { triple(config, "image_std")?.unwrap_or(std) } else { [1.0; 3] },
            fill_color: 0,
            order: Order::Hf,
            alpha: Alpha::OnWhite,
            orient: true,
            gray16: Gray16::Scale,
            scaled_decode: None,
        };
        recipe.check()?;
        Ok(recipe)
    }
}

/// A `size` entry: one number or `shortest_edge`, or `height` and `width`.
enum Side {
    Shortest(usize),
    Both(usize, usize),
}

/// Name of the processor class, "CLIP..." or "Siglip..."; files of old versions may lack it and are CLIP's.
fn processor_name(config: &Map<String, Value>) -> Result<&str, PreprocessError> {
    let name = match text(config, "image_processor_type")? {
        Some(name) => name,
        None => text(config, "feature_extractor_type")?.unwrap_or("CLIPImageProcessor"),
    };
    if name.starts_with("CLIP") || (name.starts_with("Siglip") && !name.starts_with("Siglip2")) {
        return Ok(name);
    }
    Err(field_error("image_processor_type", format!("{name:?}: only CLIP's and SigLIP's are supported")))
}

fn present<'a>(config: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    config.get(field).filter(|value| !value.is_null())
}

fn text<'a>(config: &'a Map<String, Value>, field: &'static str) -> Result<Option<&'a str>, PreprocessError> {
    let as_text =
        |value: &'a Value| value.as_str().ok_or_else(|| field_error(field, format!("{value} is not a string")));
    present(config, field).map(as_text).transpose()
}

fn flag(config: &Map<String, Value>, field: &'static str) -> Result<Option<bool>, PreprocessError> {
    let as_flag =
        |value: &Value| value.as_bool().ok_or_else(|| field_error(field, format!("{value} is not true or false")));
    present(config, field).map(as_flag).transpose()
}

/// Three numbers, or one for all channels.
fn triple(config: &Map<String, Value>, field: &'static str) -> Result<Option<[f32; 3]>, PreprocessError> {
    let Some(value) = present(config, field) else {
        return Ok(None);
    };
    let number = |value: &Value| value.as_f64().map(|value| value as f32);
    let numbers = match value {
        Value::Array(values) if values.len() == 3 => values.iter().map(number).collect::<Option<Vec<f32>>>(),
        value => number(value).map(|value| vec![value; 3]),
    };
    match numbers.as_deref() {
        Some(&[red, green, blue]) => Ok(Some([red, green, blue])),
        _ => Err(field_error(field, format!("{value} is neither three numbers nor one"))),
    }
}

fn side(config: &Map<String, Value>, field: &'static str) -> Result<Option<Side>, PreprocessError> {
    let Some(value) = present(config, field) else {
        return Ok(None);
    };
    let wrong =
        || field_error(field, format!("{value}: use a number, {{\"shortest_edge\"}} or {{\"height\", \"width\"}}"));
    let number = |value: &Value| value.as_u64().and_then(|value| usize::try_from(value).ok());
    let get = |key: &str| {
        value.get(key).filter(|value| !value.is_null()).map(|value| number(value).ok_or_else(wrong)).transpose()
    };
    if let Some(edge) = number(value) {
        return Ok(Some(Side::Shortest(edge)));
    }
    if !value.is_object() || value.get("longest_edge").is_some_and(|value| !value.is_null()) {
        return Err(wrong());
    }
    match (get("shortest_edge")?, get("height")?, get("width")?) {
        (Some(edge), None, None) => Ok(Some(Side::Shortest(edge))),
        (None, Some(height), Some(width)) => Ok(Some(Side::Both(height, width))),
        _ => Err(wrong()),
    }
}

/// Pillow's numbers of filters; newer files may hold names.
fn resample(config: &Map<String, Value>) -> Result<Interpolation, PreprocessError> {
    let Some(value) = present(config, "resample") else {
        return Ok(Interpolation::Bicubic);
    };
    Ok(match (value.as_u64(), value.as_str()) {
        (Some(0), _) | (_, Some("nearest")) => Interpolation::Nearest,
        (Some(1), _) | (_, Some("lanczos")) => Interpolation::Lanczos,
        (Some(2), _) | (_, Some("bilinear")) => Interpolation::Bilinear,
        (Some(3), _) | (_, Some("bicubic")) => Interpolation::Bicubic,
        (Some(4), _) | (_, Some("box")) => Interpolation::Box,
        (Some(5), _) | (_, Some("hamming")) => Interpolation::Hamming,
        _ => return Err(field_error("resample", format!("{value} is none of Pillow's filters 0..=5"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn open_clip_defaults_and_fields() {
        let default = Preprocess::from_open_clip(&Value::Null, (224, 224)).expect("defaults");
        assert_eq!(default.resize, ResizeMode::Shortest);
        assert_eq!(
            (default.interpolation, default.mean, default.std),
            (Interpolation::Bicubic, OPENAI_MEAN, OPENAI_STD)
        );
        let config = json!({"mean": [0.485, 0.456, 0.406], "std": 0.5, "interpolation": "bilinear",
            "resize_mode": "squash", "fill_color": null, "mode": "RGB", "size": 999, "other": 1});
        let openvision = Preprocess::from_open_clip(&config, (160, 160)).expect("valid");
        assert_eq!(openvision.mean, super::super::IMAGENET_MEAN);
        assert_eq!(openvision.std, [0.5; 3]);
        assert_eq!((openvision.resize, openvision.size), (ResizeMode::Squash, (160, 160)));
        let text = serde_json::to_string(&openvision).expect("serializes");
        assert_eq!(serde_json::from_str::<Preprocess>(&text).expect("reads back"), openvision);
    }

    #[test]
    fn hugging_face_old_and_new_forms() {
        let old = json!({"crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true,
            "feature_extractor_type": "CLIPFeatureExtractor", "resample": 3, "size": 224,
            "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]});
        let new = json!({"crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "do_convert_rgb": true,
            "do_rescale": true, "rescale_factor": 0.00392156862745098, "image_processor_type": "CLIPImageProcessor",
            "resample": 3, "size": {"shortest_edge": 224}, "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711]});
        let old = Preprocess::from_hugging_face(&old).expect("old form");
        assert_eq!(old, Preprocess::from_hugging_face(&new).expect("new form"));
        assert_eq!((old.size, old.shortest_edge, old.mean), ((224, 224), Some(224), OPENAI_MEAN));
        let siglip = json!({"do_normalize": true, "do_rescale": true, "do_resize": true, "resample": 3,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "rescale_factor": 0.00392156862745098,
            "image_processor_type": "SiglipImageProcessor", "size": {"height": 384, "width": 384}});
        let siglip = Preprocess::from_hugging_face(&siglip).expect("siglip");
        assert_eq!((siglip.resize, siglip.size, siglip.mean), (ResizeMode::Squash, (384, 384), [0.5; 3]));
        let larger = json!({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 200}});
        let larger = Preprocess::from_hugging_face(&larger).expect("crop smaller than the edge");
        assert_eq!((larger.size, larger.shortest_edge), ((224, 200), Some(256)));
    }

    #[test]
    fn every_bad_field_is_named() {
        let open_clip = [
            ("std", json!({"std": [0.5, 0.0, 0.5]})),
            ("std", json!({"std": [0.5, -0.1, 0.5]})),
            ("std", json!({"std": 1e-60})),
            ("std", json!({"std": [1.0, 1.0]})),
            ("mean", json!({"mean": [1e300, 0.0, 0.0]})),
            ("mean", json!({"mean": "gray"})),
            ("interpolation", json!({"interpolation": "sinc"})),
            ("resize_mode", json!({"resize_mode": "stretch"})),
            ("fill_color", json!({"fill_color": 256})),
            ("mode", json!({"mode": "L"})),
            ("preprocess_cfg", json!([])),
        ];
        let hugging_face = [
            ("size", json!({"size": {"shortest_edge": 0}})),
            ("size", json!({"size": {"height": 20000, "width": 2}, "do_center_crop": false})),
            ("size", json!({"size": {"longest_edge": 224}})),
            ("size", json!({"size": -1})),
            ("image_std", json!({"image_std": []})),
            ("resample", json!({"resample": 9})),
            ("rescale_factor", json!({"rescale_factor": 1.0})),
            ("do_resize", json!({"do_resize": false})),
            ("do_rescale", json!({"do_rescale": false})),
            ("do_normalize", json!({"do_normalize": 1})),
            ("do_center_crop", json!({"do_center_crop": false})),
            ("crop_size", json!({"size": {"height": 8, "width": 8}})),
            ("image_processor_type", json!({"image_processor_type": "BlipImageProcessor"})),
            ("preprocessor_config", json!(null)),
        ];
        let field_of = |result: Result<Preprocess, PreprocessError>| match result {
            Err(PreprocessError::Field { field, .. }) => field.to_owned(),
            other => format!("{other:?}"),
        };
        for (field, config) in open_clip {
            assert_eq!(field_of(Preprocess::from_open_clip(&config, (224, 224))), field, "{config}");
        }
        for (field, config) in hugging_face {
            assert_eq!(field_of(Preprocess::from_hugging_face(&config)), field, "{config}");
        }
        for size in [(0, 224), (224, 0), (16_385, 224)] {
            assert_eq!(field_of(Preprocess::from_open_clip(&Value::Null, size)), "size");
        }
    }
}
